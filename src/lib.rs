//! GPU kernels that are generated, checked and tuned, and Gemma 4 running on them.
//!
//! This crate only gathers the others under one name; each of them can be used alone:
//!
//! - [`codegen`]: WGSL kernels from templates, their bounds and their CPU references;
//! - [`runtime`]: devices, pipelines, memory and recording on wgpu;
//! - [`autotune`]: which kernels a device gets;
//! - [`model`]: Gemma 4, from a checkpoint to text.
//!
//! A few words from the model that is built in, on the best adapter there is:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{ops::ControlFlow, sync::Arc};
//! use wgforge::model::{Choice, Kernels, Model, Options, Request, Target};
//! use wgforge::runtime::{Device, DeviceOptions};
//!
//! let checkpoint = Arc::new(wgforge::demo::checkpoint()?);
//! let tokenizer = wgforge::demo::tokenizer()?;
//! let device = pollster::block_on(Device::request(&DeviceOptions::default()))?;
//! let kernels = Kernels::generic(device.caps());
//! let target = Target::Gpu(device, kernels);
//! let mut model =
//!     pollster::block_on(Model::load(&checkpoint, target, &Options::default(), &mut |_| {}))?;
//!
//! let mut prompt = vec![tokenizer.bos()?];
//! prompt.extend(tokenizer.encode("ROMEO:", false)?);
//! let stop = model.generation().eos.clone();
//! let request = Request { prompt, max_new: 64, choice: Choice::Greedy, stop };
//! let mut words = tokenizer.decoder(false);
//! pollster::block_on(model.generate(&request, &mut |id| {
//!     print!("{}", words.push(id).unwrap_or_default());
//!     ControlFlow::Continue(())
//! }))?;
//! # Ok(())
//! # }
//! ```

pub mod demo;

pub use wgforge_autotune as autotune;
pub use wgforge_codegen as codegen;
pub use wgforge_model as model;
pub use wgforge_runtime as runtime;
