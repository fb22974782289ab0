//! Databases as files. A file appears under its name complete or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

#[cfg(not(target_arch = "wasm32"))]
use etcetera::BaseStrategy;
use wgforge_codegen::{Database, DbError, Families, Workload};

use crate::{DeviceId, Error};

/// Where a user's own databases are kept: `wgforge/tuned` in the system's cache folder.
///
/// # Errors
/// [`Error::NoCache`] where the system names no home folder.
#[cfg(not(target_arch = "wasm32"))]
pub fn cache_folder() -> Result<PathBuf, Error> {
    let base = etcetera::choose_base_strategy().map_err(|e| Error::NoCache(e.to_string()))?;
    Ok(base.cache_dir().join("wgforge").join("tuned"))
}

/// A browser has no folders; what it keeps is the page's business.
///
/// # Errors
/// [`Error::NoCache`], always.
#[cfg(target_arch = "wasm32")]
pub fn cache_folder() -> Result<PathBuf, Error> {
    Err(Error::NoCache("this is a browser".into()))
}

/// The file name for an adapter's database: readable, and distinct for another API and another
/// class, so that what is tuned without f16 does not take the place of what is tuned with it.
/// Another driver's results have the same name: [`save_merged`] keeps the outdated ones. With no
/// class it is the name for what concerns the whole device, such as its [`Lock`].
pub fn file_name(device: &DeviceId, class: &str) -> String {
    let DeviceId { name, backend, vendor, device, .. } = device;
    let words = format!("{name} {backend} {vendor:x} {device:x} {class}");
    let mut name = String::new();
    for c in words.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
    }
    format!("{}.toml", name.trim_end_matches('-'))
}

/// Writes a database: into a temporary file beside `path`, which is then renamed. Makes the folder
/// where it is missing.
///
/// # Errors
/// [`Error::File`]; `path` is then as it was.
pub fn save(database: &Database, path: &Path) -> Result<(), Error> {
    write_whole(path, database.to_toml().as_bytes())
}

/// Writes a file whole or not at all, as [`save`] does.
#[cfg(target_arch = "wasm32")]
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::File { path: path.into(), source })
}

/// Writes a file whole or not at all, as [`save`] does.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let fail = |source: io::Error| Error::File { path: path.into(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Reads a database; entries this version cannot use are left out and returned beside it.
///
/// # Errors
/// [`Error::File`], or [`Error::Database`] where the file is no database of this version.
pub fn load(path: &Path) -> Result<(Database, Vec<DbError>), Error> {
    load_with(&Families::builtin(), path)
}

/// As [`load`], with kernels of other crates.
///
/// # Errors
/// As [`load`].
pub fn load_with(families: &Families, path: &Path) -> Result<(Database, Vec<DbError>), Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    Ok(Database::parse_lenient_with(families, &path.display().to_string(), &text)?)
}

/// A file and what it holds.
pub type Loaded = (PathBuf, Database);

/// Reads every `.toml` file of a folder, in the order of their names. A folder that does not
/// exist is empty. What cannot be read is returned as text beside the rest: one bad file must not
/// keep a program from starting.
///
/// # Errors
/// [`Error::File`] where the folder exists and cannot be listed.
pub fn load_folder(folder: &Path) -> Result<(Vec<Loaded>, Vec<String>), Error> {
    load_folder_with(&Families::builtin(), folder)
}

/// As [`load_folder`], with kernels of other crates.
///
/// # Errors
/// As [`load_folder`].
pub fn load_folder_with(families: &Families, folder: &Path) -> Result<(Vec<Loaded>, Vec<String>), Error> {
    let fail = |source: io::Error| Error::File { path: folder.into(), source };
    let mut paths = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(fail)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(fail(e)),
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let (mut loaded, mut notes) = (Vec::new(), Vec::new());
    for path in paths {
        match load_with(families, &path) {
            Ok((database, mistakes)) => {
                notes.extend(mistakes.iter().map(ToString::to_string));
                loaded.push((path, database));
            }
            Err(e) => notes.push(e.to_string()),
        }
    }
    Ok((loaded, notes))
}

