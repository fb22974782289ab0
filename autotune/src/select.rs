//! Which database a device gets, and why.

use wgforge_codegen::{
    Caps, Database,
    db::{Entry, native_hash},
};
use wgforge_runtime::AdapterReport;

use crate::{
    DeviceId, Error, cache_folder, devices, generic, load_folder,
    mismatch::{Mismatch, mismatches},
};

/// Where a database came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built into the program.
    Embedded,
    /// Tuned by the user, in the cache folder.
    Cache,
    /// Named by the user: taken whenever anything in it can run.
    Named,
}

/// A database that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its file.
    pub name: String,
    /// Where it came from.
    pub origin: Origin,
    /// Its content.
    pub database: Database,
}

/// The chosen database.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Only entries that this device can run and that still render the text they were made with.
    pub database: Database,
    /// File of the database.
    pub name: String,
    /// Where it came from.
    pub origin: Origin,
    /// One sentence for people: which, and why it.
    pub why: String,
    /// What was passed over or left out, and why.
    pub notes: Vec<String>,
    /// Those of `notes` about files in the cache folder that cannot be read as a whole, or that are
    /// for this device and hold nothing it can use.
    pub lost: Vec<String>,
    /// In what the chosen database was not made for this device. A hard one here means that
    /// entries were left out, or that the user named the file.
    pub mismatches: Vec<Mismatch>,
}

/// How closely a database belongs to an adapter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// Defaults of a class the device contains: its subgroup and whether it uses f16.
    Generic(u32, bool),
    /// Another card, driver or API of the same vendor, with the same subgroups and f16.
    Vendor,
    /// This very adapter, driver and API.
    Adapter,
    /// What the user asked for.
    Named,
}

/// The adapter as databases record it.
pub fn device_id(adapter: &AdapterReport) -> DeviceId {
    DeviceId {
        name: adapter.name.clone(),
        vendor: adapter.vendor,
        device: adapter.device,
        driver: format!("{} {}", adapter.driver, adapter.driver_info).trim().to_owned(),
        backend: adapter.backend.clone(),
    }
}

/// Whether the defaults of a class use nothing the device lacks.
fn contains(device: &Caps, class: &Caps) -> bool {
    (!class.subgroups || device.subgroups && device.subgroup_min >= class.subgroup_min)
        && (!class.f16 || device.f16)
        && class.max_invocations <= device.max_invocations
        && class.max_workgroup_bytes <= device.max_workgroup_bytes
}

fn closeness(candidate: &Candidate, adapter: &AdapterReport) -> Result<Closeness, String> {
    let header = &candidate.database.header;
    if candidate.origin == Origin::Named {
        return Ok(Closeness::Named);
    }
    let Some(made_on) = &header.device else {
        let class = &header.caps;
        return if contains(&adapter.caps, class) {
            Ok(Closeness::Generic(class.subgroup_min, class.f16))
        } else {
            Err(format!("needs a device of class {}, this one is {}", header.class, adapter.caps.class()))
        };
    };
    let found = mismatches(header, adapter);
    let hard: Vec<String> = found.iter().filter(|m| m.is_hard()).map(ToString::to_string).collect();
    if !hard.is_empty() {
        return Err(format!(
            "(tuned on {}) is not used: it {}; run `wgforge autotune`",
            made_on.name,
            hard.join(", it ")
        ));
    }
    let other = |m: &Mismatch| {
        matches!(m, Mismatch::Device { .. } | Mismatch::Driver { .. } | Mismatch::Backend { .. })
    };
    Ok(if found.iter().any(other) { Closeness::Vendor } else { Closeness::Adapter })
}

fn explain(closeness: &Closeness, candidate: &Candidate) -> String {
    let header = &candidate.database.header;
    let made_on = header.device.as_ref().map_or("", |d| &d.name);
    match closeness {
        Closeness::Named => "named on the command line".into(),
        Closeness::Adapter => format!("tuned on this {made_on} with this driver"),
        Closeness::Vendor => {
            format!("tuned on {made_on}, the same vendor and class ({}) as this device", header.class)
        }
        Closeness::Generic(..) => {
            format!("untuned defaults for class {}", header.class)
        }
    }
}

