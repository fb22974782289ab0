//! Host twins of the WGSL structs that kernels bind.

use naga::{ArraySize, Module, ScalarKind, TypeInner, proc::Layouter};
use proc_macro2::TokenStream;
use quote::quote;

use super::names::ident;
use crate::Error;

/// A struct as Rust declares it: equal members mean an equal layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostStruct {
    pub(super) name: String,
    size: u32,
    /// Name, offset and Rust type of each member.
    members: Vec<(String, u32, String)>,
}

/// The structs bound by a shader as the whole of a uniform or storage variable, without those
/// that end in a runtime-sized array.
pub(super) fn bound(label: &str, wgsl: &str) -> Result<Vec<HostStruct>, Error> {
    let shader = |report: String| Error::Shader { kernel: label.into(), report };
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| shader(e.emit_to_string(wgsl)))?;
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| shader(e.to_string()))?;
    let mut found: Vec<HostStruct> = Vec::new();
    for (_, var) in module.global_variables.iter() {
        if !matches!(var.space, naga::AddressSpace::Uniform | naga::AddressSpace::Storage { .. }) {
            continue;
        }
        if let Some(host) = host_struct(label, &module, &layouter, var.ty)?
            && !found.contains(&host)
        {
            found.push(host);
        }
    }
    Ok(found)
}

fn host_struct(
    label: &str,
    module: &Module,
    layouter: &Layouter,
    ty: naga::Handle<naga::Type>,
) -> Result<Option<HostStruct>, Error> {
    let TypeInner::Struct { members, .. } = &module.types[ty].inner else { return Ok(None) };
    let name = module.types[ty].name.clone().unwrap_or_default();
    let mut host = HostStruct { name: name.clone(), size: layouter[ty].size, members: Vec::new() };
    for member in members {
        let field = member.name.clone().unwrap_or_default();
        if matches!(module.types[member.ty].inner, TypeInner::Array { size: ArraySize::Dynamic, .. }) {
            return Ok(None);
        }
        let Some(rust) = rust_type(module, member.ty) else {
            return Err(Error::Struct { kernel: label.into(), name, field });
        };
        host.members.push((field, member.offset, rust));
    }
    Ok(Some(host))
}

/// The Rust type of the same layout, where there is one without padding.
fn rust_type(module: &Module, ty: naga::Handle<naga::Type>) -> Option<String> {
    let scalar = |s: naga::Scalar| match (s.kind, s.width) {
        (ScalarKind::Uint, 4) => Some("u32"),
        (ScalarKind::Sint, 4) => Some("i32"),
        (ScalarKind::Float, 4) => Some("f32"),
        _ => None,
    };
    match module.types[ty].inner {
        TypeInner::Scalar(s) => scalar(s).map(str::to_owned),
        TypeInner::Atomic(s) => scalar(s).map(str::to_owned),
        TypeInner::Vector { size, scalar: s } => scalar(s).map(|s| format!("[{s}; {}]", size as u32)),
        TypeInner::Array { base, size: ArraySize::Constant(n), stride } => {
            let element = rust_type(module, base)?;
            let packed = module.types[base].inner.size(module.to_ctx()) == stride;
            packed.then(|| format!("[{element}; {n}]"))
        }
        _ => None,
    }
}

impl HostStruct {
    /// The declaration, with asserts that Rust lays it out as WGSL does.
    pub(super) fn tokens(&self, name: &str) -> TokenStream {
        let ty = ident(name);
        let mut fields = Vec::new();
        let mut asserts = Vec::new();
        let mut at = 0;
        for (i, (field, offset, rust)) in self.members.iter().enumerate() {
            let gap = offset.saturating_sub(at);
            if gap > 0 {
                fields.push(padding(i, gap));
            }
            let (field, doc) = (ident(field), format!("Offset {offset}."));
            let size = size_of_rust(rust);
            // Written by `rust_type`, so it parses.
            let rust: TokenStream = rust.parse().unwrap_or_default();
            fields.push(quote! { #[doc = #doc] pub #field: #rust });
            let offset = *offset as usize;
            asserts.push(quote! { assert!(::core::mem::offset_of!(#ty, #field) == #offset, "the field lies where WGSL puts it"); });
            at = u32::try_from(offset).unwrap_or(u32::MAX) + size;
        }
        if self.size > at {
            fields.push(padding(self.members.len(), self.size - at));
        }
        let size = self.size as usize;
        let doc = format!("The WGSL struct `{}` as bindings hold it: {size} bytes.", self.name);
        quote! {
            #[doc = #doc]
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, ::wgforge_runtime::bytemuck::Pod, ::wgforge_runtime::bytemuck::Zeroable)]
            #[bytemuck(crate = "::wgforge_runtime::bytemuck")]
            pub struct #ty { #(#fields),* }
            const _: () = {
                assert!(::core::mem::size_of::<#ty>() == #size, "the struct is as long as in WGSL");
                #(#asserts)*
            };
        }
    }
}

fn padding(i: usize, bytes: u32) -> TokenStream {
    let name = ident(&format!("padding_{i}"));
    let bytes = bytes as usize;
    quote! { #[doc = "Unused."] pub #name: [u8; #bytes] }
}

/// Bytes of a type written by [`rust_type`].
fn size_of_rust(rust: &str) -> u32 {
    let counts = rust.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    // The element's own name ends in 32; what follows are lengths.
    counts.skip(1).product::<u32>() * 4
}
