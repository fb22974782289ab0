//! Everything a tuning session found out, as JSON lines beside its database: one line a candidate,
//! one a settled workload. What makes a killed run resumable, and a result arguable.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wgforge_codegen::{Families, Target, Variant, Workload};
use wgforge_runtime::AdapterReport;

use crate::{
    DeviceId, Error, Mode, WGPU,
    call::Call,
    device_id,
    roofline::Roofline,
    search::{Ended, Trial},
    stats::Summary,
};

/// A session's conditions; lines of another one are not resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The adapter.
    pub device: DeviceId,
    /// Version of the kernels' crate.
    pub codegen: String,
    /// Version of wgpu.
    pub wgpu: String,
    /// `quick` or `full`: a quick result does not stand for a full one.
    pub mode: String,
    /// Seed of the inputs and of the search.
    pub seed: u64,
}

impl Conditions {
    /// Those of this program on an adapter.
    pub fn of(adapter: &AdapterReport, mode: Mode, seed: u64) -> Self {
        Self {
            device: device_id(adapter),
            codegen: env!("CARGO_PKG_VERSION").into(),
            wgpu: WGPU.into(),
            mode: mode.name().into(),
            seed,
        }
    }

    /// Whether results under `other` may stand for results under these. Seeds may differ.
    pub fn agree(&self, other: &Self) -> bool {
        Self { seed: 0, ..self.clone() } == Self { seed: 0, ..other.clone() }
    }
}

/// One configuration of a workload with its times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The configuration.
    pub config: Value,
    /// Hash of its text.
    pub wgsl_hash: String,
    /// Dependent time, µs, with the dispatches that must follow it.
    pub us: Summary,
    /// Time where dispatches may overlap, µs, without followers; `None` where not measured.
    pub independent_us: Option<f64>,
}

/// A candidate's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The configuration.
    pub config: Value,
    /// Hash of its text, where it rendered.
    pub wgsl_hash: Option<String>,
    /// `proven`, or the stage that refused it: `render`, `compile`, `wrong`, `fails`.
    pub outcome: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// µs.
    pub samples: Vec<f64>,
}

impl Record {
    pub(crate) fn of(trial: &Trial, config: Value, wgsl_hash: Option<String>) -> Self {
        Self {
            config,
            wgsl_hash,
            outcome: trial.rejected.as_ref().map_or("proven", |r| r.stage()).into(),
            reason: trial.rejected.as_ref().map(ToString::to_string),
            samples: trial.samples.clone(),
        }
    }
}

/// A workload the search is done with. Files name the workload (`W` is a private form): which families
/// there are is known to their reader only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled<W = Workload> {
    /// What is computed.
    pub workload: W,
    /// Tokens of the timed call.
    pub tokens: u32,
    /// Position of its first token.
    pub position: u32,
    /// Bytes it must move.
    pub bytes: u64,
    /// Operations it must do.
    pub ops: u64,
    /// The least time by the roofline, µs.
    pub bound_us: f64,
    /// What was used so far; `None` where that cannot run here.
    pub before: Option<Measured>,
    /// The configuration for devices nobody has tuned, likewise.
    pub generic: Option<Measured>,
    /// What to use.
    pub winner: Measured,
    /// The next best.
    pub runner_up: Option<Measured>,
    /// Why the search ended.
    pub ended: String,
    /// All candidates tried; in files they have lines of their own.
    #[serde(skip)]
    pub records: Vec<Record>,
}

/// A workload as it stands in files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Named {
    /// The family.
    kernel: String,
    /// The shape.
    pub shape: Value,
}

impl Named {
    fn of(workload: &Workload) -> Self {
        // Made from plain data, so it parses.
        let shape = serde_json::from_str(&workload.shape_json()).unwrap_or_default();
        Self { kernel: workload.kernel().into(), shape }
    }

    fn workload(&self, families: &Families) -> Option<Workload> {
        Workload::parse_with(families, &self.kernel, self.shape.clone()).ok()
    }
}

impl<W> Settled<W> {
    /// The same about a workload in another form.
    fn about<V>(self, workload: V) -> Settled<V> {
        let Self { tokens, position, bytes, ops, bound_us, before, generic, winner, runner_up, .. } = self;
        let Self { ended, records, .. } = self;
        Settled {
            workload,
            tokens,
            position,
            bytes,
            ops,
            bound_us,
            before,
            generic,
            winner,
            runner_up,
            ended,
            records,
        }
    }
}

impl Settled {
    /// The winner with its workload; `None` if the file was not written by this version.
    pub fn variant(&self) -> Option<Variant> {
        self.workload.with_config(self.winner.config.clone()).ok()
    }

    /// Whether the winner is another configuration than before.
    pub fn changed(&self) -> bool {
        self.before.as_ref().is_none_or(|b| b.config != self.winner.config)
    }

    /// The call it was timed for.
    pub fn call(&self) -> Call {
        Call { tokens: self.tokens, position: self.position }
    }

