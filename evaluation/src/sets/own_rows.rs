//! Rows of one's own: CSV with a header, or JSON lines.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::file_error::{FileError, Result};

/// Names of columns, each with others of the same.
const IMAGE: &[&str] = &["image", "file_name", "image_path", "path"];
const CAPTION: &[&str] = &["caption", "captions", "text"];
const QUESTION: &[&str] = &["question"];
const ANSWER: &[&str] = &["answer", "answers"];
const QUESTION_ID: &[&str] = &["question_id", "id", "key"];
/// Bytes of a file beyond which it is not read.
const MOST_BYTES: u64 = 4 << 30;

/// A row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnRow {
    pub(super) image: String,
    pub(super) captions: Vec<String>,
    pub(super) question: Option<String>,
    pub(super) question_id: Option<String>,
    pub(super) answers: Vec<String>,
}

/// Whether a file is such a table, by its name.
pub(super) fn is_table(path: &str) -> bool {
    matches!(ending(path).as_str(), "csv" | "tsv" | "jsonl" | "ndjson")
}

fn ending(path: &str) -> String {
    path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
}

/// The rows of a file.
///
/// # Errors
/// A file that cannot be read, a line that is no row, and a row without an image: with its line.
pub(super) fn read(path: &Path) -> Result<Vec<OwnRow>> {
    let unreadable = |error| FileError::unreadable(path, error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() || about.len() > MOST_BYTES {
        return Err(FileError::unusable(path, format!("is no file of at most {MOST_BYTES} bytes")));
    }
    let reader = std::io::BufReader::new(file);
    let rows = match ending(&path.to_string_lossy()).as_str() {
        "csv" => of_table(path, reader, b',')?,
        "tsv" => of_table(path, reader, b'\t')?,
        _ => of_lines(path, reader)?,
    };
    if rows.is_empty() { Err(FileError::unusable(path, "has no rows")) } else { Ok(rows) }
}

fn of_table(path: &Path, reader: impl std::io::Read, separator: u8) -> Result<Vec<OwnRow>> {
    let wrong = |error: csv::Error| FileError::unusable(path, error.to_string());
    let mut table = csv::ReaderBuilder::new().delimiter(separator).from_reader(reader);
    let header: Vec<String> = table
        .headers()
        .map_err(wrong)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim().to_owned())
        .collect();
    let mut rows = Vec::new();
    for record in table.records() {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = header.iter().cloned().zip(record.iter().map(cell_texts)).collect();
        rows.push(row(path, line, cells)?);
    }
    Ok(rows)
}

/// One text, or those of a JSON list.
fn cell_texts(cell: &str) -> Vec<String> {
    let listed = cell.trim_start().starts_with('[').then(|| serde_json::from_str(cell).ok()).flatten();
    listed.unwrap_or_else(|| if cell.is_empty() { Vec::new() } else { vec![cell.to_owned()] })
}

fn of_lines(path: &Path, reader: impl std::io::BufRead) -> Result<Vec<OwnRow>> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line.map_err(|error| FileError::unreadable(path, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |reason: String| FileError::unusable(path, format!("line {number}: {reason}"));
        let read: BTreeMap<String, Value> =
            serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let cells = read.into_iter().map(|(name, value)| (name, value_texts(value))).collect();
        rows.push(row(path, number, cells)?);
    }
    Ok(rows)
}

/// Texts, numbers and lists of them; other values are none.
fn value_texts(value: Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text],
        Value::Number(number) => vec![number.to_string()],
        Value::Array(values) => values.into_iter().flat_map(value_texts).collect(),
        _ => Vec::new(),
    }
}

fn row(path: &Path, line: u64, mut cells: BTreeMap<String, Vec<String>>) -> Result<OwnRow> {
    let mut take = |names: &[&str]| names.iter().find_map(|name| cells.remove(*name)).unwrap_or_default();
    let image = take(IMAGE).into_iter().next();
    let row = OwnRow {
        captions: take(CAPTION),
        question: take(QUESTION).into_iter().next(),
        question_id: take(QUESTION_ID).into_iter().next(),
        answers: take(ANSWER),
        image: String::new(),
    };
    match image {
        Some(image) => Ok(OwnRow { image, ..row }),
        None => {
            let reason = format!("line {line}: has no image; a column is to be called `{}`", IMAGE[0]);
            Err(FileError::unusable(path, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str, content: &str) -> Result<Vec<OwnRow>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&path)
    }

    #[test]
    fn tables_and_lines_say_the_same() {
        let table = "image,question,answers\na.jpg,\"why, then?\",\"[\"\"x\"\", \"\"y\"\"]\"\nb.jpg,who?,z\n";
        let lines = concat!(
            r#"{"image": "a.jpg", "question": "why, then?", "answers": ["x", "y"]}"#,
            "\n\n",
            r#"{"image": "b.jpg", "question": "who?", "answer": "z"}"#
        );
        let rows = reading("rows.csv", table).unwrap();
        assert_eq!(rows, reading("rows.jsonl", lines).unwrap());
        assert_eq!((rows[0].answers.len(), rows[1].answers[0].as_str()), (2, "z"));
        let tabs = reading("rows.tsv", "file_name\tcaption\na.jpg\ta [red] dog\n").unwrap();
        assert_eq!(tabs[0].captions, ["a [red] dog"]);
    }

    #[test]
    fn what_is_no_row_is_named_with_its_line() {
        for (name, content, word) in [
            ("a.csv", "caption\nx\n", "line 2: has no image"),
            ("a.csv", "image,caption\nx\n", "line: 2"),
            ("a.csv", "image,caption\n", "no rows"),
            ("a.jsonl", "{\"image\": \"a\"}\n[1]\n", "line 2"),
        ] {
            let error = reading(name, content).unwrap_err().to_string();
            assert!(error.contains(word), "{content}: {error}");
        }
    }
}
