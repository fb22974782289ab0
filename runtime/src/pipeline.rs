//! Compute pipelines, and buffers bound to them.

use std::fmt;
use std::sync::{Arc, PoisonError};

use wgforge_caps::{Access, Binding};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::faults::scoped;
use crate::memory::{Slice, WORD};

/// A finished shader with what is needed to bind it. Its entry point is `main`, its bindings are
/// those of group 0, numbered from 0 in order.
#[derive(Clone, Copy, Debug)]
pub struct KernelSource<'a> {
    /// Name for messages and debuggers.
    pub label: &'a str,
    /// The WGSL text.
    pub wgsl: &'a str,
    /// The bindings with their accesses, as reflected from the text.
    pub bindings: &'a [Binding],
}

/// Equal shaders with equal accesses share a pipeline, whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PipelineKey {
    wgsl: String,
    accesses: Vec<Access>,
}

/// A compiled kernel; clones are handles.
#[derive(Clone)]
pub struct Pipeline {
    label: Arc<str>,
    inner: Arc<Inner>,
}

struct Inner {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("label", &self.label)
            .field("bindings", &self.inner.bindings)
            .finish_non_exhaustive()
    }
}

/// Buffers bound to the bindings of a kernel; clones are handles. Holds its buffers.
#[derive(Clone, Debug)]
pub struct BindGroup(Arc<(wgpu::BindGroup, Vec<Slice>)>);

impl BindGroup {
    /// The wgpu bind group.
    pub fn wgpu(&self) -> &wgpu::BindGroup {
        &self.0.0
    }

    /// The slices bound, in the order of the bindings.
    pub fn slices(&self) -> &[Slice] {
        &self.0.1
    }
}

impl Device {
    /// Compiles a kernel, or gives the pipeline made earlier from the same text and accesses.
    ///
    /// # Errors
    ///
    /// [`Error::Shader`] with the compiler's report, [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`].
    pub async fn pipeline(&self, source: &KernelSource<'_>) -> Result<Pipeline> {
        let key = PipelineKey {
            wgsl: source.wgsl.to_owned(),
            accesses: source.bindings.iter().map(|binding| binding.access).collect(),
        };
        let cached = self.pipelines().lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(cached) = cached {
            return Ok(Pipeline { label: source.label.into(), inner: cached.inner });
        }
        self.check_binding_count(source)?;
        let ((module, pipeline, layout), error) = scoped(self.wgpu(), || {
            let module = self.module(source);
            let (pipeline, layout) = self.compute(source, &module);
            (module, pipeline, layout)
        });
        if let Some(error) = error.await {
            return Err(match error {
                wgpu::Error::OutOfMemory { .. } => {
                    Error::from_wgpu(&format!("pipeline {}", source.label), 0, self.memory_in_use(), &error)
                }
                error => {
                    let mut report = error.to_string();
                    if cfg!(target_arch = "wasm32") {
                        // Browsers keep line and column out of the error and in the module.
                        let info = module.get_compilation_info().await;
                        report.push_str(&carets(source.wgsl, &info.messages));
                    }
                    Error::Shader { kernel: source.label.into(), report }
                }
            });
        }
        self.alive()?;
        let inner = Arc::new(Inner { pipeline, layout, bindings: source.bindings.to_vec() });
        let pipeline = Pipeline { label: source.label.into(), inner };
        self.pipelines().lock().unwrap_or_else(PoisonError::into_inner).insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Drops the pipelines this device keeps for equal texts; those in use live on. For programs
    /// that compile thousands of shaders and use few.
    pub fn forget_pipelines(&self) {
        self.pipelines().lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// wgpu would refuse too, but in terms of layouts and stages.
    fn check_binding_count(&self, source: &KernelSource<'_>) -> Result<()> {
        let storage = source.bindings.iter().filter(|binding| binding.access != Access::Uniform).count();
        let limit = self.caps().max_storage_bindings;
        if u32::try_from(storage).is_ok_and(|storage| storage <= limit) {
            return Ok(());
        }
        let report = format!("{storage} storage buffers, and this device allows {limit} per kernel");
        Err(Error::Shader { kernel: source.label.into(), report })
    }

    fn module(&self, source: &KernelSource<'_>) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(source.label),
            source: wgpu::ShaderSource::Wgsl(source.wgsl.into()),
        };
        if !self.trusted() {
            return self.wgpu().create_shader_module(descriptor);
        }
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: whoever opened the device with `trusted` vouches that its kernels neither index
        // out of bounds nor loop for ever nor divide by zero. For rendered kernels each kernel's
        // `why_not` proves it from shape and configuration; `Pipeline::bind` checks that what is
        // bound lies within its buffer. On the web `trusted()` is never true.
        unsafe { self.wgpu().create_shader_module_trusted(descriptor, checks) }
    }

    fn compute(
        &self,
        source: &KernelSource<'_>,
        module: &wgpu::ShaderModule,
    ) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let entries: Vec<_> =
            (0..).zip(source.bindings).map(|(index, binding)| entry(index, binding)).collect();
        let layout = self.wgpu().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(source.label),
            entries: &entries,
        });
        let pipeline_layout = self.wgpu().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(source.label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.wgpu().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(source.label),
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it; clearing it first costs time
                // at the start of every workgroup.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            // Drivers cache compiled shaders on disk by themselves. Feeding saved data back would
            // be one more unsafe place, on the word of a file.
            cache: None,
        });
        (pipeline, layout)
    }
}

