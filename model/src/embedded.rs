//! Kernels built into this program: the winners of the committed databases, as tables that
//! the build script wrote. Shapes that are not among them are rendered at run time (feature
//! `jit`).

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
