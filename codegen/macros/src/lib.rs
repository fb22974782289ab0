//! The proc-macro door of `wgforge-codegen`.

use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Ident, LitStr, Token,
    parse::{Parse, ParseStream},
};
use wgforge_codegen::{
    Error, Families,
    build::{self, Errors},
    emit::{Emitted, Items, Texts},
    render::Templates,
};

/// Renders the kernels of tuning databases and stands typed Rust for them in its place.
///
/// Takes paths relative to the package: `kernels!("tuned/generic-plain.toml", "tuned/h200.toml");`.
/// The code needs `wgforge-runtime` among the dependencies. Build scripts do the same through
/// `wgforge_codegen::build`, without a proc macro at every edit and with a file one can read.
///
/// `kernels!("tuned/mine.toml", templates = "templates");` renders with the templates of a folder in
/// the place of those of the same name: `norm.wgsl` for the kernel `norm`, `parts/reduce.wgsl` for
/// that component. A macro cannot see Rust types, so kernels of one's own go through the build
/// script.
///
/// Kernels whose text has changed since they were timed are a warning (as of a deprecated item), and
/// an error where `WGFORGE_STRICT_TUNING` is set to anything but `0`. With `templates` the text is
/// meant to differ, and nothing is said.
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

/// The macro's arguments.
struct Arguments {
    databases: Vec<LitStr>,
    templates: Option<LitStr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self { databases: Vec::new(), templates: None };
        while !input.is_empty() {
            if input.peek(LitStr) {
                arguments.databases.push(input.parse()?);
            } else {
                let name: Ident = input.parse()?;
                if name != "templates" || arguments.templates.is_some() {
                    return Err(syn::Error::new(
                        name.span(),
                        "expected paths of tuning databases, then at most one `templates = \"FOLDER\"`",
                    ));
                }
                input.parse::<Token![=]>()?;
                arguments.templates = Some(input.parse()?);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if arguments.databases.is_empty() {
            return Err(syn::Error::new(Span::call_site(), "expected the path of a tuning database"));
        }
        Ok(arguments)
    }
}

fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let Arguments { databases, templates } = syn::parse2(input)?;
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let families = Families::builtin();
    let mut watched: Vec<PathBuf> = databases.iter().map(|path| root.join(path.value())).collect();
    let folder = match &templates {
        Some(path) => {
            let folder = root.join(path.value());
            let fail = |e: Error| syn::Error::new(path.span(), e);
            watched.extend(build::template_files(&folder).map_err(fail)?);
            build::read_templates(&folder, &families).map_err(fail)?
        }
        None => Templates::builtin(),
    };
    let generate = |files: &[String]| -> Result<Emitted, Errors> {
        build::generate(&root, files, &families, &folder, Texts::Inline, Items::Types)
    };
    // Each database by itself first, so that an error stands at the literal of its file, or at
    // that of the templates.
    let mut errors: Option<syn::Error> = None;
    let mut report = |span: Span, e: &Error| {
        let e = syn::Error::new(span, e);
        match &mut errors {
            Some(all) => all.combine(e),
            none => *none = Some(e),
        }
    };
    let mut warnings = TokenStream::new();
    for path in &databases {
        let (failed, stale) = match generate(&[path.value()]) {
            Ok(_) if templates.is_some() => continue,
            Ok(emitted) if build::strict() => (emitted.stale.into_iter().map(Error::Stale).collect(), vec![]),
            Ok(emitted) => (vec![], emitted.stale),
            Err(errors) => (errors.0, vec![]),
        };
        warnings.extend(stale.iter().map(|line| warn(path.span(), line)));
        for e in failed {
            let span = match (&e, &templates) {
                (Error::Template { .. } | Error::Shader { .. } | Error::Bindings { .. }, Some(t)) => t.span(),
                _ => path.span(),
            };
            report(span, &e);
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    let files: Vec<String> = databases.iter().map(LitStr::value).collect();
    let code = generate(&files).map_err(|e| syn::Error::new(databases[0].span(), e))?.tokens;
    // Makes cargo watch the files and the variable: a macro has no other stable way to say so.
    let watched = watched.iter().map(|file| watch(file));
    let strict = build::STRICT;
    Ok(quote! {
        #code
        #warnings
        #(#watched)*
        const _: ::core::option::Option<&str> = ::core::option_env!(#strict);
    })
}

/// A macro has no other stable way to warn than the use of something deprecated.
fn warn(span: Span, line: &str) -> TokenStream {
    quote_spanned! { span =>
        const _: () = {
            #[deprecated(note = #line)]
            const STALE: () = ();
            STALE
        };
    }
}

fn watch(path: &Path) -> TokenStream {
    let path = path.to_string_lossy();
    quote! { const _: &[u8] = ::core::include_bytes!(#path); }
}
