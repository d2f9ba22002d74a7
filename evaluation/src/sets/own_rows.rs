//! Rows of one's own: CSV with a header, or JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;
use serde_json::Value;

use crate::file_error::{FileError, Result};

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

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Image,
    Captions,
    Question,
    Answers,
    Key,
}

const ROLES: [Role; 5] = [Role::Image, Role::Captions, Role::Question, Role::Answers, Role::Key];

impl Role {
    /// Its key below `data.columns`.
    fn key(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Captions => "caption",
            Self::Question => "question",
            Self::Answers => "answers",
            Self::Key => "key",
        }
    }

    /// What its column is called where nobody says otherwise.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Image => &["image", "file_name", "image_path", "path"],
            Self::Captions => &["caption", "captions", "text"],
            Self::Question => &["question"],
            Self::Answers => &["answer", "answers"],
            Self::Key => &["question_id", "id", "key"],
        }
    }

    /// What `columns` calls it; none where that is the default of training, whose tables are others.
    fn named(self, columns: &ColumnNames) -> Vec<&str> {
        let defaults = ColumnNames::default();
        let pairs = match self {
            Self::Image => vec![(&columns.image, defaults.image)],
            Self::Captions => {
                vec![(&columns.captions, defaults.captions), (&columns.caption, defaults.caption)]
            }
            Self::Question => vec![(&columns.question, defaults.question)],
            Self::Answers => vec![(&columns.answers, defaults.answers)],
            Self::Key => vec![(&columns.key, defaults.key)],
        };
        let named = pairs.into_iter().filter(|(name, default)| !name.is_empty() && *name != default);
        named.map(|(name, _)| name.as_str()).collect()
    }
}

/// Finds the columns of rows.
struct Columns<'a> {
    names: &'a ColumnNames,
    /// Whether every row must have a question.
    asks: bool,
    /// Roles that no row had yet.
    missing: BTreeSet<Role>,
    /// Columns of the rows.
    seen: BTreeSet<String>,
}

impl<'a> Columns<'a> {
    fn new(names: &'a ColumnNames, asks: bool) -> Self {
        Self { names, asks, missing: ROLES.into_iter().collect(), seen: BTreeSet::new() }
    }

    /// The row of these cells.
    ///
    /// # Errors
    /// In words: no image, or no question where there must be one.
    fn row(&mut self, cells: &BTreeMap<String, Vec<String>>) -> Result<OwnRow, String> {
        self.seen.extend(cells.keys().filter(|name| !self.seen.contains(*name)).cloned().collect::<Vec<_>>());
        let mut take = |role: Role| {
            let named = role.named(self.names);
            let names = if named.is_empty() { role.usual() } else { &named[..] };
            let found = names.iter().find_map(|name| cells.get(*name));
            if found.is_some() {
                self.missing.remove(&role);
            }
            found.cloned().unwrap_or_default()
        };
        let [image, question, key] =
            [Role::Image, Role::Question, Role::Key].map(|role| take(role).into_iter().next());
        let (captions, answers) = (take(Role::Captions), take(Role::Answers));
        let image = image.ok_or_else(|| self.lacks(Role::Image))?;
        if self.asks && question.is_none() {
            return Err(self.lacks(Role::Question));
        }
        Ok(OwnRow { image, captions, question, question_id: key, answers })
    }

    /// What is wrong where a row has nothing of a role.
    fn lacks(&self, role: Role) -> String {
        let key = role.key();
        if !self.missing.contains(&role) {
            return format!("has no {key}");
        }
        let named = role.named(self.names);
        let names = if named.is_empty() { role.usual() } else { &named[..] };
        let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let seen = self.seen.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        format!(
            "has no {key}: no column is called {names}; it has {seen}; name yours with --column {key}=NAME"
        )
    }

    /// A column that was named, and that no row had.
    ///
    /// # Errors
    /// In words.
    fn check(&self) -> Result<(), String> {
        let is_named = |role: &&Role| !role.named(self.names).is_empty();
        self.missing.iter().find(is_named).map_or(Ok(()), |role| Err(self.lacks(*role)))
    }
}

/// Whether a file is such a table, by its name.
pub(super) fn is_table(path: &str) -> bool {
    matches!(ending(path).as_str(), "csv" | "tsv" | "jsonl" | "ndjson")
}

fn ending(path: &str) -> String {
    path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
}

