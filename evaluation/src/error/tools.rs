//! Why a program of the user's gave no numbers.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use blip2_run::exit::{Exit, ExitClass};

use super::captions::CaptionsError;

/// `Result` of the tools.
pub type Result<T, E = ToolError> = std::result::Result<T, E>;

/// Why a tool gave no numbers.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No Java.
    #[error("{tool} needs Java, and `{}` cannot be started: {source}; install a Java runtime", program.display())]
    NoJava {
        /// Which tool.
        tool: &'static str,
        /// What was started.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No program where it should be.
    #[error("{tool}: no {jar} in {}; the folder of the tool in the Python package pycocoevalcap 1.2 has it", folder.display())]
    NoJar {
        /// Which tool.
        tool: &'static str,
        /// The file.
        jar: &'static str,
        /// The folder that was given.
        folder: PathBuf,
    },
    /// Nothing was said in time.
    #[error("{tool} said nothing for {} s; is the machine busy, or does the tool wait for something?", deadline.as_secs())]
    Deadline {
        /// Which tool.
        tool: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
    /// It ended before its work was done.
    #[error("{tool} ended early{}; it says: {complaint}", status.map(|status| format!(" ({status})")).unwrap_or_default())]
    Ended {
        /// Which tool.
        tool: &'static str,
        /// How.
        status: Option<ExitStatus>,
        /// The end of what it printed as errors.
        complaint: String,
    },
    /// It said something else than it should.
    #[error("{tool} answered {answer:?}, not {expected}")]
    Answer {
        /// Which tool.
        tool: &'static str,
        /// What it said, cut.
        answer: String,
        /// What was expected.
        expected: String,
    },
    /// Files or pipes.
    #[error("{tool}: {source}")]
    Io {
        /// Which tool.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Captions that are no set.
    #[error(transparent)]
    Captions(#[from] CaptionsError),
}

impl ExitClass for ToolError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoJava { .. } | Self::NoJar { .. } => Exit::BadConfig,
            Self::Captions(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}
