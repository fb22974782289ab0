//! The engine behind the npm package: a model on the browser's WebGPU, driven by a worker.
//!
//! JavaScript finds the files, keeps them and shows what happens (`web/js`); this side reads them
//! through `JsFile`, fills the GPU, and generates. One `Engine` is
//! one model with one conversation in its caches.

#![cfg(target_arch = "wasm32")]

mod adapter;
mod engine;
mod error;
mod file;
mod tune;

pub use engine::{DeviceHandle, Engine, open};
