//! Templates to WGSL to a validated module.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tera::{Context, Tera};

use crate::{Access, Binding, Error, Variant, kernel::TEMPLATES};

/// Which WGSL dialect to write. Naga refuses `enable subgroups;`, browsers require it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Naga: native wgpu.
    Native,
    /// Tint and other browsers' compilers.
    Web,
}

/// A finished shader with what its host needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub wgsl: String,
    /// blake3 of the text, hexadecimal.
    pub hash: String,
    /// Threads of a workgroup, by reflection.
    pub workgroup: [u32; 3],
    /// Bindings of group 0 in order, by reflection.
    pub bindings: Vec<Binding>,
    /// Bytes of workgroup memory, by reflection.
    pub workgroup_bytes: u32,
}

/// Components shared by the templates.
const PARTS: &[(&str, &str)] = &[
    ("parts/prelude.wgsl", include_str!("../../templates/parts/prelude.wgsl")),
    ("parts/tensor.wgsl", include_str!("../../templates/parts/tensor.wgsl")),
    ("parts/weights.wgsl", include_str!("../../templates/parts/weights.wgsl")),
    ("parts/reduce.wgsl", include_str!("../../templates/parts/reduce.wgsl")),
    ("parts/math.wgsl", include_str!("../../templates/parts/math.wgsl")),
    ("parts/attention.wgsl", include_str!("../../templates/parts/attention.wgsl")),
    ("parts/norm.wgsl", include_str!("../../templates/parts/norm.wgsl")),
    ("parts/digits.wgsl", include_str!("../../templates/parts/digits.wgsl")),
    ("parts/slab.wgsl", include_str!("../../templates/parts/slab.wgsl")),
    ("parts/epilogue.wgsl", include_str!("../../templates/parts/epilogue.wgsl")),
    ("parts/token.wgsl", include_str!("../../templates/parts/token.wgsl")),
];

/// The engine with every template of this crate loaded.
///
/// # Panics
/// When a template shipped with this crate does not parse; the crate's tests load them all.
pub fn engine() -> &'static Tera {
    static ENGINE: OnceLock<Tera> = OnceLock::new();
    ENGINE.get_or_init(|| build_engine(&[]).unwrap_or_else(|e| panic!("shipped templates: {e}")))
}

/// An engine with this crate's parts and kernels and `extra` templates of somebody else's.
///
/// # Errors
/// A template that does not parse; the text is Tera's report with its caret.
pub fn build_engine(extra: &[(&str, &str)]) -> Result<Tera, Error> {
    let mut tera = Tera::new();
    let kernels = TEMPLATES.iter().map(|(name, text)| (*name, *text));
    tera.add_raw_templates(PARTS.iter().copied().chain(kernels).chain(extra.iter().copied()))
        .map_err(|e| Error::Template { kernel: "templates".into(), report: report(&e) })?;
    Ok(tera)
}

fn report(e: &tera::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(s) = source {
        text.push_str(&format!("\ncaused by: {s}"));
        source = s.source();
    }
    text
}

/// The name of a foreign template in Tera's reports: that of the file, by convention.
fn file_name(kernel: &str) -> String {
    format!("{kernel}.wgsl")
}

/// The engine of a kernel of another crate: its template beside our parts. Kept, because a tuner
/// renders one template hundreds of times.
fn engine_of(name: &'static str, template: &'static str) -> Result<Arc<Tera>, Error> {
    type Engines = HashMap<(&'static str, &'static str), Arc<Tera>>;
    static ENGINES: OnceLock<Mutex<Engines>> = OnceLock::new();
    let mut engines = ENGINES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(engine) = engines.get(&(name, template)) {
        return Ok(Arc::clone(engine));
    }
    let mut tera = Tera::new();
    let file = file_name(name);
    tera.add_raw_templates(PARTS.iter().copied().chain([(file.as_str(), template)]))
        .map_err(|e| Error::Template { kernel: name.into(), report: report(&e) })?;
    let engine = Arc::new(tera);
    engines.insert((name, template), Arc::clone(&engine));
    Ok(engine)
}

/// The templates to render with: each kernel's own, or others in their place.
#[derive(Clone, Debug, Default)]
pub struct Templates(BTreeMap<String, String>);

impl Templates {
    /// Each kernel's own.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Puts a text in the place of the template `name`: a kernel's name, or that of a component's
    /// file such as `parts/reduce.wgsl`. Another name adds a file for others to include.
    pub fn replace(&mut self, name: &str, text: String) {
        self.0.insert(name.to_owned(), text);
    }

