//! A kernel of another crate goes everywhere a built-in one does.

use serde::{Deserialize, Serialize};
use wgforge_codegen::{
    Arithmetic, Caps, Cost, Database, Error, Kernel, Reason, Target, Workload,
    build::{self, Builder},
    check::{Case, Draw, Inputs, Tolerance},
    custom::{self, Families, FamilyError},
    emit::{Items, Source, Texts, emit},
    io::Io,
    kernels::{common_why_not, reduce_bytes, shuffle_choices},
    render::Templates,
    require,
    types::Act,
};

#[derive(Clone, Copy, Debug)]
struct RowSum;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    columns: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    wg: u32,
    sg: u32,
}

impl Kernel for RowSum {
    const NAME: &'static str = "row_sum";
    const TEMPLATE: &'static str = include_str!("row_sum.wgsl");
    type Shape = Shape;
    type Config = Config;

    fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["x", "out"]
    }

    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["out"]
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        let mut all = Vec::new();
        for wg in [32, 64, 128] {
            all.extend(shuffle_choices(caps).into_iter().map(|sg| Config { wg, sg }));
        }
        all.retain(|c| Self::why_not(s, c, caps).is_none());
        all
    }

    fn generic(_: &Shape, _: &Caps) -> Config {
        Config { wg: 64, sg: 1 }
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        require!(s.columns > 0, "a row of {} has no sum", s.columns);
        common_why_not(c.wg, c.sg, reduce_bytes(c.wg, c.sg), caps)
    }

    fn groups(_: &Shape, _: &Config, tokens: u32) -> [u32; 3] {
        [tokens, 1, 1]
    }

    fn features(c: &Config) -> (bool, bool) {
        (c.sg > 1, false)
    }

    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        for row in 0..io.tokens {
            let n = s.columns as usize;
            let sum = io.row("x", Act::F32, row * n, n, 1.0).into_iter().sum::<f32>();
            io.store("out", Act::F32, row, &[sum], 1.0);
        }
    }

    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        match name {
            "x" => d.floats(u64::from(d.tokens * s.columns), 1.0),
            _ => Draw::poison(u64::from(d.tokens) * 4),
        }
    }

    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(Act::F32, 1e-5)
    }

    fn cost(s: &Shape, _: &Config, tokens: u32, _: u32) -> Cost {
        let n = u64::from(tokens) * u64::from(s.columns);
        Cost { read_bytes: 4 * n, written_bytes: 4 * u64::from(tokens), ops: n, kind: Arithmetic::F32 }
    }
}

fn families() -> Families {
    Families::builtin().with::<RowSum>().expect("a free name")
}

fn workload() -> Workload {
    custom::workload::<RowSum>(Shape { columns: 100 })
}

fn caps() -> Caps {
    Caps::webgpu_baseline().with_subgroups(32)
}

fn database() -> Database {
    let norm =
        r#"{"width":256,"residual":false,"y":"f32","scaled":false,"norm":true,"out":"f32","eps":1e-6}"#;
    let norm = Workload::parse("norm", serde_json::from_str(norm).expect("JSON")).expect("a shape");
    Database::generic(&caps(), &[workload(), norm]).expect("both render")
}

#[test]
fn every_candidate_is_a_valid_shader_and_a_case_can_be_drawn() {
    let candidates = workload().candidates(&caps());
    assert_eq!(candidates.len(), 6, "{candidates:?}");
    for candidate in &candidates {
        assert_eq!(candidate.why_not(&caps()), None, "{candidate:?}");
        let rendered = candidate.render(Target::Native).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(rendered.workgroup[0], candidate.config_json().parse_wg(), "the configuration is used");
        let case = Case::draw(candidate, Inputs::Ties, 3, 0, 1);
        let expected = case.expected(candidate);
        let sum: f32 = case.buffers[0][..100].iter().map(|w| f32::from_bits(*w)).sum();
        assert_eq!(f32::from_bits(expected[1][0]), sum, "the reference ran");
        assert_eq!(case.compare(candidate, &expected, &expected), Ok(()), "equal outputs");
        assert!(case.compare(candidate, &expected, &case.buffers).is_err(), "poison shows");
        assert_eq!(candidate.cost(3, 0).bytes(), 1212, "bytes by its own file");
    }
    let no_subgroups = Caps::webgpu_baseline();
    let refused = candidates.iter().filter(|c| c.why_not(&no_subgroups).is_some()).count();
    assert_eq!(refused, 3, "the common conditions hold for it as well");
}

