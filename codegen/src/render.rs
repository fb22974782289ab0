//! Templates to WGSL to a validated module.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tera::{Context, Tera};

use crate::{Access, Binding, Error, Variant, kernel::TEMPLATES};

/// Which WGSL dialect to write. Naga refuses `enable subgroups;`, browsers require it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Naga: native wgpu.
    Native,
    /// Tint and other browsers' compilers.
    Web,
}

/// A finished shader with what its host needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub wgsl: String,
    /// blake3 of the text, hexadecimal.
    pub hash: String,
    /// Threads of a workgroup, by reflection.
    pub workgroup: [u32; 3],
    /// Bindings of group 0 in order, by reflection.
    pub bindings: Vec<Binding>,
    /// Bytes of workgroup memory, by reflection.
    pub workgroup_bytes: u32,
}

/// Components shared by the templates.
const PARTS: &[(&str, &str)] = &[
    ("parts/prelude.wgsl", include_str!("../../templates/parts/prelude.wgsl")),
    ("parts/tensor.wgsl", include_str!("../../templates/parts/tensor.wgsl")),
    ("parts/weights.wgsl", include_str!("../../templates/parts/weights.wgsl")),
    ("parts/reduce.wgsl", include_str!("../../templates/parts/reduce.wgsl")),
    ("parts/math.wgsl", include_str!("../../templates/parts/math.wgsl")),
    ("parts/epilogue.wgsl", include_str!("../../templates/parts/epilogue.wgsl")),
    ("parts/token.wgsl", include_str!("../../templates/parts/token.wgsl")),
];

/// The engine with every template of this crate loaded.
///
/// # Panics
/// When a template shipped with this crate does not parse; the crate's tests load them all.
pub fn engine() -> &'static Tera {
    static ENGINE: OnceLock<Tera> = OnceLock::new();
    ENGINE.get_or_init(|| build_engine(&[]).unwrap_or_else(|e| panic!("shipped templates: {e}")))
}

/// An engine with this crate's parts and kernels and `extra` templates of somebody else's.
///
/// # Errors
/// A template that does not parse; the text is Tera's report with its caret.
pub fn build_engine(extra: &[(&str, &str)]) -> Result<Tera, Error> {
    let mut tera = Tera::new();
    let kernels = TEMPLATES.iter().map(|(name, text)| (*name, *text));
    tera.add_raw_templates(PARTS.iter().copied().chain(kernels).chain(extra.iter().copied()))
        .map_err(|e| Error::Template { kernel: "templates".into(), report: report(&e) })?;
    Ok(tera)
}

fn report(e: &tera::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(s) = source {
        text.push_str(&format!("\ncaused by: {s}"));
        source = s.source();
    }
    text
}

/// The engine of a kernel of another crate: its template beside our parts. Kept, because a tuner
/// renders one template hundreds of times.
fn engine_of(name: &'static str, template: &'static str) -> Result<Arc<Tera>, Error> {
    type Engines = HashMap<(&'static str, &'static str), Arc<Tera>>;
    static ENGINES: OnceLock<Mutex<Engines>> = OnceLock::new();
    let mut engines = ENGINES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(engine) = engines.get(&(name, template)) {
        return Ok(Arc::clone(engine));
    }
    let mut tera = Tera::new();
    tera.add_raw_templates(PARTS.iter().copied().chain([(name, template)]))
        .map_err(|e| Error::Template { kernel: name.into(), report: report(&e) })?;
    let engine = Arc::new(tera);
    engines.insert((name, template), Arc::clone(&engine));
    Ok(engine)
}

impl Variant {
    /// Renders the shader text for `target`, without validating it.
    ///
    /// # Errors
    /// A template error, with its caret.
    pub fn wgsl(&self, target: Target) -> Result<String, Error> {
        match self {
            Self::Custom(_) => self.wgsl_by(&*engine_of(self.kernel(), self.template())?, target),
            _ => self.wgsl_by(engine(), target),
        }
    }

