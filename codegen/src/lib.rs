//! Placeholder.
mod caps;
pub use caps::{Access, Binding, Caps};
