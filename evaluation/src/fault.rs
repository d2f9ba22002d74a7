//! Whose fault it is that a model cannot be opened or computed: its files', its card's, or the program's.

use std::fmt::Display;

use blip2_dataset::error::DatasetError;
use blip2_model_files::error::ModelError;
use blip2_store::secret_url::redacted;
use blip2_tensors::device::failure::{DeviceFailure, behind, recognised};

/// A card, or its driver, that failed: nothing that others could mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {failure}; {advice}")]
pub struct FailedDevice {
    /// The device, as far as it is known.
    device: String,
    /// What its driver said.
    failure: DeviceFailure,
    /// What to do.
    advice: String,
}

/// What an error is about, as far as that decides whose fault it is.
#[derive(Debug)]
pub enum Cause<'a> {
    /// A model or its weights.
    Model(&'a ModelError),
    /// Files, or a store.
    Data(&'a DatasetError),
    /// Neither.
    Other,
}

/// The error of a room that opens models and computes them.
pub trait Fault: Display + Sized {
    /// What it is about.
    fn cause(&self) -> Cause<'_>;

    /// A configuration that cannot be used.
    fn of_configuration(text: String) -> Self;

    /// A device that failed.
    fn of_device(failed: FailedDevice) -> Self;

    /// A thread that panicked.
    fn of_panic(text: String) -> Self;

    /// What is wrong with the model that `key` names. A file that a key names is part of the configuration:
    /// that it is missing, damaged or another model's is the configuration's error, whichever part it is of.
    /// A device that fails and a store that does not answer stay what they are.
    fn of_model(key: &str, place: &str, error: impl Into<Self>) -> Self {
        let error = error.into();
        let is_of_the_files = match error.cause() {
            Cause::Model(error) => error.of_device().is_none(),
            Cause::Data(error) => error.is_bad_input(),
            Cause::Other => false,
        };
        match is_of_the_files {
            true => Self::of_configuration(format!("{key} = \"{}\": {error}", redacted(place))),
            false => error,
        }
    }

    /// A panic of what computes on `device`; `less` says how to compute less at a time.
    fn panicked(text: String, device: &dyn Display, less: &str) -> Self {
        match behind(&text) {
            Some(failure) => Self::of_device(FailedDevice::new(device, failure, less)),
            None => Self::of_panic(text),
        }
    }

    /// An error that a read of `device` returned, by its right name; `less` as above.
    fn blamed_on(self, device: &dyn Display, less: &str) -> Self {
        let failure = match self.cause() {
            Cause::Model(error) => error.of_device().and_then(recognised),
            _ => None,
        };
        match failure {
            Some(failure) => Self::of_device(FailedDevice::new(device, failure, less)),
            None => self,
        }
    }
}

impl FailedDevice {
    fn new(device: &dyn Display, failure: DeviceFailure, less: &str) -> Self {
        let advice = failure.advice(less);
        Self { device: device.to_string(), failure, advice }
    }
}
