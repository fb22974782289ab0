//! Databases: what is written can be read, and nothing that can be read panics.

use proptest::prelude::*;
use wgforge_codegen::{
    Caps, Database, DbError, Workload,
    db::{Detail, DeviceId, RunnerUp, Timing},
    shapes,
};

fn example() -> Database {
    let caps = Caps::webgpu_baseline().with_subgroups(32).with_f16(true);
    let workloads: Vec<Workload> = shapes::odd().into_iter().step_by(7).collect();
    let mut database = Database::generic(&caps, &workloads).expect("generic configurations render");
    database.header.wgpu = Some("30.0.1".into());
    database.header.device = Some(DeviceId {
        name: "A \"card\" \u{7f} of\n2026".into(),
        vendor: 0x10de,
        device: 0x2335,
        driver: "NVIDIA 570".into(),
        backend: "vulkan".into(),
    });
    let mut timed = database.entries()[0].clone();
    let runner_up = RunnerUp { config: serde_json::json!({ "wg": 64, "f16": false }), median_us: 11.5 };
    let detail = Detail {
        low_us: 11.2,
        high_us: 11.5,
        gb_s: 1234.5,
        tflop_s: 0.0,
        roofline: 0.75,
        runner_up: Some(runner_up),
    };
    timed.timing = Some(Timing { median_us: 11.25, min_us: 11.0, samples: 40, detail: Some(detail) });
    database.insert(timed);
    // As a file of an earlier version has it.
    let mut old = database.entries()[1].clone();
    old.timing = Some(Timing { median_us: 2.0, min_us: 1.5, samples: 10, detail: None });
    database.insert(old);
    database.header.features = vec!["SHADER_F16".into(), "SUBGROUP".into()];
    database
}

