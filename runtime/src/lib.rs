//! The thin layer between kernels and wgpu: devices, pipelines, memory, recording, read-back.
//!
//! It knows no template and no model. What it adds to wgpu is what every program here needs and
//! what is easy to get wrong: the choice of an adapter, errors as values instead of panics,
//! bindings that are checked before the driver sees them, memory in few large buffers, several
//! submissions in flight, and times measured on the GPU.
//!
//! ```no_run
//! # async fn example() -> wgforge_runtime::Result<()> {
//! use wgforge_runtime::{Access, Binding, Device, DeviceOptions, KernelSource, Recorder};
//!
//! let device = Device::request(&DeviceOptions::default()).await?;
//! let bindings = [Binding { name: "values".into(), access: Access::ReadWrite }];
//! let wgsl = "@group(0) @binding(0) var<storage, read_write> values: array<u32, 64>;
//!     @compute @workgroup_size(64)
//!     fn main(@builtin(local_invocation_index) i: u32) { values[i] = i * i; }";
//! let pipeline = device.pipeline(&KernelSource { label: "squares", wgsl, bindings: &bindings }).await?;
//!
//! let values = device.buffer("values", 256).await?;
//! let group = pipeline.bind(&device, &[values.clone()])?;
//! let mut recorder = Recorder::new(&device, "squares");
//! recorder.pass("squares").dispatch(&pipeline, &group, [1, 1, 1])?;
//! recorder.submit();
//! let bytes = device.read(&values).await?;
//! # let _ = bytes; Ok(())
//! # }
//! ```
//!
//! Natively every future of this crate blocks its thread where it has to wait, and is ready after
//! that: `pollster::block_on` or any other executor drives it. On the web the futures are woken by
//! the browser.

mod adapter;
mod arena;
mod device;
mod error;
mod faults;
mod kernel;
mod memory;
mod pipeline;
mod readback;
mod record;
mod signal;
mod timestamps;
mod upload;

pub use adapter::{AdapterReport, Backend, adapters};
pub use arena::Arena;
pub use device::{CapsMask, Device, DeviceOptions, Identity};
pub use error::{Error, Result};
pub use kernel::{ABI, Bound, Kernel, KernelInfo, TypedPipeline};
pub use memory::Slice;
pub use pipeline::{BindGroup, KernelSource, Pipeline};
pub use readback::{ReadBackRing, Ticket};
pub use record::{Pass, Recorder, Submission};
pub use timestamps::{Span, Timestamps};
pub use upload::Uploader;

// Generated code and callers name these through this crate, so that their versions always agree.
pub use bytemuck;
pub use wgforge_caps::{Access, Binding, Caps};
pub use wgpu;
