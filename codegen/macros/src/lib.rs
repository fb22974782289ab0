//! The proc-macro door of `wgforge-codegen`.

use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{LitStr, Token, parse::Parser, punctuated::Punctuated};
use wgforge_codegen::{build::generate, emit::Texts};

/// Renders the kernels of tuning databases and stands typed Rust for them in its place.
///
/// Takes paths relative to the package: `kernels!("tuned/generic-plain.toml", "tuned/h200.toml");`.
/// The code needs `wgforge-runtime` among the dependencies. Build scripts do the same through
/// `wgforge_codegen::build`, without a proc macro at every edit and with a file one can read.
///
/// Bindings are typed: those of one kernel are no bindings of another.
///
/// ```
/// mod kernels {
///     wgforge_codegen_macros::kernels!("tests/tiny.toml");
/// }
/// use kernels::tiny;
/// use wgforge_runtime::{Bound, Device, Result, Slice, TypedPipeline};
///
/// fn bind(
///     device: &Device,
///     norm: &TypedPipeline<tiny::Norm256F32NormF32>,
///     [x, pre, out]: [&Slice; 3],
/// ) -> Result<Bound<tiny::Norm256F32NormF32>> {
///     norm.bind(device, &tiny::Norm256F32NormF32Bindings { x, pre, out })
/// }
/// # fn main() {}
/// ```
///
/// ```compile_fail,E0308
/// # mod kernels {
/// #     wgforge_codegen_macros::kernels!("tests/tiny.toml");
/// # }
/// # use kernels::tiny;
/// # use wgforge_runtime::{Bound, Device, Result, Slice, TypedPipeline};
/// fn bind(
///     device: &Device,
///     norm: &TypedPipeline<tiny::Norm256F32NormF32>,
///     [x, pre, out]: [&Slice; 3],
/// ) -> Result<Bound<tiny::Norm256F32NormF32>> {
///     norm.bind(device, &tiny::Topk4096x1024x64FirstBindings { values: x, top_values: pre, top_indices: out })
/// }
/// # fn main() {}
/// ```
#[proc_macro]
pub fn kernels(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(input.into()).unwrap_or_else(|e| e.into_compile_error()).into()
}

fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let paths = Punctuated::<LitStr, Token![,]>::parse_terminated.parse2(input)?;
    if paths.is_empty() {
        return Err(syn::Error::new(Span::call_site(), "expected the path of a tuning database"));
    }
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    // Each database by itself first, so that an error stands at the literal of its file.
    let mut errors: Option<syn::Error> = None;
    let mut report = |e: syn::Error| match &mut errors {
        Some(all) => all.combine(e),
        none => *none = Some(e),
    };
    for path in &paths {
        if let Err(e) = generate(&root, &[path.value()], Texts::Inline) {
            report(syn::Error::new(path.span(), e));
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    let files: Vec<String> = paths.iter().map(LitStr::value).collect();
    let span = paths.first().map_or_else(Span::call_site, LitStr::span);
    let code = generate(&root, &files, Texts::Inline).map_err(|e| syn::Error::new(span, e))?.tokens;
    // Makes cargo watch the files: a macro has no other stable way to say so.
    let watched = files.iter().map(|file| watch(&root.join(file)));
    Ok(quote! { #code #(#watched)* })
}

fn watch(path: &Path) -> TokenStream {
    let path = path.to_string_lossy();
    quote! { const _: &[u8] = ::core::include_bytes!(#path); }
}