#[test]
fn what_was_written_reads_back_the_same() {
    let database = example();
    let text = database.to_toml();
    let again = Database::parse("example.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again, database, "reading changed the database");
    assert_eq!(again.to_toml(), text, "writing is not stable");
}

#[test]
fn files_without_the_later_fields_still_read() {
    let text = example().to_toml();
    let later = ["features =", "low_us =", "high_us =", "gb_s =", "tflop_s =", "roofline =", "runner_up ="];
    assert!(later.iter().all(|field| text.contains(field)), "{text}");
    let old: String =
        text.lines().filter(|l| !later.iter().any(|f| l.starts_with(f))).map(|l| format!("{l}\n")).collect();
    let database = Database::parse("old.toml", &old).unwrap_or_else(|e| panic!("{e}"));
    let timing = database.entries()[0].timing.clone().expect("it was timed");
    assert_eq!((timing.median_us, timing.samples, timing.detail), (11.25, 40, None));
    assert!(database.header.features.is_empty(), "none were recorded");
}

#[test]
fn lookup_finds_every_workload_and_no_other() {
    let database = example();
    for entry in database.entries() {
        let (kernel, shape) = entry.key();
        assert_eq!(database.lookup(kernel, &shape), Some(entry), "{kernel} {shape}");
        assert!(!entry.stale().expect("renders"), "{kernel} {shape} is stale at once");
    }
    assert_eq!(database.lookup("gemv", "{}"), None, "a shape that is not there");
    assert_eq!(database.lookup("nothing", "{}"), None, "a kernel that is not there");
}

#[test]
fn a_changed_hash_makes_an_entry_stale() {
    let mut database = example();
    let mut entry = database.entries()[0].clone();
    entry.wgsl_hash = "0".repeat(64);
    database.insert(entry);
    assert_eq!(database.stale().expect("renders").len(), 1, "one entry was changed");
}

fn mistakes(text: &str) -> Vec<DbError> {
    Database::parse("bad.toml", text).expect_err("the text has mistakes").0
}

#[test]
fn every_mistake_names_file_entry_and_field() {
    let good =
        Database::generic(&Caps::webgpu_baseline(), &[shapes::odd()[0].clone()]).expect("renders").to_toml();
    let cases = [
        ("this is [not toml", "bad.toml: "),
        ("", "bad.toml: `schema` is missing"),
        ("schema = 99", "bad.toml: `schema` is 99"),
        ("schema = 1", "bad.toml: `caps`: is missing"),
        ("schema = 1\nkernel = 3\nclass = \"plain\"\n[caps]\n", "bad.toml: `kernel`: is not a list"),
        (&good.replace("class = \"plain\"", "class = \"subgroup32\""), "bad.toml: `class`: is `subgroup32`"),
        (
            &good.replace("kernel = \"gather\"", "kernel = \"gathers\""),
            "bad.toml: kernel 1: `kernel`: unknown kernel",
        ),
        (&good.replace("rows = ", "rovs = "), "bad.toml: kernel 1: `shape`: "),
        (&good.replace("wg = 64", "wg = -1"), "bad.toml: kernel 1: `config`: wg: -1"),
        (&good.replace("wg = 64", "wg = 63"), "bad.toml: kernel 1: `config`: cannot run"),
        (&good.replace("wg = 64", "wg = 4294967296"), "bad.toml: kernel 1: `config`: "),
        (&good.replace("wgsl_hash = \"", "wgsl_hash = \"x"), "bad.toml: kernel 1: `wgsl_hash`: "),
        (&format!("{good}median_us = 1.0\n"), "bad.toml: kernel 1: `min_us`: is missing"),
        (&format!("{good}median_us = nan\n"), "bad.toml: kernel 1: `median_us`: "),
    ];
    for (text, wanted) in cases {
        let found = mistakes(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(found.contains(wanted), "wanted {wanted:?}, found {found:?} for\n{text}");
    }
}

#[test]
fn unknown_fields_of_later_versions_are_no_mistake() {
    let good = example().to_toml();
    let text = format!("later = true\n{good}evidence = [1, 2]\n");
    assert_eq!(Database::parse("later.toml", &text).expect("reads"), example(), "fields changed the content");
}

#[test]
fn a_bad_entry_does_not_spoil_the_others() {
    let mut text = example().to_toml();
    text.push_str("\n[[kernel]]\nkernel = \"of a later version\"\nshape = {}\nconfig = {}\n");
    let (database, mistakes) = Database::parse_lenient("mixed.toml", &text).expect("the header is good");
    assert_eq!(database, example(), "the good entries stay");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
}

/// All numbers of a table, and of those in it.
fn numbers(table: &mut toml::Value) -> Vec<&mut toml::Value> {
    match table {
        toml::Value::Table(fields) => fields.iter_mut().flat_map(|(_, v)| numbers(v)).collect(),
        number if number.is_integer() => vec![number],
        _ => Vec::new(),
    }
}

/// Replaces one number of a table, if it has any.
fn poke(table: &mut toml::Value, at: usize, with: i64) {
    let numbers = numbers(table);
    let count = numbers.len().max(1);
    if let Some(number) = numbers.into_iter().nth(at % count) {
        *number = with.into();
    }
}

/// What the next test changes numbers of is read: with more than the fewest bindings, too.
#[test]
fn exchanging_shapes_out_of_a_file_are_read() {
    let caps = Caps { max_storage_bindings: 16, ..Caps::webgpu_baseline() }.with_subgroups(32).with_f16(true);
    let all = shapes::exchanging();
    let text = Database::generic(&caps, &all).expect("renders").to_toml();
    assert_eq!(Database::parse("good.toml", &text).expect("parses").entries().len(), all.len());
}

/// The numbers that break arithmetic, up to the largest a file may hold.
fn nasty(most: u32) -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(1), Just(3), (0..=most).prop_map(|n| 1i64 << n), 0..=(1i64 << most)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Database::parse("random.toml", &text);
    }

    #[test]
    fn no_damage_panics(at in any::<prop::sample::Index>(), with in any::<char>(), cut in any::<bool>()) {
        let good = Database::generic(&Caps::webgpu_baseline(), &shapes::odd()[..3]).expect("renders").to_toml();
        let mut text: Vec<char> = good.chars().collect();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = with }
        let text: String = text.into_iter().collect();
        let _ = Database::parse("damaged.toml", &text);
    }

    /// Whatever numbers a file holds, reading answers, and what it lets through can be asked
    /// everything.
    #[test]
    fn no_numbers_panic(
        which in any::<prop::sample::Index>(),
        shape in prop::collection::vec((0usize..32, nasty(22)), 0..3),
        config in prop::collection::vec((0usize..8, nasty(12)), 0..3),
        project in prop::option::of(nasty(12)),
    ) {
        // With one that can wait for others.
        let waits = |w: &Workload| matches!(w, Workload::DecodeAttention(s) if s.then.is_some());
        let waiting = shapes::exchanging().into_iter().chain(shapes::e2b().into_iter().filter(waits));
        let all: Vec<Workload> = shapes::odd().into_iter().chain(waiting).collect();
        let workload = &all[which.index(all.len())];
        let caps = Caps { max_storage_bindings: 16, max_workgroup_bytes: 32 << 10, ..Caps::webgpu_baseline() };
        let caps = caps.with_subgroups(32).with_f16(true);
        let good = Database::generic(&caps, std::slice::from_ref(workload)).expect("renders").to_toml();
        let mut table: toml::Table = good.parse().expect("TOML");
        let entry = &mut table["kernel"][0];
        shape.into_iter().for_each(|(at, with)| poke(&mut entry["shape"], at, with));
        config.into_iter().for_each(|(at, with)| poke(&mut entry["config"], at, with));
        if let Some(n) = project.filter(|_| waits(workload)) {
            entry["config"].as_table_mut().expect("a table").insert("project".into(), toml::Value::Integer(n));
        }
        if let Ok(database) = Database::parse("numbers.toml", &table.to_string()) {
            for variant in database.entries().iter().map(|e| &e.variant) {
                let _ = (variant.context(), variant.groups(1), variant.groups(600), variant.bindings());
            }
        }
    }
}
