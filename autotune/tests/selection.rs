//! Which database a device gets, and that files are written whole.

use wgforge_autotune::{
    Candidate, Database, DeviceId, Mismatch, Origin, device_id, file_name, generic, load, load_folder,
    mismatches, save, select,
};
use wgforge_codegen::{
    Caps, Variant, Workload,
    db::{Entry, native_hash},
    shapes,
};
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
        assert!(text.len() < 80_000, "{name} has {} bytes", text.len());
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
        (64, false, "subgroup64"),
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
    assert!(
        refused.to_string().contains("tuned on Card A") && refused.to_string().contains("class"),
        "{refused}"
    );
}

/// Whether workgroups run side by side is known of the card it was tuned on, and of no other.
#[test]
fn what_waits_for_others_waits_on_its_own_card_only() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let sibling = adapter("Card B", 0x10de, subgroup(32, true));
    let caps = Caps { max_storage_bindings: 16, ..here.caps.clone() };
    let waits = |v: &Variant| v.waits() && v.why_not(&caps).is_none();
    let all = shapes::e2b().into_iter().flat_map(|w| w.candidates(&caps));
    let variant = all.into_iter().find(waits).expect("a candidate that waits");
    let mut candidate = tuned("mine", &here, Origin::Embedded);
    let wgsl_hash = native_hash(&variant).expect("it renders");
    candidate.database.insert(Entry { variant: variant.clone(), wgsl_hash, timing: None });
    for (adapter, origin, kept) in [
        (&here, Origin::Embedded, true),
        (&sibling, Origin::Embedded, false),
        (&sibling, Origin::Named, true),
    ] {
        let adapter = AdapterReport { caps: caps.clone(), ..adapter.clone() };
        let selection = select(&adapter, vec![Candidate { origin, ..candidate.clone() }]).expect("it fits");
        let entries = selection.database.entries();
        let found = entries.iter().find(|e| e.variant.workload() == variant.workload()).expect("its shape");
        assert_eq!(found.variant.waits(), kept, "{} as {origin:?}", adapter.name);
        assert!(!found.stale().expect("it renders"));
    }
    // What waits however it is configured has no place elsewhere.
    let variant = shapes::exchanging()[0].generic(&caps);
    let wgsl_hash = native_hash(&variant).expect("it renders");
    candidate.database.insert(Entry { variant: variant.clone(), wgsl_hash, timing: None });
    for (adapter, kept) in [(&here, true), (&sibling, false)] {
        let adapter = AdapterReport { caps: caps.clone(), ..adapter.clone() };
        let selection = select(&adapter, vec![candidate.clone()]).expect("it fits");
        let there = selection.database.entries().iter().any(|e| e.variant.workload() == variant.workload());
        assert_eq!(there, kept, "{}", adapter.name);
    }
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
    let path = folder.path().join("deep").join(file_name(&id, &here.caps.class()));
    save(&database, &path).expect("writable");
    save(&database, &path).expect("a second time over the first");
    assert_eq!(
        path.file_name().and_then(|n| n.to_str()),
        Some("card-a-tm-2-vulkan-10de-7-subgroup32-f16.toml")
    );
    assert_eq!(file_name(&id, ""), "card-a-tm-2-vulkan-10de-7.toml", "the device's");
    let (read, mistakes) = load(&path).expect("reads");
    assert_eq!((read, mistakes.len()), (database.clone(), 0));
    let parent = path.parent().expect("has one");
    assert_eq!(std::fs::read_dir(parent).expect("exists").count(), 1, "no temporary file is left");
    std::fs::write(parent.join("broken.toml"), "schema = \"x\"").expect("writable");
    let (all, notes) = load_folder(parent).expect("lists");
    assert_eq!((all.len(), notes.len()), (1, 1), "the broken file is a note: {notes:?}");
    assert!(load_folder(&folder.path().join("none")).expect("no folder is an empty one").0.is_empty());
}

/// The kinds of mismatch of a database made on `then` for the adapter `here`, hard ones marked.
fn differences(then: &AdapterReport, here: &AdapterReport) -> Vec<(bool, String)> {
    let header = tuned("x", then, Origin::Cache).database.header;
    let kind = |m: &Mismatch| format!("{m:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
    mismatches(&header, here).iter().map(|m| (m.is_hard(), kind(m))).collect()
}

#[test]
fn every_difference_is_hard_or_soft() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    assert_eq!(differences(&here, &here), [], "the same device");
    let mut cases: Vec<(AdapterReport, bool, &str)> = vec![
        (adapter("Card C", 0x1002, subgroup(32, true)), true, "Vendor"),
        (adapter("Card A", 0x10de, subgroup(64, true)), true, "Subgroups"),
        (adapter("Card A", 0x10de, subgroup(32, false)), true, "F16"),
        (adapter("Card B", 0x10de, subgroup(32, true)), false, "Device"),
    ];
    let mut more = subgroup(32, true);
    more.max_invocations = 1024;
    cases.push((adapter("Card A", 0x10de, more), true, "Limit"));
    cases.push((AdapterReport { driver_info: "0.9".into(), ..here.clone() }, false, "Driver"));
    cases.push((AdapterReport { backend: "dx12".into(), ..here.clone() }, false, "Backend"));
    for (then, hard, kind) in cases {
        assert_eq!(differences(&then, &here), [(hard, kind.to_owned())]);
        let outcome = select(&here, vec![tuned("it", &then, Origin::Cache)]);
        match outcome {
            Ok(selection) => {
                assert!(!hard, "{kind} is hard and was used");
                let said = selection.notes.iter().any(|n| n.contains("used all the same"));
                assert!(said && selection.mismatches.len() == 1, "{kind}: {:?}", selection.notes);
            }
            Err(e) => {
                let text = e.to_string();
                assert!(hard, "{kind} is soft and was refused: {text}");
                assert!(text.contains("is not used") && text.contains("wgforge autotune"), "{text}");
            }
        }
    }
    // Fewer limits then than now are no reason for anything.
    let mut roomy = here.clone();
    roomy.caps.max_invocations = 1024;
    assert_eq!(differences(&here, &roomy), [], "more room");
}

#[test]
fn other_versions_are_soft_and_changed_texts_are_said() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let mut candidate = tuned("it", &here, Origin::Cache);
    candidate.database.header.wgpu = Some("29.0.0".into());
    candidate.database.header.codegen = "0.0.1".into();
    let mut entry = candidate.database.entries()[0].clone();
    entry.wgsl_hash = "0".repeat(64);
    candidate.database.insert(entry);
    let selection = select(&here, vec![candidate]).expect("soft ones do not exclude");
    let hard: Vec<bool> = selection.mismatches.iter().map(Mismatch::is_hard).collect();
    assert_eq!(hard, [false, false, true], "wgpu, codegen, and a changed text: {:?}", selection.mismatches);
    assert_eq!(selection.database.entries().len(), 1, "the stale entry is not used");
    assert!(selection.why.contains("this Card A"), "still this adapter's: {}", selection.why);
}

#[test]
fn a_named_file_says_all_the_same_what_it_was_made_for() {
    let here = adapter("Card A", 0x10de, subgroup(32, true));
    let foreign = adapter("Card C", 0x1002, subgroup(32, true));
    let selection = select(&here, vec![tuned("named", &foreign, Origin::Named)]).expect("named");
    assert!(selection.notes.iter().any(|n| n.contains("Card C")), "{:?}", selection.notes);
}