/// The rows of a file, whose columns are called as `names` says, or as usual; with a question each, where
/// `asks` says so.
///
/// # Errors
/// A file that cannot be read, a line that is no row, a row without what it must have, with its line, and a
/// column that was named and is not there, with those that are.
pub(super) fn read(path: &Path, names: &ColumnNames, asks: bool) -> Result<Vec<OwnRow>> {
    let unreadable = |error| FileError::unreadable(path, error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() || about.len() > MOST_BYTES {
        return Err(FileError::unusable(path, format!("is no file of at most {MOST_BYTES} bytes")));
    }
    let reader = std::io::BufReader::new(file);
    let mut columns = Columns::new(names, asks);
    let rows = match ending(&path.to_string_lossy()).as_str() {
        "csv" => of_table(path, reader, b',', &mut columns)?,
        "tsv" => of_table(path, reader, b'\t', &mut columns)?,
        _ => of_lines(path, reader, &mut columns)?,
    };
    if rows.is_empty() {
        return Err(FileError::unusable(path, "has no rows"));
    }
    columns.check().map_err(|reason| FileError::unusable(path, reason))?;
    Ok(rows)
}

fn of_table(
    path: &Path,
    reader: impl std::io::Read,
    separator: u8,
    columns: &mut Columns<'_>,
) -> Result<Vec<OwnRow>> {
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
        rows.push(columns.row(&cells).map_err(|reason| of_line(path, line, &reason))?);
    }
    Ok(rows)
}

/// One text, or those of a JSON list.
fn cell_texts(cell: &str) -> Vec<String> {
    let listed = cell.trim_start().starts_with('[').then(|| serde_json::from_str(cell).ok()).flatten();
    listed.unwrap_or_else(|| if cell.is_empty() { Vec::new() } else { vec![cell.to_owned()] })
}

fn of_line(path: &Path, line: u64, reason: &str) -> FileError {
    FileError::unusable(path, format!("line {line}: {reason}"))
}

fn of_lines(path: &Path, reader: impl std::io::BufRead, columns: &mut Columns<'_>) -> Result<Vec<OwnRow>> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line.map_err(|error| FileError::unreadable(path, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |reason: String| of_line(path, number, &reason);
        let read: BTreeMap<String, Value> =
            serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let cells = read.into_iter().map(|(name, value)| (name, value_texts(value))).collect();
        rows.push(columns.row(&cells).map_err(wrong)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str, content: &str) -> Result<Vec<OwnRow>> {
        reading_as(name, content, &ColumnNames::default(), false)
    }

    fn reading_as(name: &str, content: &str, names: &ColumnNames, asks: bool) -> Result<Vec<OwnRow>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&path, names, asks)
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

    #[test]
    fn columns_are_called_as_is_said() {
        let names = ColumnNames {
            image: "photo".into(),
            caption: "alt".into(),
            question: "asked".into(),
            answers: "said".into(),
            key: "photo".into(),
            ..ColumnNames::default()
        };
        let table = "photo,image,asked,question,said,alt\na.jpg,b.jpg,why?,who?,x,y\n";
        let rows = reading_as("rows.csv", table, &names, true).unwrap();
        let told = |text: &str| vec![text.to_owned()];
        let expected = OwnRow {
            image: "a.jpg".into(),
            captions: told("y"),
            question: Some("why?".into()),
            question_id: Some("a.jpg".into()),
            answers: told("x"),
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_those_that_are() {
        let plain = ColumnNames::default();
        let asked = ColumnNames { question: "asked".into(), ..plain.clone() };
        let said = ColumnNames { answers: "said".into(), ..plain.clone() };
        for (name, content, names, words) in [
            ("a.csv", "photo,caption\nx,y\n", &plain, &["`photo`", "--column image=NAME", "`file_name`"][..]),
            (
                "a.csv",
                "image,q\nx,y\n",
                &plain,
                &["line 2: has no question", "`q`", "--column question=NAME"],
            ),
            ("a.csv", "image,question\nx,y\n", &asked, &["is called `asked`", "`question`"]),
            (
                "a.jsonl",
                r#"{"image": "x", "question": "y"}"#,
                &said,
                &["is called `said`", "`image`, `question`"],
            ),
            ("a.csv", "image,question\nx,y\nx,\n", &plain, &["line 3: has no question"]),
        ] {
            let error = reading_as(name, content, names, true).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{content}: {error}");
        }
    }
}
