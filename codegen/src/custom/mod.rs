//! Kernels of other crates: any [`Kernel`] behind the same [`Workload`](crate::Workload) and
//! [`Variant`](crate::Variant) as the built-in ones.
//!
//! A set of [`Families`] says which kernels a database may name. It is passed to whatever reads
//! one; nothing is registered globally.
//!
//! ```
//! # use wgforge_codegen::{Caps, Cost, Arithmetic, Kernel, Reason, check, io::Io, types::Act};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Clone, Copy, Debug)]
//! struct Double;
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct Shape { n: u32 }
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct Config { wg: u32 }
//!
//! impl Kernel for Double {
//!     const NAME: &'static str = "double";
//!     const TEMPLATE: &'static str = "
//! @group(0) @binding({{ b.x }}) var<storage, read_write> x: array<f32, {{ s.n }}>;
//! @compute @workgroup_size({{ c.wg }})
//! fn main(@builtin(global_invocation_id) id: vec3<u32>) {
//!   if (id.x < {{ s.n }}u) { x[id.x] *= 2.0; }
//! }";
//!     type Shape = Shape;
//!     type Config = Config;
//! #   fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> { vec!["x"] }
//! #   fn written(_: &Shape, _: &Config) -> Vec<&'static str> { vec!["x"] }
//! #   fn candidates(_: &Shape, _: &Caps) -> Vec<Config> { vec![Config { wg: 64 }] }
//! #   fn generic(_: &Shape, _: &Caps) -> Config { Config { wg: 64 } }
//! #   fn why_not(_: &Shape, _: &Config, _: &Caps) -> Option<Reason> { None }
//! #   fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] { [s.n.div_ceil(c.wg), 1, 1] }
//! #   fn reference(_: &Shape, _: &Config, io: &mut Io<'_>) {
//! #       io.words_mut("x").iter_mut().for_each(|w| *w = (f32::from_bits(*w) * 2.0).to_bits());
//! #   }
//! #   fn draw(s: &Shape, _: &Config, _: &str, d: &mut check::Draw) -> Vec<u32> { d.floats(s.n.into(), 1.0) }
//! #   fn output(_: &Shape, _: &Config, _: &str) -> (Act, check::Tolerance) { (Act::F32, check::Tolerance::Exact) }
//! #   fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
//! #       Cost { read_bytes: 4 * u64::from(s.n), written_bytes: 4 * u64::from(s.n), ops: s.n.into(), kind: Arithmetic::F32 }
//! #   }
//!     // … what `Kernel` asks for
//! }
//!
//! use wgforge_codegen::{Workload, custom::{self, Families}};
//! let workload = custom::workload::<Double>(Shape { n: 1000 });
//! assert_eq!(workload.kernel(), "double");
//! let families = Families::builtin().with::<Double>()?;
//! let parsed = Workload::parse_with(&families, "double", serde_json::json!({ "n": 1000 }));
//! assert_eq!(parsed.as_ref(), Ok(&workload));
//! # Ok::<(), custom::FamilyError>(())
//! ```

mod families;

use std::{any::Any, fmt, marker::PhantomData, sync::Arc};

use serde_json::Value;

pub use families::{Families, FamilyError};

use crate::{
    Caps, Cost, Kernel, Reason,
    check::{Draw, Tolerance},
    io::Io,
    kernel::canonical_json,
    types::Act,
};

/// A family without its type; made by [`family`].
pub trait Family: fmt::Debug + Send + Sync {
    /// [`Kernel::NAME`].
    fn name(&self) -> &'static str;

    /// [`Kernel::TEMPLATE`].
    fn template(&self) -> &'static str;

    /// Reads a shape from JSON.
    ///
    /// # Errors
    /// What serde finds wrong with it.
    fn parse(&self, shape: Value) -> Result<Workload, String>;
}

/// The family of a kernel type.
pub fn family<K: Kernel>() -> Arc<dyn Family> {
    Arc::new(Typed::<K>(PhantomData))
}

/// A workload of a kernel of another crate.
pub fn workload<K: Kernel>(shape: K::Shape) -> crate::Workload {
    crate::Workload::Custom(Workload::new::<K>(shape))
}

/// A variant of a kernel of another crate.
pub fn variant<K: Kernel>(shape: K::Shape, config: K::Config) -> crate::Variant {
    crate::Variant::Custom(Variant::new::<K>(shape, config))
}

struct Typed<K>(PhantomData<fn() -> K>);

impl<K: Kernel> fmt::Debug for Typed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", K::NAME)
    }
}

impl<K: Kernel> Family for Typed<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn template(&self) -> &'static str {
        K::TEMPLATE
    }

    fn parse(&self, shape: Value) -> Result<Workload, String> {
        serde_json::from_value(shape).map(Workload::new::<K>).map_err(|e| e.to_string())
    }
}

/// A shape of a kernel of another crate. Equal when family and JSON are.
#[derive(Clone)]
pub struct Workload(Arc<dyn Shaped>);

/// A shape and a configuration of a kernel of another crate. Equal when family and JSON are.
#[derive(Clone)]
pub struct Variant(pub(crate) Arc<dyn Configured>);

pub(crate) trait Shaped: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn kernel(&self) -> &'static str;
    fn shape_json(&self) -> String;
    #[cfg(feature = "build")]
    fn shape_in_order(&self) -> String;
    fn candidates(&self, caps: &Caps) -> Vec<Variant>;
    fn generic(&self, caps: &Caps) -> Variant;
    fn one_token(&self) -> bool;
    fn with_config(&self, config: Value) -> Result<Variant, String>;
}

