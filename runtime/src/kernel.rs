//! The layer that generated code stands on: kernels as types.

use std::fmt;
use std::marker::PhantomData;

use wgforge_caps::{Access, Binding};

use crate::device::Device;
use crate::error::Result;
use crate::memory::Slice;
use crate::pipeline::{BindGroup, KernelSource, Pipeline};

/// The version of what generated code expects of this module; it asserts that this is the one it
/// was written for.
pub const ABI: u32 = 1;

/// A rendered kernel, as constants.
#[derive(Clone, Copy, Debug)]
pub struct KernelInfo {
    /// Name of this kernel: family, shape and configuration.
    pub name: &'static str,
    /// The family, which is also the name of the template.
    pub kernel: &'static str,
    /// The WGSL text; entry point `main`.
    pub wgsl: &'static str,
    /// Hash of the text, as the tuning database records it.
    pub wgsl_hash: &'static str,
    /// Invocations of a workgroup in x, y, z.
    pub workgroup: [u32; 3],
    /// Names and accesses of the bindings of group 0, in order.
    pub bindings: &'static [(&'static str, Access)],
    /// The shape, as JSON.
    pub shape: &'static str,
    /// The configuration, as JSON.
    pub config: &'static str,
}

impl KernelInfo {
    /// Bindings that count against [`crate::Caps::max_storage_bindings`].
    pub fn storage_bindings(&self) -> usize {
        self.bindings.iter().filter(|(_, access)| *access != Access::Uniform).count()
    }
}

/// A kernel with bindings that have names and types. Implemented by generated code.
pub trait Kernel {
    /// The rendered kernel.
    const INFO: KernelInfo;
    /// One named slice for each binding.
    type Bindings<'a>;
    /// The slices in the order of `INFO.bindings`.
    fn slices(bindings: &Self::Bindings<'_>) -> Vec<Slice>;
}

/// The pipeline of a kernel type; clones are handles.
pub struct TypedPipeline<K> {
    pipeline: Pipeline,
    kernel: PhantomData<fn() -> K>,
}

/// Buffers bound for a kernel type; clones are handles.
pub struct Bound<K> {
    group: BindGroup,
    kernel: PhantomData<fn() -> K>,
}

impl Device {
    /// Compiles an embedded kernel that was found by its shape, or takes it from the cache.
    ///
    /// # Errors
    ///
    /// As [`Device::pipeline`].
    pub async fn kernel(&self, info: &KernelInfo) -> Result<Pipeline> {
        let bindings: Vec<Binding> =
            info.bindings.iter().map(|&(name, access)| Binding { name: name.to_owned(), access }).collect();
        self.pipeline(&KernelSource { label: info.name, wgsl: info.wgsl, bindings: &bindings }).await
    }
}

impl<K: Kernel> TypedPipeline<K> {
    /// Compiles the kernel, or takes it from the device's cache.
    ///
    /// # Errors
    ///
    /// As [`Device::pipeline`].
    pub async fn new(device: &Device) -> Result<Self> {
        Ok(Self { pipeline: device.kernel(&K::INFO).await?, kernel: PhantomData })
    }

    /// Binds the kernel's buffers.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::bind`].
    pub fn bind(&self, device: &Device, bindings: &K::Bindings<'_>) -> Result<Bound<K>> {
        let group = self.pipeline.bind(device, &K::slices(bindings))?;
        Ok(Bound { group, kernel: PhantomData })
    }

    /// The rendered kernel.
    pub fn info(&self) -> KernelInfo {
        K::INFO
    }
}

impl<K> TypedPipeline<K> {
    /// The pipeline without its type.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}

impl<K> Bound<K> {
    /// The bind group without its type.
    pub fn group(&self) -> &BindGroup {
        &self.group
    }
}

// Written out because derives would ask the same of `K`, which is only a name.
impl<K> Clone for TypedPipeline<K> {
    fn clone(&self) -> Self {
        Self { pipeline: self.pipeline.clone(), kernel: PhantomData }
    }
}

impl<K> Clone for Bound<K> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), kernel: PhantomData }
    }
}

impl<K> fmt::Debug for TypedPipeline<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedPipeline").field(&self.pipeline).finish()
    }
}

impl<K> fmt::Debug for Bound<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bound").field(&self.group).finish()
    }
}