/// Leaves out what this device cannot run and what the templates no longer render as it was. Nothing waits for
/// others because that was good on another card.
fn usable(
    candidate: &Candidate,
    caps: &Caps,
    notes: &mut Vec<String>,
    mismatches: &mut Vec<Mismatch>,
) -> Result<Database, Error> {
    let header = &candidate.database.header;
    let mut database = Database::new(header.caps.clone(), header.device.clone(), header.wgpu.clone());
    let mut stale = 0;
    let elsewhere = candidate.origin != Origin::Named
        && mismatches.iter().any(|m| matches!(m, Mismatch::Device { .. } | Mismatch::Backend { .. }));
    for entry in candidate.database.entries() {
        if let Some(reason) = entry.variant.why_not(caps) {
            notes.push(format!("{}: {} left out: {reason}", candidate.name, entry.variant.kernel()));
        } else if entry.stale()? {
            stale += 1;
        } else if elsewhere && entry.variant.waits() {
            if let Some(variant) = entry.variant.without_waiting() {
                let wgsl_hash = native_hash(&variant)?;
                database.insert(Entry { variant, wgsl_hash, timing: None });
            } else {
                let kernel = entry.variant.kernel();
                notes.push(format!(
                    "{}: {kernel} left out: its workgroups wait for each other, and how many run side by side here nobody has tuned",
                    candidate.name
                ));
            }
        } else {
            database.insert(entry.clone());
        }
    }
    if stale > 0 {
        mismatches.push(Mismatch::Wgsl { entries: stale });
        notes.push(format!(
            "{}: {stale} kernels left out: their templates changed since tuning",
            candidate.name
        ));
    }
    database.header.codegen.clone_from(&header.codegen);
    database.header.features.clone_from(&header.features);
    Ok(database)
}

/// Chooses for an adapter: what the user named, what was tuned on this very adapter (the user's
/// own before embedded), the same vendor and class, the defaults of the nearest class.
///
/// Nothing that differs is overlooked: a hard [`Mismatch`] excludes a database, unless the user
/// named it, and a soft one is a note; another card, driver or API counts no more than as one of
/// the same vendor. Entries whose hash differs are left out.
///
/// # Errors
/// [`Error::NothingFits`] with a reason for each candidate.
pub fn select(adapter: &AdapterReport, candidates: Vec<Candidate>) -> Result<Selection, Error> {
    let mut notes = Vec::new();
    let (mut ranked, mut lost) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match closeness(&candidate, adapter) {
            Ok(close) => ranked.push((close, candidate)),
            Err(reason) => notes.push(format!("{} {reason}", candidate.name)),
        }
    }
    // Stable: at equal rank the order given decides.
    ranked.sort_by(|(a, x), (b, y)| (b, y.origin).cmp(&(a, x.origin)));
    for (close, candidate) in ranked {
        let mut found = mismatches(&candidate.database.header, adapter);
        let database = usable(&candidate, &adapter.caps, &mut notes, &mut found)?;
        if database.entries().is_empty() {
            let note = format!("{} has nothing this device can use", candidate.name);
            lost.extend((candidate.origin == Origin::Cache).then(|| note.clone()));
            notes.push(note);
            continue;
        }
        let why = format!("{}: {}", candidate.name, explain(&close, &candidate));
        for mismatch in found.iter().filter(|m| !matches!(m, Mismatch::Wgsl { .. })) {
            let then = if mismatch.is_hard() { "named, so taken all the same" } else { "used all the same" };
            notes.push(format!(
                "{} {mismatch}; {then}; `wgforge autotune` tunes for this device",
                candidate.name
            ));
        }
        let (name, origin) = (candidate.name, candidate.origin);
        return Ok(Selection { database, name, origin, why, notes, lost, mismatches: found });
    }
    Err(Error::NothingFits(notes.join("\n")))
}

/// The defaults of the nearest class a device contains; where it contains none, all of them, each
/// with its reason. Reading them all takes 45 ms, at every start of a program.
fn nearest_defaults(caps: &Caps) -> Result<Vec<(&'static str, Database)>, Error> {
    let classes = generic::classes().into_iter().zip(generic::FILES);
    let fitting = classes.filter(|(class, _)| contains(caps, class));
    match fitting.max_by_key(|(class, _)| (class.subgroup_min, class.f16)) {
        Some((_, (name, text))) => Ok(vec![(name, Database::parse(name, text)?)]),
        None => Ok(generic::databases()?),
    }
}

/// Chooses among the cache folder, the embedded databases of devices and the embedded defaults.
///
/// # Errors
/// As [`select`]; files in the cache that cannot be read are notes, not errors.
pub fn for_adapter(adapter: &AdapterReport) -> Result<Selection, Error> {
    let mut candidates = Vec::new();
    let mut notes = Vec::new();
    match cache_folder().and_then(|folder| load_folder(&folder)) {
        Ok((loaded, unread)) => {
            notes.extend(unread);
            candidates.extend(loaded.into_iter().map(|(path, database)| {
                let name = path.display().to_string();
                Candidate { name, origin: Origin::Cache, database }
            }));
        }
        Err(e) => notes.push(e.to_string()),
    }
    for (name, database) in devices::databases()?.into_iter().chain(nearest_defaults(&adapter.caps)?) {
        candidates.push(Candidate { name: name.into(), origin: Origin::Embedded, database });
    }
    let mut selection = select(adapter, candidates)?;
    selection.lost.splice(0..0, notes.iter().cloned());
    selection.notes.splice(0..0, notes);
    Ok(selection)
}