    /// The texts that stand in for others, by name.
    pub fn replaced(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Parses all texts.
    ///
    /// # Errors
    /// [`Error::Template`] with a caret; the report names the file.
    pub fn check(&self) -> Result<(), Error> {
        let mut tera = build_engine(&[])?;
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        tera.add_raw_templates(self.replaced().map(|(name, text)| (self.shown(name), text)))
            .map_err(|e| Error::Template { kernel: names.join(", "), report: report(&e) })
    }

    fn engine(&self, variant: &Variant) -> Result<(String, Arc<Tera>), Error> {
        let kernel = variant.kernel();
        let fail = |e: &tera::Error| Error::Template { kernel: kernel.into(), report: report(e) };
        let mut tera = build_engine(&[])?;
        let own = file_name(kernel);
        if let Variant::Custom(_) = variant {
            tera.add_raw_template(&own, variant.template()).map_err(|e| fail(&e))?;
        }
        // One call for all, because components may refer to each other.
        tera.add_raw_templates(self.replaced().map(|(name, text)| (self.shown(name), text)))
            .map_err(|e| fail(&e))?;
        let custom = matches!(variant, Variant::Custom(_)) || self.0.contains_key(kernel);
        Ok((if custom { own } else { kernel.to_owned() }, Arc::new(tera)))
    }

    /// Kernels are shown by their file, like components.
    fn shown(&self, name: &str) -> String {
        if name.contains('.') { name.to_owned() } else { file_name(name) }
    }
}

impl Variant {
    /// Renders the shader text for `target`, without validating it.
    ///
    /// # Errors
    /// A template error, with its caret.
    pub fn wgsl(&self, target: Target) -> Result<String, Error> {
        match self {
            Self::Custom(_) => {
                let engine = engine_of(self.kernel(), self.template())?;
                self.wgsl_by(&engine, &file_name(self.kernel()), target)
            }
            _ => self.wgsl_by(engine(), self.kernel(), target),
        }
    }

    /// Renders with other templates.
    ///
    /// # Errors
    /// As [`Variant::wgsl`].
    pub fn wgsl_with(&self, templates: &Templates, target: Target) -> Result<String, Error> {
        if templates.0.is_empty() {
            return self.wgsl(target);
        }
        let (name, engine) = templates.engine(self)?;
        self.wgsl_by(&engine, &name, target)
    }

    fn wgsl_by(&self, engine: &Tera, name: &str, target: Target) -> Result<String, Error> {
        let fail = |e: &tera::Error| Error::Template { kernel: self.kernel().into(), report: report(e) };
        let mut context = Context::from_serialize(&self.context()).map_err(|e| fail(&e))?;
        context.insert("web", &(target == Target::Web));
        let text = engine.render(name, &context).map_err(|e| fail(&e))?;
        Ok(tidy(&text))
    }

    /// Renders, parses, validates, translates to SPIR-V and reflects.
    ///
    /// The result for [`Target::Web`] is checked as its native twin, since naga does not take the
    /// web's `enable` line.
    ///
    /// # Errors
    /// [`Error::Template`] or [`Error::Shader`] with a caret report, or
    /// [`Error::Bindings`] when the shader's variables differ from [`Variant::bindings`].
    pub fn render(&self, target: Target) -> Result<Rendered, Error> {
        self.render_with(&Templates::builtin(), target)
    }

    /// As [`Variant::render`], with other templates.
    ///
    /// # Errors
    /// As [`Variant::render`].
    pub fn render_with(&self, templates: &Templates, target: Target) -> Result<Rendered, Error> {
        let native = self.wgsl_with(templates, Target::Native)?;
        let label = format!("{} {} {}", self.kernel(), self.workload().shape_json(), self.config_json());
        let mut rendered = validate(&label, &native)?;
        let found: Vec<&str> = rendered.bindings.iter().map(|b| b.name.as_str()).collect();
        if found != self.bindings() {
            return Err(Error::Bindings {
                kernel: label,
                wanted: self.bindings().join(", "),
                found: found.join(", "),
            });
        }
        if target == Target::Web {
            rendered.wgsl = self.wgsl_with(templates, target)?;
            rendered.hash = hash(&rendered.wgsl);
        }
        Ok(rendered)
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Drops the blank lines that template tags leave behind.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Parses and validates `wgsl`, runs the SPIR-V writer (which finds what the validator misses),
/// and reflects the entry point `main`.
///
/// # Errors
/// [`Error::Shader`] with naga's caret report.
pub fn validate(label: &str, wgsl: &str) -> Result<Rendered, Error> {
    use naga::valid::{Capabilities, SubgroupOperationSet, ValidationFlags, Validator};
    let fail = |report: String| Error::Shader { kernel: label.to_owned(), report };
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_operations(SubgroupOperationSet::all());
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    let info = validator.validate(&module).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    naga::back::spv::write_vec(&module, &info, &options, None)
        .map_err(|e| fail(format!("SPIR-V writer: {e}")))?;

    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == "main")
        .ok_or_else(|| fail("no compute entry point `main`".into()))?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| fail(e.to_string()))?;
    let mut found: Vec<(u32, Binding)> = Vec::new();
    let mut workgroup_bytes = 0;
    for (_, var) in module.global_variables.iter() {
        let access = match var.space {
            naga::AddressSpace::WorkGroup => {
                workgroup_bytes += layouter[var.ty].size;
                continue;
            }
            naga::AddressSpace::Uniform => Access::Uniform,
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                Access::ReadWrite
            }
            naga::AddressSpace::Storage { .. } => Access::Read,
            _ => continue,
        };
        let slot = var.binding.ok_or_else(|| fail(format!("`{:?}` has no binding", var.name)))?;
        if slot.group != 0 {
            return Err(fail(format!(
                "`{:?}` is in group {}; kernels use group 0 only",
                var.name, slot.group
            )));
        }
        found.push((slot.binding, Binding { name: var.name.clone().unwrap_or_default(), access }));
    }
    found.sort_by_key(|(slot, _)| *slot);
    if found.iter().enumerate().any(|(i, (slot, _))| *slot as usize != i) {
        return Err(fail("bindings are not numbered 0, 1, 2, … without gaps".into()));
    }
    Ok(Rendered {
        wgsl: wgsl.to_owned(),
        hash: hash(wgsl),
        workgroup: entry.workgroup_size,
        bindings: found.into_iter().map(|(_, b)| b).collect(),
        workgroup_bytes,
    })
}
