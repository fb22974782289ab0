//! The tuner in one call, for programs with kernels of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pollster::block_on;
use wgforge_codegen::{Database, Families, Workload};
use wgforge_runtime::Device;

use crate::{Conditions, Error, Event, Evidence, Lock, Mode, Request, Session, html, store, tune};

/// Never set: what watches where nobody gave a flag.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Who is told what happens.
type Observer<'a> = Box<dyn FnMut(&Event<'_>) + 'a>;

/// A session to be set up: [`Tuner::new`], what differs from the defaults, [`Tuner::tune`].
///
/// By default it looks as hard as [`Mode::Full`], for ten minutes at most, from a seed drawn at
/// random, and says on standard error how it goes. It keeps no evidence file, so that a session
/// that is killed leaves nothing.
#[must_use = "nothing happens before `tune`"]
pub struct Tuner<'a> {
    device: &'a Device,
    families: Families,
    mode: Mode,
    budget: Duration,
    seed: Option<u64>,
    before: Option<&'a Database>,
    evidence: Option<PathBuf>,
    report: Option<PathBuf>,
    observer: Option<Observer<'a>>,
    stop: &'a AtomicBool,
}

impl fmt::Debug for Tuner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuner")
            .field("mode", &self.mode)
            .field("budget", &self.budget)
            .field("seed", &self.seed)
            .field("evidence", &self.evidence)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl<'a> Tuner<'a> {
    /// A session on `device`, which nothing else should use meanwhile.
    pub fn new(device: &'a Device) -> Self {
        Self {
            device,
            families: Families::builtin(),
            mode: Mode::Full,
            budget: Duration::from_secs(600),
            seed: None,
            before: None,
            evidence: None,
            report: None,
            observer: None,
            stop: &NEVER,
        }
    }

    /// The families an [evidence file](Self::evidence) may name. Workloads bring their own, so
    /// without such a file there is no need to say it.
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// How thorough to be.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// All the time there is. Workloads that it does not suffice for are left out of the result.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Seed of inputs and search; without one it differs from session to session.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// What is in use now and stays unless another is better by more than chance; without it, or
    /// where it has nothing for a workload, the generic configuration.
    pub fn before(mut self, database: &'a Database) -> Self {
        self.before = Some(database);
        self
    }

    /// A file for every candidate's outcome, as JSON lines. A session that was killed goes on from
    /// there, and two sessions with one file exclude each other.
    pub fn evidence(mut self, file: impl Into<PathBuf>) -> Self {
        self.evidence = Some(file.into());
        self
    }

    /// A file for a page that shows all candidates' times.
    pub fn report(mut self, file: impl Into<PathBuf>) -> Self {
        self.report = Some(file.into());
        self
    }

    /// Who is told what happens, instead of standard error.
    pub fn observer(mut self, observer: impl FnMut(&Event<'_>) + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Ends the session early, with what it has, when `flag` is set.
    pub fn stop(mut self, flag: &'a AtomicBool) -> Self {
        self.stop = flag;
        self
    }

    /// Tunes and returns the winners for this device.
    ///
    /// # Errors
    /// As [`Tuner::session`]; [`Error::NothingTuned`] where no workload has a winner.
    pub fn tune(self, workloads: &[Workload]) -> Result<Database, Error> {
        let device = self.device;
        let session = self.session(workloads)?;
        if session.settled.is_empty() {
            let why: BTreeSet<&str> = session.left.iter().map(|(_, why)| why.as_str()).collect();
            let why = why.into_iter().collect::<Vec<_>>().join("; ");
            return Err(Error::NothingTuned(if why.is_empty() {
                "there are no workloads".into()
            } else {
                why
            }));
        }
        Ok(session.database(device, &[]))
    }

    /// Tunes and returns all that was found out.
    ///
    /// # Errors
    /// A device that fails as a whole, a file that cannot be written, [`Error::Locked`] where another
    /// program writes the same evidence.
    pub fn session(self, workloads: &[Workload]) -> Result<Session, Error> {
        let Self { device, families, mode, budget, before, report, stop, .. } = self;
        let seed = self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
        let conditions = Conditions::of(device.report(), mode, seed);
        let _lock = self.evidence.as_deref().map(Lock::acquire).transpose()?;
        let (mut evidence, resumed) = match &self.evidence {
            Some(file) => Evidence::open(file, &conditions, &families, false)?,
            None => (Evidence::none(), Vec::new()),
        };
        let request = Request {
            workloads: workloads.to_vec(),
            before: &|w| before.and_then(|database| database.get(w)).map(|entry| entry.variant.clone()),
            mode,
            budget,
            seed,
            resumed,
        };
        let mut observer = self.observer.unwrap_or_else(|| Box::new(lines));
        let session = block_on(tune(device, &request, &mut evidence, &mut *observer, stop))?;
        if let Some(file) = report {
            save_report(&file, device, &session, mode, seed)?;
        }
        if !session.stopped {
            evidence.end()?;
        }
        Ok(session)
    }
}

/// A workload as messages name it.
fn name(workload: &Workload) -> String {
    format!("{} {}", workload.kernel(), workload.shape_json())
}

/// Says on standard error what happens, a line each.
fn lines(event: &Event<'_>) {
    match event {
        Event::Roofline(roofline) => eprintln!("{}", roofline.describe()),
        Event::Begin { index, count, workload } => eprintln!("{} of {count}: {}", index + 1, name(workload)),
        Event::Tried { .. } => {}
        Event::Refused { config, reason, .. } => eprintln!("  refused: {config}: {reason}"),
        Event::Alarm(text) => eprintln!("  WARNING: {text}"),
        Event::Settled(one) => eprintln!(
            "  {:.2} us, {:.2} times as fast as before, {} candidates: {}",
            one.winner.us.median,
            one.speedup(),
            one.records.len(),
            one.winner.config
        ),
        Event::Left(workload, why) => eprintln!("  {} is left as it was: {why}", name(workload)),
    }
}

fn save_report(file: &Path, device: &Device, session: &Session, mode: Mode, seed: u64) -> Result<(), Error> {
    let report = device.report();
    let about = [
        ("adapter", report.to_string()),
        ("driver", format!("{} {}", report.driver, report.driver_info)),
        ("device", session.roofline.describe()),
        ("clock", format!("{:?}", session.clock)),
        ("mode", format!("{}, seed {seed}", mode.name())),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let left: Vec<(String, String)> = session.left.iter().map(|(w, why)| (name(w), why.clone())).collect();
    store::write_whole(file, html(&about, &session.settled, &left, &[]).as_bytes())
}
