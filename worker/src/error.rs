//! What ends a worker.

use blip2_collective::CollectiveError;
use blip2_dataset::error::DatasetError;
use blip2_evaluation::EvaluationError;
use blip2_evaluation::fault::{Cause, FailedDevice, Fault};
use blip2_model_files::error::ModelError;
use blip2_run::RunError;
use blip2_run::exit::{Exit, ExitClass};
use blip2_store::error::StoreError;
use blip2_tensors::error::TensorError;

/// `Result` of this crate.
pub type Result<T, E = WorkerError> = std::result::Result<T, E>;

/// An error of a worker: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The training configuration cannot be used.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The corpus or a store.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A model or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An exchange with the other members.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The coordinator did not take this worker.
    #[error("the coordinator refused this worker: {reason}")]
    Refused {
        /// What differs and what to do.
        reason: String,
    },
    /// The coordinator cannot be reached or went away.
    #[error("coordinator {address}: {reason}")]
    Coordinator {
        /// Its URL.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The worker was asked to go while no coordinator was there.
    #[error("{reason}")]
    Left {
        /// What becomes of its state.
        reason: String,
    },
    /// The run ended with another member's error.
    #[error("the run stopped: {reason}")]
    RunFailed {
        /// The exit code that goes with it.
        exit_code: u32,
        /// Why.
        reason: String,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint `{name}`: {reason}")]
    Checkpoint {
        /// Its name or location.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// What was under way in a membership epoch that is over.
    #[error("epoch {epoch} is over")]
    Aborted {
        /// The epoch.
        epoch: u64,
    },
    /// Parameters or moments that no step can go on from.
    #[error("{place}: tensor `{tensor}` holds a value that is not a finite number")]
    NonFinite {
        /// Whose.
        place: String,
        /// The first such tensor.
        tensor: String,
    },
    /// What is measured is no number.
    #[error(
        "{what} is {value}, not a finite number: nothing is measured; are parameters, weights or pictures damaged?"
    )]
    Measured {
        /// A loss or a similarity, and of what.
        what: String,
        /// The value.
        value: f64,
    },
    /// A state that the protocol does not allow.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The card, or its driver, failed: nothing that others could mend.
    #[error(transparent)]
    Device(FailedDevice),
    /// The compute thread panicked.
    #[error("the compute thread panicked: {0}")]
    Panicked(String),
}

impl WorkerError {
    /// What is wrong with the Q-Former's sizes.
    pub(crate) fn of_qformer_sizes(error: ModelError) -> Self {
        Self::Configuration(format!("model.qformer: {error}"))
    }

    /// A checkpoint that cannot be used.
    pub(crate) fn checkpoint(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Checkpoint { name: name.into(), reason: reason.into() }
    }
}

impl Fault for WorkerError {
    fn cause(&self) -> Cause<'_> {
        match self {
            Self::Model(error) => Cause::Model(error),
            Self::Data(error) => Cause::Data(error),
            _ => Cause::Other,
        }
    }

    fn of_configuration(text: String) -> Self {
        Self::Configuration(text)
    }

    fn of_device(failed: FailedDevice) -> Self {
        Self::Device(failed)
    }

    fn of_panic(text: String) -> Self {
        Self::Panicked(text)
    }
}

impl From<TensorError> for WorkerError {
    fn from(error: TensorError) -> Self {
        Self::Model(error.into())
    }
}

impl From<RunError> for WorkerError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Store(error) => error.into(),
            RunError::List(error) => Self::Data(error),
            RunError::Checkpoint { name, reason } => Self::Checkpoint { name, reason },
            error => Self::Protocol(error.to_string()),
        }
    }
}

impl ExitClass for WorkerError {
    fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::BadConfig,
            Self::Data(error) => error.exit(),
            Self::Refused { .. } => Exit::Refused,
            Self::Left { .. } => Exit::Interrupted,
            Self::Device(_) => Exit::CardFailed,
            Self::RunFailed { exit_code, .. } => Exit::from_code(*exit_code as i32),
            _ => Exit::Failed,
        }
    }
}

impl From<StoreError> for WorkerError {
    fn from(error: StoreError) -> Self {
        Self::Data(error.into())
    }
}

impl From<EvaluationError> for WorkerError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Configuration(reason) => Self::Configuration(reason),
            EvaluationError::Data(error) => Self::Data(error),
            EvaluationError::Model(error) => Self::Model(error),
            EvaluationError::Measured { what, value } => Self::Measured { what, value },
        }
    }
}
