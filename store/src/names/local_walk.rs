//! Files of this machine's disks by name and pattern, read from the folders themselves: a link that leads
//! nowhere is an error, where a store's listing leaves it out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::braces;
use super::pattern::{
    MATCHING, compile, empty_folder, has_ending, is_data_folder, is_pattern, is_reject_list,
};
use crate::error::{Result, StoreError};

/// What a name or pattern stands for.
#[derive(Debug)]
pub(crate) enum Walked {
    /// Files.
    Found(Vec<PathBuf>),
    /// A name that nothing has.
    Missing(PathBuf),
    /// A pattern that nothing matches.
    NoMatch,
}

/// A path as the segments that are meant literally (they exist, or have no character of patterns), and the
/// rest.
pub(crate) fn split(path: &str) -> (PathBuf, &str) {
    let root = if path.starts_with('/') { "/" } else { "" };
    split_below(Path::new(root), path.trim_start_matches('/'))
}

/// The file of this name, or the files of the folder of this name.
pub(crate) fn named(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    match kind(path)? {
        Kind::File => Ok(vec![path.to_owned()]),
        Kind::Folder => in_folder(path, endings),
        Kind::Other => Err(StoreError::Location {
            location: path.display().to_string(),
            reason: "it is neither a file nor a folder".to_owned(),
        }),
    }
}

/// The files below `folder` that one pattern without braces matches.
pub(crate) fn matching(folder: &Path, pattern: &str, endings: &[&str]) -> Result<Walked> {
    let (literal, rest) = split_below(folder, pattern);
    if rest.is_empty() {
        return match fs::symlink_metadata(&literal) {
            Ok(_) => Ok(Walked::Found(named(&literal, endings)?)),
            Err(_) => Ok(Walked::Missing(literal)),
        };
    }
    let mut found = Matches::default();
    walk(&literal, rest.trim_end_matches('/'), &mut Vec::new(), &mut found)?;
    let mut files = found.files;
    if files.is_empty() {
        // Folders alone are matched: what they stand for is meant, as far as they stand for something.
        for folder in found.folders {
            match in_folder(&folder, endings) {
                Ok(inside) => files.extend(inside),
                Err(StoreError::EmptyFolder { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    files.retain(|path| !path.to_str().is_some_and(is_reject_list));
    files.sort();
    files.dedup();
    Ok(if files.is_empty() { Walked::NoMatch } else { Walked::Found(files) })
}

fn split_below<'a>(folder: &Path, pattern: &'a str) -> (PathBuf, &'a str) {
    let mut literal = folder.to_owned();
    let mut rest = pattern;
    while !rest.is_empty() {
        let (segment, behind) = rest.split_once('/').unwrap_or((rest, ""));
        let place = literal.join(segment);
        let is_pattern = is_pattern(segment) || braces::begin_within(rest, segment.len());
        if is_pattern && fs::symlink_metadata(&place).is_err() {
            break;
        }
        literal = place;
        rest = behind.trim_start_matches('/');
    }
    (literal, rest)
}

#[derive(Debug, Default)]
struct Matches {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// Goes down a pattern. `above` are the folders gone through, so that a link to one of them is no endless
/// way.
fn walk(folder: &Path, pattern: &str, above: &mut Vec<PathBuf>, found: &mut Matches) -> Result<()> {
    let (segment, rest) = pattern.split_once('/').unwrap_or((pattern, ""));
    let entries = entries(folder)?;
    if segment == "**" {
        // Nothing in between, or one folder more.
        let here = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        if above.contains(&here) {
            return Ok(());
        }
        above.push(here);
        match rest {
            "" => walk(folder, "*", above, found)?,
            rest => walk(folder, rest, above, found)?,
        }
        for (name, path) in &entries {
            if !name.starts_with('.') && kind(path).is_ok_and(|kind| kind == Kind::Folder) {
                walk(path, pattern, above, found)?;
            }
        }
        above.pop();
        return Ok(());
    }
    let compiled = compile(segment)?;
    for (name, path) in &entries {
        if name != segment && !compiled.matches_with(name, MATCHING) {
            continue;
        }
        match (kind(path)?, rest) {
            (Kind::File, "") => found.files.push(path.clone()),
            (Kind::Folder, "") => found.folders.push(path.clone()),
            (Kind::Folder, rest) => walk(path, rest, above, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// The files of a folder with one of these endings; those below it if it has none itself.
fn in_folder(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, path) in entries(folder)? {
        if has_ending(&name, endings) && kind(&path)? == Kind::File {
            files.push(path);
        }
    }
    if files.is_empty() {
        let is_wanted = |name: &str| has_ending(name, endings);
        below(folder, (&is_wanted, &is_data_folder), &mut Vec::new(), &mut files)?;
    }
    match files.is_empty() {
        true => Err(empty_folder(folder.display().to_string(), endings)),
        false => Ok(files),
    }
}

/// All files below a folder but hidden ones, sorted.
pub(crate) fn all_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let is_shown = |name: &str| !name.starts_with('.');
    below(folder, (&is_shown, &is_shown), &mut Vec::new(), &mut files)?;
    files.sort();
    Ok(files)
}

/// Whether a name is that of a file, and of a folder, that is looked for.
type Wanted<'a> = (&'a dyn Fn(&str) -> bool, &'a dyn Fn(&str) -> bool);

fn below(
    folder: &Path,
    wanted: Wanted<'_>,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let here = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    if above.contains(&here) {
        return Ok(());
    }
    above.push(here);
    for (name, path) in entries(folder)? {
        let (is_file, is_folder) = (wanted.0(&name), wanted.1(&name));
        match kind(&path) {
            Ok(Kind::Folder) if is_folder => below(&path, wanted, above, files)?,
            Ok(Kind::File) if is_file => files.push(path),
            Err(error) if is_file => return Err(error),
            _ => {}
        }
    }
    above.pop();
    Ok(())
}

/// Names and paths in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { location: place.display().to_string() },
        _ => StoreError::Failed {
            location: place.display().to_string(),
            action: "list",
            reason: error.to_string(),
        },
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(place).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if is_unfinished(&name.to_string_lossy()) {
            continue;
        }
        names.push((name.to_string_lossy().into_owned(), folder.join(name)));
    }
    names.sort();
    Ok(names)
}

/// Whether a name is that of a file which a store's client was writing when it was killed: `part.parquet#1`.
fn is_unfinished(name: &str) -> bool {
    let number = name.split_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    /// A pipe, a device.
    Other,
}

/// What is at a path, links followed.
fn kind(path: &Path) -> Result<Kind> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Kind::File),
        Ok(found) if found.is_dir() => Ok(Kind::Folder),
        Ok(_) => Ok(Kind::Other),
        Err(error) => match fs::read_link(path) {
            Ok(target) => Err(StoreError::DanglingLink {
                link: path.display().to_string(),
                target: target.display().to_string(),
            }),
            Err(_) => Err(StoreError::Failed {
                location: path.display().to_string(),
                action: "read",
                reason: error.to_string(),
            }),
        },
    }
}
