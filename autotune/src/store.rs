//! Databases as files. A file appears under its name complete or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use wgforge_codegen::{Database, DbError};

use crate::{DeviceId, Error};

/// Where a user's own databases are kept: `wgforge/tuned` in the system's cache folder.
///
/// # Errors
/// [`Error::NoCache`] where the system names no home folder.
pub fn cache_folder() -> Result<PathBuf, Error> {
    let base = etcetera::choose_base_strategy().map_err(|e| Error::NoCache(e.to_string()))?;
    Ok(base.cache_dir().join("wgforge").join("tuned"))
}

/// The file name for an adapter's database: readable, and distinct for another driver or API.
pub fn file_name(device: &DeviceId) -> String {
    let words = format!("{} {} {:x} {:x}", device.name, device.backend, device.vendor, device.device);
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
    let fail = |source: io::Error| Error::File { path: path.into(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(database.to_toml().as_bytes()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Reads a database; entries this version cannot use are left out and returned beside it.
///
/// # Errors
/// [`Error::File`], or [`Error::Database`] where the file is no database of this version.
pub fn load(path: &Path) -> Result<(Database, Vec<DbError>), Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    Ok(Database::parse_lenient(&path.display().to_string(), &text)?)
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
        match load(&path) {
            Ok((database, mistakes)) => {
                notes.extend(mistakes.iter().map(ToString::to_string));
                loaded.push((path, database));
            }
            Err(e) => notes.push(e.to_string()),
        }
    }
    Ok((loaded, notes))
}