    /// Bytes moved a second at the winner's dependent time, GB.
    pub fn gb_s(&self) -> f64 {
        self.bytes as f64 / self.winner.us.median / 1e3
    }

    /// Operations a second likewise, 10^12.
    pub fn tflop_s(&self) -> f64 {
        self.ops as f64 / self.winner.us.median / 1e6
    }

    /// The bound over the winner's time: 1 is as fast as can be.
    pub fn fraction(&self) -> f64 {
        self.bound_us / self.winner.us.median
    }

    /// The winner over what was there before.
    pub fn speedup(&self) -> f64 {
        self.before.as_ref().map_or(1.0, |b| b.us.median / self.winner.us.median)
    }

    /// Whether the winner still renders the text that was timed.
    fn current(&self) -> bool {
        let hash = self.variant().and_then(|v| v.render(Target::Native).ok()).map(|r| r.hash);
        hash.is_some_and(|h| h == self.winner.wgsl_hash)
    }
}

/// The word for the end of a search.
pub(crate) fn ended(ended: Ended) -> String {
    match ended {
        Ended::Exhausted => "all candidates tried",
        Ended::Enough => "as many tried as asked for",
        Ended::Bound => "the roofline is reached",
        Ended::Interrupted => "time was up",
    }
    .into()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    Begin { schema: u32, conditions: Conditions },
    Roofline { roofline: Roofline },
    Candidate { workload: Named, record: Record },
    Settled { settled: Box<Settled<Named>> },
    End,
}

/// The layout of the lines.
const SCHEMA: u32 = 1;

/// An open evidence file.
#[derive(Debug)]
pub struct Evidence {
    path: PathBuf,
    file: Option<File>,
}

impl Evidence {
    /// Opens `path` for a session. Returns what a killed run under the same conditions had
    /// settled and whose text is unchanged; unless `fresh`. The file of a finished run, or of
    /// other conditions, is begun anew and kept as `NAME.previous`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(
        path: &Path,
        conditions: &Conditions,
        families: &Families,
        fresh: bool,
    ) -> Result<(Self, Vec<Settled>), Error> {
        let fail = |source| Error::File { path: path.into(), source };
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let resumed = if fresh { None } else { read(path, conditions, families) };
        match resumed {
            Some(settled) if !settled.is_empty() => {
                let mut file = OpenOptions::new().append(true).open(path).map_err(fail)?;
                // A line that was cut in the middle must not swallow the next one.
                file.write_all(b"\n").map_err(fail)?;
                Ok((Self { path: path.into(), file: Some(file) }, settled))
            }
            _ => {
                if path.exists() {
                    let mut kept = path.as_os_str().to_owned();
                    kept.push(".previous");
                    fs::rename(path, kept).map_err(fail)?;
                }
                let file = File::create(path).map_err(fail)?;
                let mut evidence = Self { path: path.into(), file: Some(file) };
                evidence.line(&Line::Begin { schema: SCHEMA, conditions: conditions.clone() })?;
                Ok((evidence, Vec::new()))
            }
        }
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self { path: PathBuf::new(), file: None }
    }

    fn line(&mut self, line: &Line) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Records the device's rates.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn roofline(&mut self, roofline: Roofline) -> Result<(), Error> {
        self.line(&Line::Roofline { roofline })
    }

    /// Records a workload with all its candidates.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn settled(&mut self, settled: &Settled) -> Result<(), Error> {
        for record in &settled.records {
            self.line(&Line::Candidate { workload: Named::of(&settled.workload), record: record.clone() })?;
        }
        let named = settled.clone().about(Named::of(&settled.workload));
        self.line(&Line::Settled { settled: Box::new(named) })
    }

    /// Records candidates of a workload of which none could be used.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn rejected(&mut self, workload: &Workload, records: &[Record]) -> Result<(), Error> {
        records.iter().try_for_each(|record| {
            self.line(&Line::Candidate { workload: Named::of(workload), record: record.clone() })
        })
    }

    /// Says that the session came to its end: the next one starts anew.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn end(&mut self) -> Result<(), Error> {
        self.line(&Line::End)?;
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// The file; empty where nothing is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What an unfinished session settled; `None` where there is no such session. Lines that are cut
/// or of a later version are passed over.
fn read(path: &Path, conditions: &Conditions, families: &Families) -> Option<Vec<Settled>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok());
    match lines.next()? {
        Line::Begin { schema: SCHEMA, conditions: then } if conditions.agree(&then) => {}
        _ => return None,
    }
    let (mut settled, mut records): (Vec<Settled>, Vec<(Named, Record)>) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::End => return None,
            Line::Candidate { workload, record } => records.push((workload, record)),
            Line::Settled { settled: mut s } => {
                s.records =
                    records.iter().filter(|(w, _)| *w == s.workload).map(|(_, r)| r.clone()).collect();
                let Some(workload) = s.workload.workload(families) else { continue };
                settled.retain(|old| old.workload != workload);
                settled.push(s.about(workload));
            }
            Line::Begin { .. } | Line::Roofline { .. } => {}
        }
    }
    settled.retain(Settled::current);
    Some(settled)
}
