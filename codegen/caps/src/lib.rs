//! What a device can do, as plain numbers: the only thing kernels may ask about hardware. And what
//! a kernel binds.
//!
//! A package of its own, so that a program with embedded kernels has the runtime without the code
//! generator. Both export all of it.

use serde::{Deserialize, Serialize};

/// Capabilities and limits of one adapter, as far as kernels and plans depend on them.
///
/// The runtime fills this from the adapter; tests and the `generic` database use the
/// constructors. Nothing else may decide which kernel runs, so a report of `Caps` explains
/// every choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Caps {
    /// Subgroup operations are usable in compute shaders.
    pub subgroups: bool,
    /// Smallest subgroup size the adapter may choose (1 where there are none).
    pub subgroup_min: u32,
    /// Largest subgroup size the adapter may choose.
    pub subgroup_max: u32,
    /// WGSL's `f16` type is usable (feature `shader-f16`).
    pub f16: bool,
    /// `maxComputeInvocationsPerWorkgroup`.
    pub max_invocations: u32,
    /// `maxComputeWorkgroupStorageSize`, bytes.
    pub max_workgroup_bytes: u32,
    /// `maxStorageBuffersPerShaderStage`.
    pub max_storage_bindings: u32,
    /// `maxStorageBufferBindingSize`, bytes.
    pub max_binding_bytes: u64,
    /// `maxBufferSize`, bytes.
    pub max_buffer_bytes: u64,
    /// `maxComputeWorkgroupsPerDimension`.
    pub max_groups: u32,
    /// `minStorageBufferOffsetAlignment`, bytes.
    pub storage_align: u32,
    /// Timestamps can be written at the ends of a compute pass.
    pub timestamps: bool,
}

impl Caps {
    /// The limits every WebGPU implementation grants, and none of the optional features.
    pub fn webgpu_baseline() -> Self {
        Self {
            subgroups: false,
            subgroup_min: 1,
            subgroup_max: 1,
            f16: false,
            max_invocations: 256,
            max_workgroup_bytes: 16 << 10,
            max_storage_bindings: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_groups: 65_535,
            storage_align: 256,
            timestamps: false,
        }
    }

    /// The baseline plus subgroups of exactly `size` lanes.
    pub fn with_subgroups(mut self, size: u32) -> Self {
        self.subgroups = size > 1;
        self.subgroup_min = size;
        self.subgroup_max = size;
        self
    }

    /// The same with or without the `f16` type.
    pub fn with_f16(mut self, f16: bool) -> Self {
        self.f16 = f16;
        self
    }

    /// A short name for the class of devices that share kernels: `subgroup32-f16`, `plain`, …
    pub fn class(&self) -> String {
        let base = if self.subgroups { format!("subgroup{}", self.subgroup_min) } else { "plain".into() };
        if self.f16 { format!("{base}-f16") } else { base }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::webgpu_baseline()
    }
}

/// How a shader uses a binding; decides barriers, so it is reflected from the shader, never typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
    /// `var<uniform>`.
    Uniform,
}

/// One binding of a rendered kernel; all bindings are in group 0, numbered from 0 without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// The WGSL variable's name.
    pub name: String,
    /// Its access, by reflection.
    pub access: Access,
}