/// The right to tune one device's database. The system takes it back when the program ends,
/// however it ends.
#[derive(Debug)]
pub struct Lock {
    /// Holds the lock for as long as it is open.
    _file: File,
}

impl Lock {
    /// Locks the database at `path` by a file beside it, `NAME.lock`.
    ///
    /// # Errors
    /// [`Error::Locked`] with the holder's process number while another program tunes for the
    /// same file, [`Error::File`].
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        let at = beside(path, ".lock");
        let fail = |source: io::Error| Error::File { path: at.clone(), source };
        if let Some(folder) = at.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&at);
        let mut file = open.map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Windows lets nobody read a locked file; then the number stays unknown.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
                return Err(Error::Locked { path: path.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        write!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(Self { _file: file })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Moves a file to the first free name `NAME.WHY-N`.
fn aside(path: &Path, why: &str) -> Result<PathBuf, Error> {
    let free = (1..).map(|n| beside(path, &format!(".{why}-{n}"))).find(|p| !p.exists());
    let to = free.unwrap_or_else(|| beside(path, why));
    fs::rename(path, &to).map_err(|source| Error::File { path: path.into(), source })?;
    Ok(to)
}

/// Writes `new` over what `path` holds for the same device, entry by entry. A file that cannot be
/// read, or of whose entries some cannot, is kept as `NAME.broken-N`; one that was made under other
/// conditions (another driver, card or version) as `NAME.outdated-N`. Returns what to tell the user.
/// The caller holds the [`Lock`].
///
/// # Errors
/// [`Error::File`]; nothing is lost then.
pub fn save_merged(new: &Database, path: &Path) -> Result<Vec<String>, Error> {
    save_merged_with(&Families::builtin(), new, path)
}

/// As [`save_merged`], but what the file has for the workloads in `gone` does not stay either.
///
/// # Errors
/// As [`save_merged`].
pub fn save_merged_without(new: &Database, gone: &[Workload], path: &Path) -> Result<Vec<String>, Error> {
    merge(&Families::builtin(), new, gone, path)
}

/// As [`save_merged`], with kernels of other crates.
///
/// # Errors
/// As [`save_merged`].
pub fn save_merged_with(families: &Families, new: &Database, path: &Path) -> Result<Vec<String>, Error> {
    merge(families, new, &[], path)
}

fn merge(families: &Families, new: &Database, gone: &[Workload], path: &Path) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let mut merged = new.clone();
    match load_with(families, path) {
        Ok((old, mistakes)) => {
            let same = |h: &wgforge_codegen::db::Header| {
                (h.device.clone(), h.caps.clone(), h.codegen.clone(), h.wgpu.clone())
            };
            if same(&old.header) == same(&new.header) {
                for entry in old.entries() {
                    let workload = entry.variant.workload();
                    if new.get(&workload).is_none() && !gone.contains(&workload) {
                        merged.insert(entry.clone());
                    }
                }
                if !mistakes.is_empty() {
                    let to = aside(path, "broken")?;
                    let n = mistakes.len();
                    notes.push(format!(
                        "{}: {n} entries could not be read ({}); the file is kept as {}",
                        path.display(),
                        mistakes[0],
                        to.display()
                    ));
                }
            } else {
                let to = aside(path, "outdated")?;
                notes.push(format!(
                    "{}: made under other conditions (driver, device or version); kept as {}",
                    path.display(),
                    to.display()
                ));
            }
        }
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(Error::File { source, .. }) if source.kind() != io::ErrorKind::InvalidData => {
            return Err(Error::File { path: path.into(), source });
        }
        Err(error) => {
            let to = aside(path, "broken")?;
            notes.push(format!("a broken file was moved aside to {}: {error}", to.display()));
        }
    }
    save(&merged, path)?;
    Ok(notes)
}
