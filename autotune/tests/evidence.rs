//! Evidence, locks and merged databases: what a killed run leaves, and two tuners at once.

use std::fs;
use std::path::Path;

use wgforge_autotune::{
    Conditions, Database, DeviceId, Error, Evidence, Lock, Measured, Record, Settled, load, save,
    save_merged, stats::summary,
};
use wgforge_codegen::{Caps, Families, Target, Workload, shapes};

fn conditions(mode: &str) -> Conditions {
    let device =
        DeviceId { name: "Card".into(), vendor: 1, device: 2, driver: "3".into(), backend: "vulkan".into() };
    Conditions { device, codegen: "0.1.0".into(), wgpu: "30.0.1".into(), mode: mode.into(), seed: 1 }
}

fn settled(workload: &Workload) -> Settled {
    let variant = workload.generic(&Caps::webgpu_baseline());
    let winner = Measured {
        config: serde_json::from_str(&variant.config_json()).expect("JSON"),
        wgsl_hash: variant.render(Target::Native).expect("renders").hash,
        us: summary(&[3.0, 3.5, 3.25, 3.125]).expect("samples"),
        independent_us: Some(2.0),
    };
    let record = |outcome: &str, reason: Option<&str>| Record {
        config: winner.config.clone(),
        wgsl_hash: Some(winner.wgsl_hash.clone()),
        outcome: outcome.into(),
        reason: reason.map(Into::into),
        samples: if reason.is_some() { Vec::new() } else { vec![3.0, 3.5] },
    };
    Settled {
        workload: workload.clone(),
        tokens: 1,
        position: 512,
        bytes: 4096,
        ops: 0,
        bound_us: 1.5,
        before: Some(winner.clone()),
        generic: Some(winner.clone()),
        runner_up: None,
        ended: "all candidates tried".into(),
        records: vec![record("proven", None), record("wrong", Some("element 3"))],
        winner,
    }
}

fn two() -> (Settled, Settled) {
    let all = shapes::odd();
    let of = |kernel| settled(all.iter().find(|w| w.kernel() == kernel).expect("is there"));
    (of("norm"), of("rope"))
}

#[test]
fn a_killed_run_is_resumed_with_all_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep").join("card.jsonl");
    let (first, second) = two();
    let (mut evidence, resumed) =
        Evidence::open(&path, &conditions("quick"), &Families::builtin(), false).expect("opens");
    assert!(resumed.is_empty(), "there was nothing");
    evidence.settled(&first).expect("written");
    drop(evidence);
    // Killed in the middle of a line.
    let mut text = fs::read_to_string(&path).expect("exists");
    text.push_str("{\"line\":\"settled\",\"sett");
    fs::write(&path, text).expect("written");

    let other_seed = Conditions { seed: 99, ..conditions("quick") };
    let (mut evidence, resumed) =
        Evidence::open(&path, &other_seed, &Families::builtin(), false).expect("opens");
    assert_eq!(resumed, std::slice::from_ref(&first), "with both of its candidates");
    evidence.settled(&second).expect("written");
    drop(evidence);
    let (mut evidence, resumed) =
        Evidence::open(&path, &conditions("quick"), &Families::builtin(), false).expect("opens");
    assert_eq!(resumed, [first, second], "the cut line harms nobody");
    evidence.end().expect("written");
    drop(evidence);
    let (_, resumed) =
        Evidence::open(&path, &conditions("quick"), &Families::builtin(), false).expect("opens");
    assert!(resumed.is_empty(), "a finished run is not resumed");
    assert!(path.with_extension("jsonl.previous").exists(), "it is kept");
}

