//! The exit codes of the command line, which scripts and schedulers rely on, and which of them an error is.

use std::process::ExitCode;

use blip2_dataset::error::DatasetError;
use blip2_store::error::StoreError;

use crate::RunError;

/// An error that says once which exit code is its own.
pub trait ExitClass {
    /// The exit code of a process that ends with this error.
    fn exit(&self) -> Exit;
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Something failed that is none of the classes below.
    Failed = 1,
    /// The command line itself is wrong; `clap` exits with the same code.
    Usage = 2,
    /// The corpus, an image or a checkpoint cannot be used.
    BadInput = 3,
    /// Refused: token, run or version do not match.
    Refused = 4,
    /// Stopped by a signal, with a checkpoint saved.
    Interrupted = 5,
    /// A card failed: its memory is full, a kernel of it failed, or it is gone.
    CardFailed = 6,
    /// The configuration is wrong.
    BadConfig = 78,
}

/// Every code with its meaning, as the documents begin with it, and what belongs to it.
pub const TABLE: [(Exit, &str, &str); 8] = [
    (Exit::Done, "done", ""),
    (Exit::Failed, "failed", ": what is named is not there, does not answer, or broke"),
    (Exit::Usage, "wrong usage", ": the command line"),
    (Exit::BadInput, "bad input data", ": rows, pictures, files or a checkpoint"),
    (Exit::Refused, "refused", ": token, run or version do not match, or another coordinator leads"),
    (Exit::Interrupted, "interrupted", ", with a checkpoint saved"),
    (Exit::CardFailed, "a card failed", ": out of memory, a fault, or a lost device"),
    (Exit::BadConfig, "bad configuration", ": a key, or a file that one names"),
];

/// The exit codes, one a line.
pub fn listed() -> String {
    let line = |(exit, meaning, more): &(Exit, &str, &str)| format!("\n  {:<3} {meaning}{more}", *exit as u8);
    format!("Exit codes:{}", TABLE.iter().map(line).collect::<String>())
}

impl Exit {
    /// The code, as processes and messages carry it.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The class that belongs to a code which another process or crate reported.
    pub fn from_code(code: i32) -> Self {
        let known = TABLE.iter().find(|(exit, ..)| *exit as i32 == code);
        known.map_or(Exit::Failed, |(exit, ..)| *exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl ExitClass for StoreError {
    /// A place that cannot be understood is the configuration's.
    fn exit(&self) -> Exit {
        match self {
            Self::Location { .. } => Exit::BadConfig,
            error if error.is_bad_input() => Exit::BadInput,
            _ => Exit::Failed,
        }
    }
}

impl ExitClass for DatasetError {
    fn exit(&self) -> Exit {
        match self {
            Self::Store(error) => error.exit(),
            error if error.is_bad_input() => Exit::BadInput,
            _ => Exit::Failed,
        }
    }
}

impl ExitClass for RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced { .. } => Exit::Refused,
            // The run's own objects are no input of anybody: whoever takes a checkpoint as one says so.
            Self::Store(_) | Self::List(_) | Self::Checkpoint { .. } | Self::Epoch { .. } => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_the_way_through_its_code() {
        for (exit, ..) in TABLE {
            assert_eq!(Exit::from_code(exit as i32), exit);
        }
        assert_eq!(Exit::from_code(137), Exit::Failed);
        assert!(listed().contains("\n  5   interrupted, with a checkpoint saved\n"), "{}", listed());
    }

    /// Rows `| CODE | …` of a Markdown table under the heading on exit codes.
    fn documented(text: &str) -> Vec<(u8, String)> {
        let section = text.split("\n## Exit codes\n").nth(1).expect("a section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let row = |line: &str| {
            let (code, meaning) = line.strip_prefix("| ")?.split_once(" | ")?;
            Some((code.trim().parse().ok()?, meaning.to_owned()))
        };
        section.lines().filter_map(row).collect()
    }

    #[test]
    fn the_documents_have_the_same_codes() {
        let codes: Vec<u8> = TABLE.iter().map(|(exit, ..)| *exit as u8).collect();
        for (file, text) in [
            ("README.md", include_str!("../../README.md")),
            ("docs/operations.md", include_str!("../../docs/operations.md")),
        ] {
            let documented = documented(text);
            assert_eq!(documented.iter().map(|(code, _)| *code).collect::<Vec<_>>(), codes, "{file}");
        }
        let readme = documented(include_str!("../../README.md"));
        for ((exit, meaning, _), (_, documented)) in TABLE.iter().zip(readme) {
            assert!(documented.starts_with(meaning), "{}: {documented} is not {meaning}", *exit as u8);
        }
    }
}
