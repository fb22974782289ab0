//! Which database a device gets, and that files are written whole.

use wgforge_autotune::{
    Candidate, Database, DeviceId, Origin, device_id, generic, load, load_folder, save, select,
};
use wgforge_codegen::{Caps, Workload};
use wgforge_runtime::{AdapterReport, Backend, adapters};

/// An adapter of the given class. Fields it does not name are those of the stub backend.
fn adapter(name: &str, vendor: u32, caps: Caps) -> AdapterReport {
    let stub = pollster::block_on(adapters(Some(Backend::Noop))).remove(0);
    AdapterReport {
        name: name.into(),
        vendor,
        device: 7,
        driver: "driver".into(),
        driver_info: "1.0".into(),
        backend: "vulkan".into(),
        caps,
        ..stub
    }
}

fn subgroup(lanes: u32, f16: bool) -> Caps {
    Caps::webgpu_baseline().with_subgroups(lanes).with_f16(f16)
}

fn few(caps: &Caps) -> Vec<Workload> {
    generic::workloads(caps).into_iter().filter(|w| w.kernel() == "norm").take(2).collect()
}

fn tuned(name: &str, on: &AdapterReport, origin: Origin) -> Candidate {
    let mut database = Database::generic(&on.caps, &few(&on.caps)).expect("renders");
    database.header.device = Some(device_id(on));
    Candidate { name: name.into(), origin, database }
}

fn defaults() -> Vec<Candidate> {
    let read = generic::databases().unwrap_or_else(|e| panic!("{e}"));
    let candidate =
        |(name, database): (&str, _)| Candidate { name: name.into(), origin: Origin::Embedded, database };
    read.into_iter().map(candidate).collect()
}

fn chosen(adapter: &AdapterReport, candidates: Vec<Candidate>) -> String {
    select(adapter, candidates).unwrap_or_else(|e| panic!("{e}")).name
}

#[test]
fn committed_defaults_are_current_and_small() {
    for (caps, (name, text)) in generic::classes().into_iter().zip(generic::FILES) {
        assert_eq!(*name, format!("generic-{}.toml", caps.class()), "files are in the order of the classes");
        let current = generic::database(&caps, &generic::workloads(&caps)).expect("renders").to_toml();
        assert!(*text == current, "{name} is outdated: run `cargo run -p xtask -- generic`");
        assert!(text.len() < 60_000, "{name} has {} bytes", text.len());
    }
}

#[test]
fn this_adapter_beats_its_vendor_beats_the_defaults() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let sibling = adapter("Card B", 0x10de, subgroup(32, true));
    let foreign = adapter("Card C", 0x1002, subgroup(32, true));
    let all = || {
        let mut all = defaults();
        all.extend([
            tuned("foreign", &foreign, Origin::Cache),
            tuned("sibling", &sibling, Origin::Embedded),
            tuned("embedded", &here, Origin::Embedded),
            tuned("cached", &here, Origin::Cache),
        ]);
        all
    };
    assert_eq!(chosen(&here, all()), "cached");
    let without = |names: &[&str]| all().into_iter().filter(|c| !names.contains(&c.name.as_str())).collect();
    assert_eq!(chosen(&here, without(&["cached"])), "embedded");
    assert_eq!(chosen(&here, without(&["cached", "embedded"])), "sibling");
    assert_eq!(chosen(&here, without(&["cached", "embedded", "sibling"])), "generic-subgroup32-f16.toml");
}

#[test]
fn the_nearest_class_of_defaults_is_taken() {
    for (lanes, f16, wanted) in [
        (1, false, "plain"),
        (1, true, "plain-f16"),
        (4, true, "subgroup4"),
        (8, false, "subgroup4"),
        (16, true, "subgroup16-f16"),
        (32, false, "subgroup32"),
        (64, false, "subgroup32"),
        (128, true, "subgroup64-f16"),
    ] {
        let name = chosen(&adapter("Card", 1, subgroup(lanes, f16)), defaults());
        assert_eq!(name, format!("generic-{wanted}.toml"), "{lanes} lanes, f16 {f16}");
    }
}

#[test]
fn another_driver_or_class_is_not_this_adapter() {
    let mut then = adapter("Card A", 0x10de, subgroup(32, true));
    then.driver_info = "0.9".into();
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let selection = select(&here, vec![tuned("old", &then, Origin::Cache)]).expect("still of the vendor");
    assert!(selection.why.contains("same vendor"), "{}", selection.why);
    let wider = adapter("Card A", 0x10de, subgroup(64, true));
    let refused = select(&wider, vec![tuned("old", &then, Origin::Cache)]).expect_err("another class");
    assert!(refused.to_string().contains("tuned on Card A") && refused.to_string().contains("class"), "{refused}");
}

#[test]
fn stale_entries_are_left_out_and_said() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let mut candidate = tuned("mine", &here, Origin::Cache);
    let mut entry = candidate.database.entries()[0].clone();
    entry.wgsl_hash = "0".repeat(64);
    candidate.database.insert(entry);
    let selection = select(&here, vec![candidate.clone()]).expect("one entry is left");
    assert_eq!(selection.database.entries().len(), 1, "the other is stale");
    assert!(selection.notes.iter().any(|n| n.contains("1 kernels left out")), "{:?}", selection.notes);
}

#[test]
fn a_named_file_is_taken_before_all_others() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let foreign = adapter("Card C", 0x1002, subgroup(32, true));
    let all = vec![tuned("mine", &here, Origin::Cache), tuned("named", &foreign, Origin::Named)];
    assert_eq!(chosen(&here, all), "named");
}

#[test]
fn files_are_saved_whole_and_read_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = adapter("Card A (TM)/2", 0x10de, subgroup(32, true));
    let database = tuned("", &here, Origin::Cache).database;
    let id: DeviceId = device_id(&here);
    let path = folder.path().join("deep").join(wgforge_autotune::file_name(&id));
    save(&database, &path).expect("writable");
    save(&database, &path).expect("a second time over the first");
    assert_eq!(path.file_name().and_then(|n| n.to_str()), Some("card-a-tm-2-vulkan-10de-7.toml"));
    let (read, mistakes) = load(&path).expect("reads");
    assert_eq!((read, mistakes.len()), (database.clone(), 0));
    let parent = path.parent().expect("has one");
    assert_eq!(std::fs::read_dir(parent).expect("exists").count(), 1, "no temporary file is left");
    std::fs::write(parent.join("broken.toml"), "schema = \"x\"").expect("writable");
    let (all, notes) = load_folder(parent).expect("lists");
    assert_eq!((all.len(), notes.len()), (1, 1), "the broken file is a note: {notes:?}");
    assert!(load_folder(&folder.path().join("none")).expect("no folder is an empty one").0.is_empty());
}
