//! WGSL kernels from templates.
//!
//! A kernel family is one template (`templates/NAME.wgsl`) and one Rust file
//! (`codegen/src/kernels/NAME.rs`) that holds what must be computed (`Shape`), how (`Config`),
//! which configurations are worth trying, which cannot run and why, how many workgroups to
//! dispatch, and a CPU `reference`. This crate is pure: it touches no GPU and no file but its
//! inputs.
//!
//! Features: without any, only the plain data and the references are built; `render` adds Tera
//! and naga; `build` (default) adds the build-script door that writes typed Rust.

#[cfg(feature = "build")]
pub mod build;
pub mod check;
mod cost;
pub mod custom;
pub mod db;
#[cfg(feature = "build")]
pub mod emit;
#[cfg(feature = "render")]
mod error;
pub mod io;
mod kernel;
pub mod kernels;
#[cfg(feature = "render")]
pub mod render;
pub mod shapes;
pub mod types;

pub use cost::{Arithmetic, Cost};
pub use custom::Families;
pub use db::{Database, DbError, DbErrors};
#[cfg(feature = "render")]
pub use error::Error;
pub use kernel::{FAMILIES, Kernel, Reason, TEMPLATES, Variant, Workload};
#[cfg(feature = "render")]
pub use render::{Rendered, Target};
pub use wgforge_caps::{Access, Binding, Caps};