fn entry(index: u32, binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    let ty = match binding.access {
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
        Access::Uniform => wgpu::BufferBindingType::Uniform,
    };
    wgpu::BindGroupLayoutEntry {
        binding: index,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

impl Pipeline {
    /// The name it was asked for by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The bindings, in order.
    pub fn bindings(&self) -> &[Binding] {
        &self.inner.bindings
    }

    pub(crate) fn wgpu(&self) -> &wgpu::ComputePipeline {
        &self.inner.pipeline
    }

    /// Binds one slice to each binding, in order. Costs about a microsecond; make groups once.
    ///
    /// # Errors
    ///
    /// [`Error::BindingCount`]; [`Error::TooLarge`] for a slice beyond `max_binding_bytes` (split
    /// it); [`Error::Validation`] for a slice that is empty, misaligned or beyond its buffer, whose
    /// buffer lacks the usage, or whose buffer is written by this kernel through another binding.
    pub fn bind(&self, device: &Device, buffers: &[Slice]) -> Result<BindGroup> {
        let bindings = &self.inner.bindings;
        if buffers.len() != bindings.len() {
            let kernel = self.label.to_string();
            return Err(Error::BindingCount { kernel, wanted: bindings.len(), given: buffers.len() });
        }
        for (binding, slice) in bindings.iter().zip(buffers) {
            self.check_slice(device, binding, slice)?;
        }
        self.check_aliasing(buffers)?;
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, slice)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &slice.buffer,
                    offset: slice.offset,
                    size: wgpu::BufferSize::new(slice.size),
                }),
            })
            .collect();
        let group = device.wgpu().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&self.label),
            layout: &self.inner.layout,
            entries: &entries,
        });
        Ok(BindGroup(Arc::new((group, buffers.to_vec()))))
    }

    fn check_slice(&self, device: &Device, binding: &Binding, slice: &Slice) -> Result<()> {
        let what = || format!("kernel {}, binding {}", self.label, binding.name);
        let limits = device.limits();
        let (align, limit, usage) = match binding.access {
            Access::Uniform => (
                limits.min_uniform_buffer_offset_alignment,
                limits.max_uniform_buffer_binding_size,
                wgpu::BufferUsages::UNIFORM,
            ),
            Access::Read | Access::ReadWrite => (
                limits.min_storage_buffer_offset_alignment,
                limits.max_storage_buffer_binding_size,
                wgpu::BufferUsages::STORAGE,
            ),
        };
        let refuse = |report: String| Err(Error::validation(what(), report));
        if slice.size > limit {
            return Err(Error::TooLarge { what: what(), bytes: slice.size, limit });
        }
        if slice.size == 0 || !slice.size.is_multiple_of(WORD) {
            return refuse(format!("{} bytes are not a positive number of words", slice.size));
        }
        if !slice.offset.is_multiple_of(u64::from(align)) {
            return refuse(format!("offset {} is not a multiple of {align}", slice.offset));
        }
        if slice.end() > slice.buffer.size() {
            return refuse(format!(
                "bytes {}..{} are beyond a buffer of {}",
                slice.offset,
                slice.end(),
                slice.buffer.size()
            ));
        }
        if !slice.buffer.usage().contains(usage) {
            return refuse(format!(
                "the buffer was made for {:?}, which lacks {usage:?}",
                slice.buffer.usage()
            ));
        }
        Ok(())
    }

    /// wgpu's rules: in one dispatch a buffer is either read or written, and written ranges do not
    /// overlap. wgpu itself would say so only when the commands are submitted.
    fn check_aliasing(&self, buffers: &[Slice]) -> Result<()> {
        let bound = || self.inner.bindings.iter().zip(buffers);
        for (index, (binding, slice)) in bound().enumerate() {
            for (other, other_slice) in bound().skip(index + 1) {
                let writes = (binding.access, other.access);
                if slice.buffer != other_slice.buffer {
                    continue;
                }
                let overlap = slice.offset < other_slice.end() && other_slice.offset < slice.end();
                let report = match writes {
                    (Access::ReadWrite, Access::ReadWrite) if overlap => "are written and overlap",
                    (Access::ReadWrite, Access::ReadWrite) => continue,
                    (Access::ReadWrite, _) | (_, Access::ReadWrite) => {
                        "lie in one buffer, and one is written while the other is read; \
                         give the written one a buffer of its own"
                    }
                    _ => continue,
                };
                let what = format!("kernel {}, bindings {} and {}", self.label, binding.name, other.name);
                return Err(Error::validation(what, report));
            }
        }
        Ok(())
    }
}

/// Messages with the line they are about and a caret under the place.
fn carets(wgsl: &str, messages: &[wgpu::CompilationMessage]) -> String {
    let mut report = String::new();
    for message in messages {
        report.push_str(&format!("\n{:?}: {}\n", message.message_type, message.message));
        let Some(place) = message.location else { continue };
        let line = usize::try_from(place.line_number).unwrap_or(0).saturating_sub(1);
        let Some(text) = wgsl.lines().nth(line) else { continue };
        let column = usize::try_from(place.line_position).unwrap_or(0).saturating_sub(1);
        report.push_str(&format!("{:>5} | {text}\n      | {}^\n", line + 1, " ".repeat(column)));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_points_at_its_place_in_the_text() {
        let message = wgpu::CompilationMessage {
            message: "unknown name".into(),
            message_type: wgpu::CompilationMessageType::Error,
            location: Some(wgpu::SourceLocation { line_number: 2, line_position: 5, offset: 0, length: 1 }),
        };
        let report = carets("first\nlet x = y;\n", &[message]);
        assert_eq!(report, "\nError: unknown name\n    2 | let x = y;\n      |     ^\n", "line and caret");
    }
}