#[test]
fn other_conditions_fresh_starts_and_changed_texts_are_not_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("card.jsonl");
    let (first, mut second) = two();
    second.winner.wgsl_hash = "0".repeat(64);
    let begin = || {
        let (mut evidence, _) =
            Evidence::open(&path, &conditions("quick"), &Families::builtin(), true).expect("opens");
        evidence.settled(&first).expect("written");
        evidence.settled(&second).expect("written");
    };
    let resumed = |conditions: &Conditions, fresh| {
        begin();
        Evidence::open(&path, conditions, &Families::builtin(), fresh).expect("opens").1.len()
    };
    assert_eq!(resumed(&conditions("quick"), false), 1, "the second one's text has changed");
    assert_eq!(resumed(&conditions("full"), false), 0, "quick is not full");
    assert_eq!(resumed(&conditions("quick"), true), 0, "fresh");
    let mut driver = conditions("quick");
    driver.device.driver = "4".into();
    assert_eq!(resumed(&driver, false), 0, "another driver");
    let codegen = Conditions { codegen: "9".into(), ..conditions("quick") };
    assert_eq!(resumed(&codegen, false), 0, "another version");
    fs::write(&path, b"\xff\x00 not lines").expect("written");
    assert_eq!(
        Evidence::open(&path, &conditions("quick"), &Families::builtin(), false).expect("opens").1.len(),
        0,
        "garbage"
    );
}

#[test]
fn the_second_tuner_is_told_who_holds_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep").join("card.toml");
    let lock = Lock::acquire(&path).expect("nobody holds it");
    let error = Lock::acquire(&path).expect_err("it is held");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    if cfg!(unix) {
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
    drop(lock);
    let again = Lock::acquire(&path).expect("free again");
    // What a killed program leaves is the file, not the lock.
    drop(again);
    assert!(Lock::acquire(&path).is_ok(), "the file alone holds nobody up");
}

fn database(of: &[&str]) -> Database {
    let all: Vec<Workload> = shapes::odd();
    let some: Vec<Workload> = of
        .iter()
        .map(|kernel| all.iter().find(|w| w.kernel() == *kernel).expect("is there").clone())
        .collect();
    let mut database = Database::generic(&Caps::webgpu_baseline(), &some).expect("renders");
    database.header.device = Some(conditions("").device);
    database
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn new_results_join_those_of_the_same_conditions() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("card.toml");
    assert!(save_merged(&database(&["norm", "rope"]), &path).expect("saved").is_empty(), "nothing to say");
    assert!(save_merged(&database(&["rope", "topk"]), &path).expect("saved").is_empty(), "nothing to say");
    let (read, _) = load(&path).expect("reads");
    let kernels: Vec<&str> = read.entries().iter().map(|e| e.variant.kernel()).collect();
    assert_eq!(kernels, ["norm", "rope", "topk"]);
    // Another driver: its times stand beside, not among the new ones.
    let mut later = database(&["topk"]);
    if let Some(device) = &mut later.header.device {
        device.driver = "4".into();
    }
    let notes = save_merged(&later, &path).expect("saved");
    assert!(notes[0].contains("other conditions"), "{notes:?}");
    assert_eq!(load(&path).expect("reads").0, later, "only the new ones");
    assert_eq!(names(folder.path()), ["card.toml", "card.toml.outdated-1"]);
}

#[test]
fn a_broken_file_is_moved_aside_with_its_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("card.toml");
    for (n, broken) in ["schema = [", "\u{0}\u{1}"].into_iter().enumerate() {
        fs::write(&path, broken).expect("written");
        let notes = save_merged(&database(&["norm"]), &path).expect("saved");
        assert!(notes[0].contains("broken"), "{notes:?}");
        let aside = folder.path().join(format!("card.toml.broken-{}", n + 1));
        assert_eq!(fs::read_to_string(aside).expect("kept"), broken, "its content");
        assert_eq!(load(&path).expect("reads").0.entries().len(), 1, "the new file is whole");
    }
    // Not even text.
    fs::write(&path, b"\xff\xfe\xfd").expect("written");
    save_merged(&database(&["norm"]), &path).expect("saved");
    assert_eq!(names(folder.path()).len(), 4, "{:?}", names(folder.path()));
    // One entry that cannot be read: the others are merged, and the file is kept.
    save(&database(&["norm", "rope"]), &path).expect("saved");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}\n[[kernel]]\nkernel = \"later\"\nshape = {{}}\nconfig = {{}}\n"))
        .expect("written");
    let notes = save_merged(&database(&["topk"]), &path).expect("saved");
    assert!(notes[0].contains("1 entries could not be read"), "{notes:?}");
    assert_eq!(load(&path).expect("reads").0.entries().len(), 3, "norm, rope and topk");
}
