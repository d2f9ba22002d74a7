//! The one error of the command line: what, where, what to do, and the exit code that goes with it.

use blip2_dataset::error::DatasetError;
use blip2_run::exit::{Exit, ExitClass as _};
use blip2_store::error::StoreError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The corpus or an image cannot be used.
    #[error("{0}")]
    BadInput(String),
    /// Token, run or version do not match.
    #[error("{0}")]
    Refused(String),
    /// A signal stopped the run.
    #[error("{0}")]
    Interrupted(String),
    /// Whoever read standard output went away.
    #[error("standard output is closed")]
    OutputClosed,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// The error of another crate, with its exit code.
    #[error("{message}")]
    Reported { exit: Exit, message: String },
}

impl CliError {
    /// A configuration error.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        CliError::Config(message.into())
    }

    /// A usage error.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CliError::Usage(message.into())
    }

    /// A refusal.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        CliError::Refused(message.into())
    }

    /// An end that a signal asked for.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        CliError::Interrupted(message.into())
    }

    /// A failure of no other class.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        CliError::Failed(message.into())
    }

    /// What went wrong with files that were named on the command line: one whose place cannot be understood
    /// is wrong usage.
    pub(crate) fn of_typed(error: DatasetError) -> Self {
        match error {
            DatasetError::Store(StoreError::Location { .. }) => CliError::Usage(error.to_string()),
            error => error.into(),
        }
    }

    /// The exit code of the process that ends with this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            CliError::Config(_) => Exit::BadConfig,
            CliError::Usage(_) => Exit::Usage,
            CliError::BadInput(_) => Exit::BadInput,
            CliError::Refused(_) => Exit::Refused,
            CliError::Interrupted(_) => Exit::Interrupted,
            CliError::OutputClosed => Exit::Done,
            CliError::Failed(_) => Exit::Failed,
            CliError::Reported { exit, .. } => *exit,
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        DatasetError::from(error).into()
    }
}

impl From<DatasetError> for CliError {
    fn from(error: DatasetError) -> Self {
        let message = error.to_string();
        match error.exit() {
            Exit::BadConfig => CliError::Config(message),
            Exit::BadInput => CliError::BadInput(message),
            _ => CliError::Failed(message),
        }
    }
}

impl From<blip2_run::RunError> for CliError {
    fn from(error: blip2_run::RunError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_records::RecordsError> for CliError {
    fn from(error: blip2_records::RecordsError) -> Self {
        match error {
            blip2_records::RecordsError::Store(error) => error.into(),
            blip2_records::RecordsError::Run(error) => error.into(),
            error => CliError::failed(error.to_string()),
        }
    }
}

impl From<blip2_evaluation::EvaluationError> for CliError {
    fn from(error: blip2_evaluation::EvaluationError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_evaluation::job_error::JobError> for CliError {
    fn from(error: blip2_evaluation::job_error::JobError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_evaluation::error::tools::ToolError> for CliError {
    fn from(error: blip2_evaluation::error::tools::ToolError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_evaluation::file_error::FileError> for CliError {
    fn from(error: blip2_evaluation::file_error::FileError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_curation::CurationError> for CliError {
    fn from(error: blip2_curation::CurationError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_leases::error::LeaseError> for CliError {
    fn from(error: blip2_leases::error::LeaseError) -> Self {
        let exit = if error.is_refusal() { Exit::Refused } else { Exit::Failed };
        CliError::Reported { exit, message: error.to_string() }
    }
}

impl From<blip2_coordinator::CoordinatorError> for CliError {
    fn from(error: blip2_coordinator::CoordinatorError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}

impl From<blip2_worker::WorkerError> for CliError {
    fn from(error: blip2_worker::WorkerError) -> Self {
        CliError::Reported { exit: error.exit(), message: error.to_string() }
    }
}
