//! The tuner in one call, on a kernel of another crate one of whose configurations is wrong.

mod common;

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wgforge_autotune::{Clock, Error, Event, Mode, Tuner, load_with, save};
use wgforge_codegen::{
    Arithmetic, Caps, Cost, Families, Kernel, Reason, Workload,
    check::{Draw, Tolerance},
    custom,
    io::Io,
    types::Act,
};
use wgforge_runtime::{CapsMask, DeviceOptions};

/// `y = 2 x`; workgroups of 128 threads leave out the last element.
#[derive(Clone, Copy, Debug)]
struct Double;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shape {
    n: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    wg: u32,
}

impl Kernel for Double {
    const NAME: &'static str = "double";
    const TEMPLATE: &'static str = "
@group(0) @binding({{ b.x }}) var<storage, read> x: array<f32, {{ s.n }}>;
@group(0) @binding({{ b.y }}) var<storage, read_write> y: array<f32, {{ s.n }}>;
@compute @workgroup_size({{ c.wg }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < {{ s.n }}u{% if c.wg == 128 %} - 1u{% endif %}) { y[id.x] = 2.0 * x[id.x]; }
}";
    type Shape = Shape;
    type Config = Config;
    fn bindings(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["x", "y"]
    }
    fn written(_: &Shape, _: &Config) -> Vec<&'static str> {
        vec!["y"]
    }
    fn candidates(_: &Shape, _: &Caps) -> Vec<Config> {
        [32, 64, 128].map(|wg| Config { wg }).to_vec()
    }
    fn generic(_: &Shape, _: &Caps) -> Config {
        Config { wg: 64 }
    }
    fn why_not(_: &Shape, _: &Config, _: &Caps) -> Option<Reason> {
        None
    }
    fn groups(s: &Shape, c: &Config, _: u32) -> [u32; 3] {
        [s.n.div_ceil(c.wg), 1, 1]
    }
    fn one_token(_: &Shape) -> bool {
        true
    }
    fn reference(s: &Shape, _: &Config, io: &mut Io<'_>) {
        for i in 0..s.n as usize {
            let y = 2.0 * io.f32("x", i);
            io.store("y", Act::F32, i, &[y], 1.0);
        }
    }
    fn draw(s: &Shape, _: &Config, name: &str, d: &mut Draw) -> Vec<u32> {
        let n = u64::from(s.n);
        if name == "y" { Draw::poison(4 * n) } else { d.floats(n, 1.0) }
    }
    fn output(_: &Shape, _: &Config, _: &str) -> (Act, Tolerance) {
        Tolerance::float(Act::F32, 1e-6)
    }
    fn cost(s: &Shape, _: &Config, _: u32, _: u32) -> Cost {
        let bytes = 4 * u64::from(s.n);
        Cost { read_bytes: bytes, written_bytes: bytes, ops: u64::from(s.n), kind: Arithmetic::F32 }
    }
}

fn workloads() -> Vec<Workload> {
    vec![custom::workload::<Double>(Shape { n: 5000 })]
}

#[test]
fn one_call_tunes_a_kernel_of_another_crate() {
    let Some(device) = common::device() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (evidence, report) = (folder.path().join("evidence.jsonl"), folder.path().join("report.html"));
    let refused = RefCell::new(Vec::new());
    let families = Families::builtin().with::<Double>().expect("a free name");
    let database = Tuner::new(&device)
        .families(families.clone())
        .budget(Duration::from_secs(60))
        .seed(1)
        .evidence(&evidence)
        .report(&report)
        .observer(|event| {
            if let Event::Refused { config, reason, .. } = event {
                refused.borrow_mut().push(format!("{config} {reason}"));
            }
        })
        .tune(&workloads())
        .expect("tunes");

    let entry = database.get(&workloads()[0]).expect("has a winner");
    assert_ne!(entry.variant.config_json(), r#"{"wg":128}"#, "the wrong one does not win");
    assert!(entry.timing.as_ref().is_some_and(|t| t.median_us > 0.0 && t.samples > 1));
    assert!(!entry.stale().expect("renders"));
    let refused = refused.into_inner();
    assert!(
        refused.len() == 1 && refused[0].contains(r#"{"wg":128}"#) && refused[0].contains("`y`"),
        "{refused:?}"
    );
    let text = std::fs::read_to_string(&evidence).expect("was written");
    assert!(text.contains(r#""outcome":"wrong""#) && text.contains(r#""outcome":"proven""#), "{text}");
    assert!(text.ends_with("{\"line\":\"end\"}\n"), "it came to its end: {text}");
    assert!(std::fs::read_to_string(&report).expect("was written").contains("double"));

    let file = folder.path().join("tuned.toml");
    save(&database, &file).expect("is saved");
    let (read, mistakes) = load_with(&families, &file).expect("is read");
    assert_eq!((read, mistakes.len()), (database, 0));
}

#[test]
fn without_timestamps_the_hosts_clock_finds_a_winner() {
    let disable = CapsMask { timestamps: true, ..CapsMask::default() };
    let Some(device) = common::device_with(&DeviceOptions { disable, ..DeviceOptions::default() }) else {
        return;
    };
    let tuner = Tuner::new(&device).mode(Mode::Quick).seed(1).observer(|_| {});
    let session = tuner.session(&workloads()).expect("tunes");
    assert_eq!(session.clock, Clock::Host);
    assert!(session.roofline.read_gb_s > 0.1, "{:?}", session.roofline);
    let one = &session.settled[0];
    assert!(one.winner.us.median > 0.0 && one.winner.config["wg"] != 128, "{one:?}");
}

#[test]
fn workloads_can_be_left_as_they_were() {
    let Some(device) = common::device() else { return };
    let quiet = |_: &Event<'_>| {};
    let mut session = Tuner::new(&device).seed(1).observer(quiet).session(&workloads()).expect("tunes");
    let one = &mut session.settled[0];
    assert_eq!(one.before.as_ref().map(|b| b.config.clone()), Some(serde_json::json!({ "wg": 64 })));
    one.winner.config = serde_json::json!({ "wg": 32 });
    let config = |unchanged: &[Workload]| {
        let database = session.database(&device, unchanged);
        database.get(&workloads()[0]).map(|entry| entry.variant.config_json())
    };
    assert_eq!(config(&[]).as_deref(), Some(r#"{"wg":32}"#));
    assert_eq!(config(&workloads()).as_deref(), Some(r#"{"wg":64}"#));
}

#[test]
fn nothing_tuned_is_an_error_with_its_reason() {
    let Some(device) = common::device() else { return };
    let stop = AtomicBool::new(true);
    let tuned = Tuner::new(&device).stop(&stop).observer(|_| {}).tune(&workloads());
    assert!(matches!(&tuned, Err(Error::NothingTuned(why)) if why.contains("stopped")), "{tuned:?}");
    let tuned = Tuner::new(&device).observer(|_| {}).tune(&[]);
    assert!(matches!(&tuned, Err(Error::NothingTuned(why)) if why.contains("no workloads")), "{tuned:?}");
}
