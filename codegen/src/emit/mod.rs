//! Databases to typed Rust.
//!
//! [`emit`] is one pure function with two doors: [`crate::build`] for build scripts and the
//! `kernels!` macro. For each database it writes a module with, for each kernel, a marker type, its
//! bindings with names, its text and its dispatch geometry; and, above the modules, the host twins
//! of bound structs and the choice among the databases. The code stands on `wgforge-runtime`.

mod groups;
mod kernel;
mod names;
mod select;
mod structs;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::{panic, thread};

use proc_macro2::TokenStream;
use quote::quote;

use crate::{Database, Error, Families, render::Templates};
use kernel::Kernel;
use structs::HostStruct;

/// What generated code expects of the runtime: `wgforge_runtime::ABI`.
pub const ABI: u32 = 1;

/// Where the texts of shaders go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// Into files under `$OUT_DIR/wgsl`, which the code includes.
    Files,
    /// Into the code.
    Inline,
}

/// How much is written for each kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// A marker type with named bindings, beside its row in the module's tables.
    Types,
    /// The row alone, found by family and shape: what a program with thousands of kernels wants, which
    /// names none of them.
    Rows,
}

/// A database and the file it came from, which names its module.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's name, for messages and for the module.
    pub file: String,
    /// Its content.
    pub database: Database,
    /// What its kernels are rendered with.
    pub templates: Templates,
}

impl Source {
    /// Reads a database from its text.
    ///
    /// # Errors
    /// As [`Database::parse`].
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        Self::parse_with(&Families::builtin(), file, text)
    }

    /// Reads a database that may name any of `families`.
    ///
    /// # Errors
    /// As [`Database::parse`].
    pub fn parse_with(families: &Families, file: &str, text: &str) -> Result<Self, Error> {
        Ok(Self {
            file: file.into(),
            database: Database::parse_with(families, file, text)?,
            templates: Templates::builtin(),
        })
    }
}

/// Generated code and what goes with it.
#[derive(Debug)]
pub struct Emitted {
    /// Items to stand in a module.
    pub tokens: TokenStream,
    /// Text by file name, for [`Texts::Files`]; identical texts are stored once.
    pub texts: BTreeMap<String, String>,
    /// One line for each database with entries whose text has changed since they were timed.
    pub stale: Vec<String>,
}

/// Several errors at once.
pub struct Errors(pub Vec<Error>);

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for e in &self.0 {
            write!(f, "\n{e}")?;
        }
        Ok(())
    }
}

// A build script's `main` prints its error by Debug; reports with carets must stay readable there.
impl std::fmt::Debug for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errors {}

/// Renders, validates and reflects every kernel of `sources`, and writes the Rust for them.
///
/// # Errors
/// Every template, shader or entry at fault, not only the first.
pub fn emit(sources: &[Source], texts: Texts, items: Items) -> Result<Emitted, Errors> {
    let mut errors = Vec::new();
    let mut out = Emitted { tokens: TokenStream::new(), texts: BTreeMap::new(), stale: Vec::new() };
    let mut hosts: Vec<HostStruct> = Vec::new();
    let mut modules: BTreeMap<String, &str> = BTreeMap::new();
    let (mut bodies, mut sets) = (Vec::new(), Vec::new());
    for source in sources {
        let module = names::module(&source.file);
        if let Some(other) = modules.insert(module.clone(), &source.file) {
            errors.push(Error::SameModule(other.into(), source.file.clone(), module));
            continue;
        }
        let kernels = kernels(source, &mut errors);
        let stale = kernels.iter().filter(|k| k.stale).count();
        if stale > 0 {
            let total = kernels.len();
            out.stale.push(format!(
                "{}: templates changed since tuning: {stale} of {total} kernels are stale; tune again",
                source.file
            ));
        }
        for host in kernels.iter().flat_map(|k| &k.hosts) {
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        for k in &kernels {
            k.texts().into_iter().for_each(|(name, text)| {
                out.texts.insert(name, text);
            });
        }
        bodies.push(module_tokens(source, &module, &kernels, items));
        sets.push(set_tokens(source, &module, &kernels));
    }
    // A template that does not parse fails every kernel made of it in the same words.
    let mut said = BTreeSet::new();
    errors.retain(|e| said.insert(e.to_string()));
    if !errors.is_empty() {
        return Err(Errors(errors));
    }
    let texts = text_tokens(&out.texts, texts);
    let hosts = host_tokens(&hosts);
    let select = select::tokens(&sets);
    let abi = format!("the kernels were generated for another version of wgforge-runtime (ABI {ABI})");
    out.tokens = quote! {
        const _: () = ::core::assert!(::wgforge_runtime::ABI == #ABI, #abi);
        #select
        #hosts
        #(#bodies)*
        #texts
    };
    Ok(out)
}

/// The kernels of a database, rendered on all cores; those at fault are left out and reported.
fn kernels(source: &Source, errors: &mut Vec<Error>) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = Vec::new();
    let entries = source.database.entries();
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(entries.len().max(1));
    let every = |first| (first..entries.len()).step_by(cores);
    let rendered = |first| every(first).map(|i| (i, Kernel::new(source, &entries[i]))).collect::<Vec<_>>();
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|first| scope.spawn(move || rendered(first))).collect();
        let joined = workers.into_iter().map(|w| w.join().unwrap_or_else(|e| panic::resume_unwind(e)));
        joined.flatten().collect::<Vec<_>>()
    });
    results.sort_by_key(|(i, _)| *i);
    for (_, result) in results {
        match result {
            Ok(kernel) => kernels.push(kernel),
            Err(e) => errors.push(e),
        }
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for k in &kernels {
        *seen.entry(k.marker.clone()).or_default() += 1;
    }
    for k in kernels.iter_mut().filter(|k| seen[&k.marker] > 1) {
        k.distinguish();
    }
    kernels
}

