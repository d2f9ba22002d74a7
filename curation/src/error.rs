//! What ends a curation.

use blip2_dataset::error::DatasetError;
use blip2_evaluation::EvaluationError;
use blip2_evaluation::fault::{Cause, FailedDevice, Fault};
use blip2_leases::error::LeaseError;
use blip2_model_files::error::ModelError;
use blip2_run::exit::{Exit, ExitClass};
use blip2_store::error::StoreError;
use blip2_tensors::error::TensorError;

/// `Result` of this crate.
pub type Result<T, E = CurationError> = std::result::Result<T, E>;

/// What to do about a full card.
pub(crate) const CURATE_LESS: &str = "lower curation.models.batch and curation.models.text_batch";

/// An error of a curation: what, where, and what to do. Jobs and their files fail as data does, with
/// [`DatasetError`].
#[derive(Debug, thiserror::Error)]
pub enum CurationError {
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The pool or a store.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A model or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Another failure of a captioner.
    #[error(transparent)]
    Evaluation(Box<EvaluationError>),
    /// What ends a coordinator or a worker of leases.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The card, or its driver, failed: nothing that others could mend.
    #[error(transparent)]
    Device(FailedDevice),
    /// The thread that computes panicked.
    #[error("the compute thread panicked: {0}")]
    Panicked(String),
}

impl Fault for CurationError {
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

impl From<TensorError> for CurationError {
    fn from(error: TensorError) -> Self {
        Self::Model(error.into())
    }
}

impl ExitClass for CurationError {
    fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::BadConfig,
            Self::Data(error) => error.exit(),
            Self::Lease(error) if error.is_refusal() => Exit::Refused,
            Self::Device(_) => Exit::CardFailed,
            _ => Exit::Failed,
        }
    }
}

impl From<StoreError> for CurationError {
    fn from(error: StoreError) -> Self {
        Self::Data(error.into())
    }
}

impl From<EvaluationError> for CurationError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Configuration(reason) => Self::Configuration(reason),
            EvaluationError::Data(error) => Self::Data(error),
            EvaluationError::Model(error) => Self::Model(error),
            other => Self::Evaluation(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use blip2_tensors::device::DeviceName;

    use super::*;

    #[test]
    fn a_cards_failure_has_its_name_its_remedy_and_its_exit_code() {
        let card = DeviceName::Cuda(Some(3));
        let text =
            "An IO error happened\nCaused by:\n  out of device memory allocating 4096 bytes\n  0: frame";
        let error = CurationError::panicked(text.into(), &card, CURATE_LESS);
        assert_eq!(error.exit().code(), 6);
        let said = error.to_string();
        for part in
            ["cuda:3: out of memory", "allocating 4096 bytes", "curation.models.text_batch", "nvidia-smi"]
        {
            assert!(said.contains(part), "no {part} in {said}");
        }
        let read = TensorError::Device("cuStreamSynchronize failed with status 719".into());
        let said = CurationError::from(read).blamed_on(&card, CURATE_LESS).to_string();
        assert!(said.contains("CUDA_ERROR_LAUNCH_FAILED") && !said.contains("curation"), "{said}");
        let bug = CurationError::panicked("index out of bounds".into(), &card, CURATE_LESS);
        assert!(matches!(bug, CurationError::Panicked(_)));
        let other = CurationError::from(TensorError::Device("no bf16".into())).blamed_on(&card, CURATE_LESS);
        assert_eq!(other.exit().code(), 1);
    }

    #[test]
    fn a_model_that_is_not_there_names_its_key() {
        let missing = StoreError::NotFound { location: "x".into() };
        let error = CurationError::of_model("curation.models.clip", "https://u:p@host/clip", missing);
        assert_eq!(error.exit().code(), 78);
        let said = error.to_string();
        assert!(said.contains("curation.models.clip = \"https://REDACTED@host/clip\""), "{said}");
        let store = StoreError::Failed { location: "x".into(), action: "read", reason: "timeout".into() };
        assert_eq!(CurationError::of_model("curation.models.clip", "x", store).exit().code(), 1);
    }
}
