//! One kernel: rendered, reflected, and written as a type.

use proc_macro2::{Ident, TokenStream};
use quote::quote;

use super::{
    Source,
    groups::{self, Count},
    names::{ident, label, marker},
    structs::{self, HostStruct},
};
use crate::{Access, Error, Target, Variant, db::Entry, render::Rendered};

/// What is needed to write a kernel. No tokens yet: those cannot go from the thread that rendered it to
/// the one that writes.
pub(super) struct Kernel {
    pub(super) marker: String,
    pub(super) hosts: Vec<HostStruct>,
    pub(super) stale: bool,
    pub(super) subgroups: bool,
    /// Counts on whole subgroups of the size it was tuned with: it adds over all of one.
    pub(super) whole_subgroups: bool,
    pub(super) f16: bool,
    pub(super) invocations: u32,
    pub(super) workgroup_bytes: u32,
    variant: Variant,
    timing: Option<f64>,
    native: Rendered,
    web: String,
    groups: [Count; 3],
}

impl Kernel {
    pub(super) fn new(source: &Source, entry: &Entry) -> Result<Self, Error> {
        let variant = entry.variant.clone();
        let name =
            || format!("{} {} {}", variant.kernel(), variant.workload().shape_json(), variant.config_json());
        if let Some(reason) = variant.why_not(&source.database.header.caps) {
            return Err(Error::Refused { file: source.file.clone(), kernel: name(), reason });
        }
        let native = variant.render_with(&source.templates, Target::Native)?;
        let web = variant.wgsl_with(&source.templates, Target::Web)?;
        let groups = groups::counts(&variant).ok_or_else(|| Error::Geometry { kernel: name() })?;
        let (subgroups, f16) = variant.features();
        Ok(Self {
            marker: marker(&variant.workload()),
            hosts: structs::bound(&name(), &native.wgsl)?,
            stale: native.hash != entry.wgsl_hash,
            subgroups,
            whole_subgroups: native.wgsl.contains("subgroupAdd("),
            f16,
            invocations: native.workgroup.iter().product(),
            workgroup_bytes: native.workgroup_bytes,
            timing: entry.timing.as_ref().map(|t| t.median_us),
            variant,
            native,
            web,
            groups,
        })
    }

    /// Makes the marker unique among those that would read alike.
    pub(super) fn distinguish(&mut self) {
        let hash = blake3::hash(self.variant.workload().shape_json().as_bytes()).to_hex();
        self.marker = format!("{}H{}", self.marker, hash[..6].to_ascii_uppercase());
    }

    /// File names and texts, native and, where it differs, for the web.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let mut texts = vec![(self.file(), self.native.wgsl.clone())];
        if self.web != self.native.wgsl {
            texts.push((self.web_file(), self.web.clone()));
        }
        texts
    }

    fn file(&self) -> String {
        format!("{}_{}.wgsl", self.variant.kernel(), &self.native.hash[..16])
    }

    fn web_file(&self) -> String {
        format!("{}_{}_web.wgsl", self.variant.kernel(), &self.native.hash[..16])
    }

    /// Its row in a module's table.
    pub(super) fn row(&self) -> TokenStream {
        let (shape, config) = (self.variant.workload().shape_json(), self.variant.config_json());
        let kernel = self.variant.kernel();
        let name = format!("{} {}", self.marker, label(&config)).trim_end().to_owned();
        let accesses = self.native.bindings.iter().map(|b| {
            let (name, access) = (&b.name, ident(&format!("{:?}", b.access)));
            quote!((#name, ::wgforge_runtime::Access::#access))
        });
        let (hash, [wx, wy, wz]) = (&self.native.hash, self.native.workgroup);
        let wgsl = self.wgsl_tokens();
        quote! {
            ::wgforge_runtime::KernelInfo {
                name: #name,
                kernel: #kernel,
                wgsl: #wgsl,
                wgsl_hash: #hash,
                workgroup: [#wx, #wy, #wz],
                bindings: &[#(#accesses),*],
                shape: #shape,
                config: #config,
            }
        }
    }

    /// Its entry in the table of dispatch geometries.
    pub(super) fn groups(&self) -> TokenStream {
        let [x, y, z] = &self.groups;
        quote!(|#[allow(unused_variables, reason = "some kernels take one token only")] tokens| [#x, #y, #z])
    }

    /// The row, by way of the type.
    pub(super) fn row_of_type(&self) -> TokenStream {
        let marker = ident(&self.marker);
        quote!(<#marker as ::wgforge_runtime::Kernel>::INFO)
    }

    /// The geometry, by way of the type.
    pub(super) fn groups_of_type(&self) -> TokenStream {
        let marker = ident(&self.marker);
        quote!(#marker::groups)
    }

    /// The marker type, its bindings and its geometry.
    pub(super) fn type_tokens(&self) -> TokenStream {
        let (shape, config) = (self.variant.workload().shape_json(), self.variant.config_json());
        let kernel = self.variant.kernel();
        let marker = ident(&self.marker);
        let bindings = ident(&format!("{}Bindings", self.marker));
        let time = self.timing.map(|us| format!(", {us:.1} us")).unwrap_or_default();
        let doc = format!("`{kernel}` for `{shape}`, configured `{config}`{time}.");
        let bindings_doc = format!("What [`{}`] binds.", self.marker);
        let fields: Vec<Ident> = self.native.bindings.iter().map(|b| ident(&b.name)).collect();
        let field_docs = self.native.bindings.iter().map(|b| match b.access {
            Access::Read => "Read.",
            Access::ReadWrite => "Read and written.",
            Access::Uniform => "Uniform.",
        });
        let [x, y, z] = &self.groups;
        let row = self.row();
        quote! {
            #[doc = #doc]
            #[derive(Clone, Copy, Debug)]
            pub struct #marker;

            #[doc = #bindings_doc]
            #[derive(Clone, Copy, Debug)]
            pub struct #bindings<'a> { #(#[doc = #field_docs] pub #fields: &'a ::wgforge_runtime::Slice),* }

            impl #marker {
                /// Workgroups to dispatch for `tokens` tokens.
                #[allow(unused_variables, reason = "some kernels take one token only")]
                pub const fn groups(tokens: u32) -> [u32; 3] { [#x, #y, #z] }
            }

            impl ::wgforge_runtime::Kernel for #marker {
                const INFO: ::wgforge_runtime::KernelInfo = #row;
                type Bindings<'a> = #bindings<'a>;
                fn slices(bindings: &Self::Bindings<'_>) -> ::std::vec::Vec<::wgforge_runtime::Slice> {
                    ::std::vec![#(bindings.#fields.clone()),*]
                }
            }
        }
    }

    /// The text's constant: naga refuses the line that browsers require, so with subgroups the
    /// target decides.
    fn wgsl_tokens(&self) -> TokenStream {
        let native = constant(&self.file());
        if self.web == self.native.wgsl {
            return quote!(super::wgsl::#native);
        }
        let web = constant(&self.web_file());
        quote!(if ::core::cfg!(target_arch = "wasm32") { super::wgsl::#web } else { super::wgsl::#native })
    }
}

/// The constant that holds the text of a file.
pub(super) fn constant(file: &str) -> Ident {
    ident(&file.trim_end_matches(".wgsl").to_ascii_uppercase())
}