    fn wgsl_by(&self, engine: &Tera, target: Target) -> Result<String, Error> {
        let fail = |e: &tera::Error| Error::Template { kernel: self.kernel().into(), report: report(e) };
        let mut context = Context::from_serialize(&self.context()).map_err(|e| fail(&e))?;
        context.insert("web", &(target == Target::Web));
        let text = engine.render(self.kernel(), &context).map_err(|e| fail(&e))?;
        Ok(tidy(&text))
    }

    /// Renders, parses, validates, translates to SPIR-V and reflects.
    ///
    /// The result for [`Target::Web`] is checked as its native twin, since naga does not take the
    /// web's `enable` line.
    ///
    /// # Errors
    /// [`Error::Template`] or [`Error::Shader`] with a caret report, or
    /// [`Error::Bindings`] when the shader's variables differ from [`Variant::bindings`].
    pub fn render(&self, target: Target) -> Result<Rendered, Error> {
        let native = self.wgsl(Target::Native)?;
        let label = format!("{} {} {}", self.kernel(), self.workload().shape_json(), self.config_json());
        let mut rendered = validate(&label, &native)?;
        let found: Vec<&str> = rendered.bindings.iter().map(|b| b.name.as_str()).collect();
        if found != self.bindings() {
            return Err(Error::Bindings {
                kernel: label,
                wanted: self.bindings().join(", "),
                found: found.join(", "),
            });
        }
        if target == Target::Web {
            rendered.wgsl = self.wgsl(target)?;
            rendered.hash = hash(&rendered.wgsl);
        }
        Ok(rendered)
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Drops the blank lines that template tags leave behind.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Parses and validates `wgsl`, runs the SPIR-V writer (which finds what the validator misses),
/// and reflects the entry point `main`.
///
/// # Errors
/// [`Error::Shader`] with naga's caret report.
pub fn validate(label: &str, wgsl: &str) -> Result<Rendered, Error> {
    use naga::valid::{Capabilities, SubgroupOperationSet, ValidationFlags, Validator};
    let fail = |report: String| Error::Shader { kernel: label.to_owned(), report };
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_operations(SubgroupOperationSet::all());
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    let info = validator.validate(&module).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    naga::back::spv::write_vec(&module, &info, &options, None)
        .map_err(|e| fail(format!("SPIR-V writer: {e}")))?;

    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == "main")
        .ok_or_else(|| fail("no compute entry point `main`".into()))?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| fail(e.to_string()))?;
    let mut found: Vec<(u32, Binding)> = Vec::new();
    let mut workgroup_bytes = 0;
    for (_, var) in module.global_variables.iter() {
        let access = match var.space {
            naga::AddressSpace::WorkGroup => {
                workgroup_bytes += layouter[var.ty].size;
                continue;
            }
            naga::AddressSpace::Uniform => Access::Uniform,
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                Access::ReadWrite
            }
            naga::AddressSpace::Storage { .. } => Access::Read,
            _ => continue,
        };
        let slot = var.binding.ok_or_else(|| fail(format!("`{:?}` has no binding", var.name)))?;
        if slot.group != 0 {
            return Err(fail(format!(
                "`{:?}` is in group {}; kernels use group 0 only",
                var.name, slot.group
            )));
        }
        found.push((slot.binding, Binding { name: var.name.clone().unwrap_or_default(), access }));
    }
    found.sort_by_key(|(slot, _)| *slot);
    if found.iter().enumerate().any(|(i, (slot, _))| *slot as usize != i) {
        return Err(fail("bindings are not numbered 0, 1, 2, … without gaps".into()));
    }
    Ok(Rendered {
        wgsl: wgsl.to_owned(),
        hash: hash(wgsl),
        workgroup: entry.workgroup_size,
        bindings: found.into_iter().map(|(_, b)| b).collect(),
        workgroup_bytes,
    })
}