/// Generated code offers all it has, wherever its user puts it.
fn quiet() -> TokenStream {
    quote! { #[allow(dead_code, unreachable_pub, clippy::all, reason = "generated code offers all it has")] }
}

/// What a set was made for, in words.
fn made_for(source: &Source) -> String {
    let header = &source.database.header;
    match &header.device {
        Some(d) => format!("{} ({}, {})", d.name, d.backend, header.class),
        None => format!("devices of class {}", header.class),
    }
}

fn module_tokens(source: &Source, module: &str, kernels: &[Kernel], items: Items) -> TokenStream {
    let name = names::ident(module);
    let tuned_for = made_for(source);
    let doc = format!("Kernels for `{tuned_for}`.");
    let (rows, groups, types): (Vec<_>, Vec<_>, Vec<_>) = match items {
        Items::Types => (
            kernels.iter().map(Kernel::row_of_type).collect(),
            kernels.iter().map(Kernel::groups_of_type).collect(),
            kernels.iter().map(Kernel::type_tokens).collect(),
        ),
        Items::Rows => (
            kernels.iter().map(Kernel::row).collect(),
            kernels.iter().map(Kernel::groups).collect(),
            Vec::new(),
        ),
    };
    let quiet = quiet();
    quote! {
        #[doc = #doc]
        #quiet
        pub mod #name {
            /// What these kernels were made for.
            pub const TUNED_FOR: &str = #tuned_for;
            /// All of them, sorted by family and shape.
            pub static ALL: &[::wgforge_runtime::KernelInfo] =
                &[#(#rows),*];
            /// Workgroups for a number of tokens, in the order of `ALL`.
            pub static GROUPS: &[fn(u32) -> [u32; 3]] = &[#(#groups),*];
            /// The kernel of a family for a shape, as `Workload::shape_json` writes it.
            pub fn find(
                kernel: &str,
                shape: &str,
            ) -> ::core::option::Option<&'static ::wgforge_runtime::KernelInfo> {
                ALL.binary_search_by(|info| (info.kernel, info.shape).cmp(&(kernel, shape))).ok().map(|i| &ALL[i])
            }
            #(#types)*
        }
    }
}

fn set_tokens(source: &Source, module: &str, kernels: &[Kernel]) -> TokenStream {
    let header = &source.database.header;
    let name = module;
    let module = names::ident(module);
    let most = |f: fn(&Kernel) -> u32| kernels.iter().map(f).max().unwrap_or(0);
    let subgroup = if kernels.iter().any(|k| k.subgroups) { header.caps.subgroup_min } else { 1 };
    let whole = kernels.iter().any(|k| k.whole_subgroups);
    let f16 = kernels.iter().any(|k| k.f16);
    let class = &header.class;
    let (adapter, vendor) = match &header.device {
        Some(d) => (d.name.as_str(), d.vendor),
        None => ("", 0),
    };
    let adapter = if header.device.is_some() {
        quote!(::core::option::Option::Some(#adapter))
    } else {
        quote!(::core::option::Option::None)
    };
    let (invocations, bytes) = (most(|k| k.invocations), most(|k| k.workgroup_bytes));
    quote! {
        KernelSet {
            name: #name,
            adapter: #adapter,
            vendor: #vendor,
            class: #class,
            subgroup: #subgroup,
            whole_subgroups: #whole,
            f16: #f16,
            invocations: #invocations,
            workgroup_bytes: #bytes,
            kernels: #module::ALL,
            groups: #module::GROUPS,
        }
    }
}

/// The structs of all databases; one name with two layouts gets a number.
fn host_tokens(hosts: &[HostStruct]) -> TokenStream {
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let items = hosts.iter().map(|host| {
        let n = used.entry(&host.name).or_default();
        *n += 1;
        host.tokens(&if *n == 1 { host.name.clone() } else { format!("{}{n}", host.name) })
    });
    let quiet = quiet();
    quote! {
        /// Host twins of the structs that kernels bind.
        #quiet
        pub mod data { #(#items)* }
    }
}

fn text_tokens(texts: &BTreeMap<String, String>, how: Texts) -> TokenStream {
    let items = texts.iter().map(|(file, text)| {
        let name = kernel::constant(file);
        let value = match how {
            Texts::Files => {
                let path = format!("/wgsl/{file}");
                quote!(::core::include_str!(::core::concat!(::core::env!("OUT_DIR"), #path)))
            }
            Texts::Inline => quote!(#text),
        };
        quote! { pub(super) const #name: &str = #value; }
    });
    quote! {
        #[allow(dead_code, reason = "each target uses one dialect")]
        mod wgsl { #(#items)* }
    }
}
