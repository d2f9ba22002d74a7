//! JSON files, read as a stream: what is not wanted of them is never held.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::file_error::{FileError, Result};

/// Bytes of a file beyond which it is not read: the largest published one has a tenth of it.
const MOST_BYTES: u64 = 4 << 30;

/// What a JSON file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// `[`.
    List,
    /// `{`.
    Object,
}

fn open(path: &Path) -> Result<BufReader<std::io::Take<File>>> {
    let unreadable = |error| FileError::unreadable(path, error);
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(FileError::unusable(path, "is no file: a folder, or a pipe, which cannot be read twice"));
    }
    if about.len() > MOST_BYTES {
        return Err(FileError::unusable(path, format!("has more than {MOST_BYTES} bytes")));
    }
    Ok(BufReader::with_capacity(1 << 16, file.take(MOST_BYTES)))
}

/// What a file begins with.
///
/// # Errors
/// A file that cannot be read, or that begins with something else.
pub(crate) fn opening(path: &Path) -> Result<Opening> {
    let mut reader = open(path)?;
    loop {
        let ahead = reader.fill_buf().map_err(|error| FileError::unreadable(path, error))?;
        let length = ahead.len();
        let first = ahead.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            Some(b'[') => return Ok(Opening::List),
            Some(b'{') => return Ok(Opening::Object),
            None if length > 0 => reader.consume(length),
            _ => return Err(FileError::unusable(path, "is no JSON list and no JSON object")),
        }
    }
}

/// The file's JSON.
///
/// # Errors
/// A file that cannot be read, or that is not of this form: with line and column.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_reader(open(path)?).map_err(|error| match error.is_io() {
        true => FileError::unreadable(path, error.into()),
        false => FileError::unusable(path, error.to_string()),
    })
}