pub(crate) trait Configured: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn kernel(&self) -> &'static str;
    #[cfg(feature = "render")]
    fn template(&self) -> &'static str;
    fn workload(&self) -> Workload;
    fn config_json(&self) -> String;
    fn why_not(&self, caps: &Caps) -> Option<Reason>;
    fn bindings(&self) -> Vec<&'static str>;
    fn written(&self) -> Vec<&'static str>;
    fn groups(&self, tokens: u32) -> [u32; 3];
    fn features(&self) -> (bool, bool);
    fn values(&self) -> (Value, Value, Vec<(&'static str, u32)>);
    fn reference(&self, io: &mut Io<'_>);
    fn draw(&self, name: &str, draw: &mut Draw) -> Vec<u32>;
    fn output(&self, name: &str) -> (Act, Tolerance);
    fn cost(&self, tokens: u32, position: u32) -> Cost;
    fn promising(&self) -> bool;
    fn followers(&self) -> Vec<crate::Workload>;
}

struct ShapeOf<K: Kernel>(K::Shape);

struct VariantOf<K: Kernel> {
    shape: K::Shape,
    config: K::Config,
}

impl Workload {
    /// Erases the type of a shape.
    pub fn new<K: Kernel>(shape: K::Shape) -> Self {
        Self(Arc::new(ShapeOf::<K>(shape)))
    }

    /// The shape, if `K` is the family.
    pub fn shape<K: Kernel>(&self) -> Option<&K::Shape> {
        self.0.as_any().downcast_ref::<ShapeOf<K>>().map(|s| &s.0)
    }

    pub(crate) fn inner(&self) -> &dyn Shaped {
        &*self.0
    }
}

impl Variant {
    /// Erases the types of a shape and a configuration.
    pub fn new<K: Kernel>(shape: K::Shape, config: K::Config) -> Self {
        Self(Arc::new(VariantOf::<K> { shape, config }))
    }

    /// Shape and configuration, if `K` is the family.
    pub fn parts<K: Kernel>(&self) -> Option<(&K::Shape, &K::Config)> {
        self.0.as_any().downcast_ref::<VariantOf<K>>().map(|v| (&v.shape, &v.config))
    }

    pub(crate) fn inner(&self) -> &dyn Configured {
        &*self.0
    }
}

impl<K: Kernel> Shaped for ShapeOf<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kernel(&self) -> &'static str {
        K::NAME
    }

    fn shape_json(&self) -> String {
        canonical_json(&self.0)
    }

    #[cfg(feature = "build")]
    fn shape_in_order(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    fn candidates(&self, caps: &Caps) -> Vec<Variant> {
        let configs = K::candidates(&self.0, caps);
        configs.into_iter().map(|config| Variant::new::<K>(self.0.clone(), config)).collect()
    }

    fn generic(&self, caps: &Caps) -> Variant {
        Variant::new::<K>(self.0.clone(), K::generic(&self.0, caps))
    }

    fn one_token(&self) -> bool {
        K::one_token(&self.0)
    }

    fn with_config(&self, config: Value) -> Result<Variant, String> {
        let config = serde_json::from_value(config).map_err(|e| e.to_string())?;
        Ok(Variant::new::<K>(self.0.clone(), config))
    }
}

impl<K: Kernel> Configured for VariantOf<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kernel(&self) -> &'static str {
        K::NAME
    }

    #[cfg(feature = "render")]
    fn template(&self) -> &'static str {
        K::TEMPLATE
    }

    fn workload(&self) -> Workload {
        Workload::new::<K>(self.shape.clone())
    }

    fn config_json(&self) -> String {
        canonical_json(&self.config)
    }

    fn why_not(&self, caps: &Caps) -> Option<Reason> {
        K::why_not(&self.shape, &self.config, caps)
    }

    fn bindings(&self) -> Vec<&'static str> {
        K::bindings(&self.shape, &self.config)
    }

    fn written(&self) -> Vec<&'static str> {
        K::written(&self.shape, &self.config)
    }

    fn groups(&self, tokens: u32) -> [u32; 3] {
        K::groups(&self.shape, &self.config, tokens)
    }

    fn features(&self) -> (bool, bool) {
        K::features(&self.config)
    }

    fn values(&self) -> (Value, Value, Vec<(&'static str, u32)>) {
        (
            serde_json::to_value(&self.shape).unwrap_or_default(),
            serde_json::to_value(&self.config).unwrap_or_default(),
            K::derived(&self.shape, &self.config),
        )
    }

    fn reference(&self, io: &mut Io<'_>) {
        K::reference(&self.shape, &self.config, io);
    }

    fn draw(&self, name: &str, draw: &mut Draw) -> Vec<u32> {
        K::draw(&self.shape, &self.config, name, draw)
    }

    fn output(&self, name: &str) -> (Act, Tolerance) {
        K::output(&self.shape, &self.config, name)
    }

    fn cost(&self, tokens: u32, position: u32) -> Cost {
        K::cost(&self.shape, &self.config, tokens, position)
    }

    fn promising(&self) -> bool {
        K::promising(&self.shape, &self.config)
    }

    fn followers(&self) -> Vec<crate::Workload> {
        K::followers(&self.shape, &self.config)
    }
}

impl PartialEq for Workload {
    fn eq(&self, other: &Self) -> bool {
        self.0.kernel() == other.0.kernel() && self.0.shape_json() == other.0.shape_json()
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.0.workload() == other.0.workload() && self.0.config_json() == other.0.config_json()
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.kernel(), self.0.shape_json())
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0.workload(), self.0.config_json())
    }
}