trait Wg {
    fn parse_wg(&self) -> u32;
}

impl Wg for String {
    fn parse_wg(&self) -> u32 {
        serde_json::from_str::<Config>(self).expect("its configuration").wg
    }
}

#[test]
fn it_round_trips_through_a_database() {
    let text = database().to_toml();
    assert!(
        text.contains("kernel = \"row_sum\"\nshape = { columns = 100 }\nconfig = { sg = 1, wg = 64 }"),
        "{text}"
    );
    let again = Database::parse_with(&families(), "own.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again, database(), "reading changed the database");
    let entry = again.get(&workload()).expect("its entry");
    assert!(!entry.stale().expect("renders"), "stale at once");
    let wgforge_codegen::Variant::Custom(variant) = &entry.variant else { panic!("{entry:?}") };
    assert_eq!(variant.parts::<RowSum>(), Some((&Shape { columns: 100 }, &Config { wg: 64, sg: 1 })));
}

#[test]
fn without_its_family_a_database_is_refused_and_so_are_mistakes() {
    let text = database().to_toml();
    let error = Database::parse("own.toml", &text).expect_err("built-in families only").to_string();
    assert!(error.contains("`kernel`: unknown kernel `row_sum`; known: "), "{error}");
    for (from, to, wanted) in [
        ("columns = 100", "rows = 100", "`shape`: shape of kernel `row_sum`: unknown field `rows`"),
        ("sg = 1, wg = 64 }", "wg = 64 }", "`config`: configuration of kernel `row_sum`: missing field `sg`"),
        (
            "sg = 1, wg = 64 }",
            "sg = 1, wg = 63 }",
            "`config`: cannot run on the devices of [caps]: a workgroup of 63",
        ),
    ] {
        let error =
            Database::parse_with(&families(), "own.toml", &text.replacen(from, to, 2)).expect_err(wanted);
        assert!(error.to_string().contains(wanted), "wanted {wanted:?}, found {error}");
    }
}

#[test]
fn names_that_collide_or_are_none_are_errors() {
    assert_eq!(families().with::<RowSum>().expect_err("twice"), FamilyError::Taken("row_sum"));
    for (family, wanted) in [
        (custom::family::<Named<0>>(), FamilyError::Taken("gemv")),
        (custom::family::<Named<1>>(), FamilyError::Name("Row sum")),
    ] {
        assert_eq!(Families::builtin().add(family).expect_err("no good name"), wanted);
    }
    let out = env!("CARGO_TARGET_TMPDIR");
    let error = Builder::new().kernel::<Named<0>>().out_dir(out).compile().expect_err("taken");
    assert!(error.to_string().contains("there is a kernel `gemv` already"), "{error}");
}

#[test]
fn emitted_code_holds_it() {
    let source = Source::parse_with(&families(), "own.toml", &database().to_toml()).expect("reads");
    let emitted = emit(&[source], Texts::Files, Items::Types).unwrap_or_else(|e| panic!("{e}"));
    assert!(emitted.stale.is_empty(), "{:?}", emitted.stale);
    let code = build::pretty(&emitted.tokens).expect("a Rust file");
    for wanted in
        ["pub struct RowSum100;", "pub struct RowSum100Bindings", "kernel: \"row_sum\"", "/wgsl/row_sum_"]
    {
        assert!(code.contains(wanted), "no {wanted:?} in\n{code}");
    }
}

/// What the build-script door says about a template that is wrong.
fn report(name: &str, from: &str, to: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    let text = RowSum::TEMPLATE.replace(from, to);
    assert_ne!(text, RowSum::TEMPLATE, "{from:?} stands in the template");
    std::fs::write(folder.join("row_sum.wgsl"), text).expect("written");
    let file = folder.join("own.toml");
    std::fs::write(&file, database().to_toml()).expect("written");
    let builder =
        Builder::new().kernel::<RowSum>().database(&file).templates(&folder).out_dir(folder.join("out"));
    builder.compile().expect_err("the template is wrong").to_string()
}

#[test]
fn mistakes_in_its_template_are_shown_where_they_are() {
    let syntax = report("syntax", "{{ s.columns }}u; i +=", "{{ s.columns }u; i +=");
    assert!(syntax.contains("row_sum.wgsl:10:") && syntax.contains('^'), "{syntax}");
    let variable = report("variable", "{{ s.columns }}u; i +=", "{{ s.rows }}u; i +=");
    assert!(
        variable.contains("row_sum.wgsl:10:") && variable.contains("rows") && variable.contains('^'),
        "{variable}"
    );
    let shader = report("shader", "var sum = 0.0;", "var sum = 0;");
    assert!(
        shader.contains("shader of kernel `row_sum {\"columns\":100}") && shader.contains('^'),
        "{shader}"
    );
    let name = report("name", "var sum = 0.0;", "var sum = zero;");
    assert!(name.contains("no definition in scope for identifier: `zero`") && name.contains('^'), "{name}");
    let bindings = report("bindings", "out: array", "result: array").replace("out[wid", "");
    assert!(bindings.contains("row_sum"), "{bindings}");
}

#[test]
fn templates_named_as_no_kernel_are_refused() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("misnamed");
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    std::fs::write(folder.join("row_sun.wgsl"), "").expect("written");
    let error = build::read_templates(&folder, &families()).expect_err("no such kernel");
    assert!(matches!(&error, Error::Template { kernel, .. } if kernel == "row_sun"), "{error}");
}

