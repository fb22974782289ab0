//! The autotuner: the fastest proven configuration of each kernel on a device, where such results
//! are kept, the defaults for devices nobody has tuned, and the choice among them.
//!
//! [`tune`] takes workloads and a device. It measures what the device can do at best
//! ([`Roofline`]), and for each workload renders candidates, proves each against the CPU reference
//! ([`proofs`]), and times the proven ones interleaved, as a decoded token runs them: each
//! dispatch waits for the one before, on weights that no cache holds. [`search`](search::search)
//! decides which to try. All of it is kept as [`Evidence`]; [`html`] makes a page of it, and
//! [`confirm`] asks whether the winners make a whole program faster.
//!
//! [`Tuner`] is all of it in one call, for programs with kernels of their own:
//!
//! ```no_run
//! # fn example<MyKernel: wgforge_codegen::Kernel>(
//! #     workloads: &[wgforge_codegen::Workload],
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use wgforge_autotune::{Tuner, save};
//! use wgforge_codegen::Families;
//! use wgforge_runtime::{Device, DeviceOptions};
//!
//! let device = pollster::block_on(Device::request(&DeviceOptions::default()))?;
//! let database = Tuner::new(&device)
//!     .families(Families::builtin().with::<MyKernel>()?)
//!     .budget(Duration::from_secs(120))
//!     .evidence("tuned/mine.evidence.jsonl")
//!     .tune(workloads)?;
//! save(&database, "tuned/mine.toml".as_ref())?;
//! # Ok(())
//! # }
//! ```
//!
//! Which database a device gets:
//!
//! ```no_run
//! # fn example(adapter: &wgforge_runtime::AdapterReport) -> Result<(), wgforge_autotune::Error> {
//! let selection = wgforge_autotune::for_adapter(adapter)?;
//! println!("{}", selection.why);
//! for entry in selection.database.entries() {
//!     println!("{} {}", entry.variant.kernel(), entry.variant.config_json());
//! }
//! # Ok(())
//! # }
//! ```

mod bandwidth;
mod call;
mod candidates;
mod confirm;
mod coop;
pub mod devices;
mod evidence;
pub mod generic;
mod inputs;
mod keeper;
mod mismatch;
mod prove;
mod reference;
mod report;
mod roofline;
pub mod search;
mod select;
mod session;
mod simple;
pub mod stats;
mod store;
mod time;
mod tuner;

use std::path::PathBuf;

pub use bandwidth::read_gb_s;
pub use call::Call;
pub use confirm::{Confirmed, Group, Share, WORTH, confirm, ratios};
pub use evidence::{Conditions, Evidence, Measured, Record, Settled};
pub use mismatch::{Mismatch, WGPU, mismatches};
pub use prove::{Proof, Rejection, Shader, agrees, proofs, run};
pub use report::html;
pub use roofline::Roofline;
pub use select::{Candidate, Origin, Selection, device_id, for_adapter, select};
pub use simple::Tuner;
pub use store::{
    Loaded, Lock, cache_folder, file_name, load, load_folder, load_folder_with, load_with, save, save_merged,
    save_merged_with, save_merged_without,
};
pub use time::Clock;
pub use tuner::{Event, Mode, Request, Session, tune};
pub use wgforge_codegen::db::{
    Database, DbError, DbErrors, Detail, DeviceId, Entry, Header, RunnerUp, SCHEMA, Timing,
};

/// What can go wrong with databases as files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another program tunes for the same file.
    #[error(
        "{} is being tuned by another program (process {holder}); wait for it, or end it", path.display()
    )]
    Locked {
        /// The database.
        path: PathBuf,
        /// The other program's process number, as far as it is known.
        holder: String,
    },
    /// A file is not a database of this version.
    #[error(transparent)]
    Database(#[from] DbErrors),
    /// The system names no home folder, hence no cache folder.
    #[error("there is no cache folder, since the system names no home folder: {0}; name a file instead")]
    NoCache(String),
    /// The device fails as a whole.
    #[error(transparent)]
    Device(#[from] wgforge_runtime::Error),
    /// A template did not render.
    #[error(transparent)]
    Codegen(#[from] wgforge_codegen::Error),
    /// No workload of a session has a winner.
    #[error("not one kernel could be tuned: {0}")]
    NothingTuned(String),
    /// Not even the defaults can run.
    #[error("no database fits this device:\n{0}")]
    NothingFits(String),
}