#[test]
fn templates_of_built_in_kernels_can_be_replaced() {
    let norm = database().entries()[0].variant.clone();
    assert_eq!(norm.kernel(), "norm");
    let mut templates = Templates::builtin();
    templates.replace("norm", norm.template().replace("@compute", "const OURS = 1u;\n@compute"));
    let text = norm.wgsl_with(&templates, Target::Native).expect("renders");
    assert!(text.contains("OURS") && !norm.wgsl(Target::Native).expect("renders").contains("OURS"));
    // A component instead of a kernel.
    let mut templates = Templates::builtin();
    templates
        .replace("parts/reduce.wgsl", "{% component workgroup_reduce() %}nothing{% endcomponent %}".into());
    assert!(norm.wgsl_with(&templates, Target::Native).is_err(), "the kernel passes what it does not take");
}

/// Families whose names are no good.
#[derive(Clone, Copy, Debug)]
struct Named<const N: usize>;

impl<const N: usize> Kernel for Named<N> {
    const NAME: &'static str = ["gemv", "Row sum"][N];
    const TEMPLATE: &'static str = RowSum::TEMPLATE;
    type Shape = Shape;
    type Config = Config;

    fn bindings(s: &Shape, c: &Config) -> Vec<&'static str> {
        RowSum::bindings(s, c)
    }

    fn written(s: &Shape, c: &Config) -> Vec<&'static str> {
        RowSum::written(s, c)
    }

    fn candidates(s: &Shape, caps: &Caps) -> Vec<Config> {
        RowSum::candidates(s, caps)
    }

    fn generic(s: &Shape, caps: &Caps) -> Config {
        RowSum::generic(s, caps)
    }

    fn why_not(s: &Shape, c: &Config, caps: &Caps) -> Option<Reason> {
        RowSum::why_not(s, c, caps)
    }

    fn groups(s: &Shape, c: &Config, tokens: u32) -> [u32; 3] {
        RowSum::groups(s, c, tokens)
    }

    fn reference(s: &Shape, c: &Config, io: &mut Io<'_>) {
        RowSum::reference(s, c, io);
    }

    fn draw(s: &Shape, c: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        RowSum::draw(s, c, name, d)
    }

    fn output(s: &Shape, c: &Config, name: &str) -> (Act, Tolerance) {
        RowSum::output(s, c, name)
    }

    fn cost(s: &Shape, c: &Config, tokens: u32, position: u32) -> Cost {
        RowSum::cost(s, c, tokens, position)
    }
}
