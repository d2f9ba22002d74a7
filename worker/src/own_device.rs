//! The device of this worker: which one it takes, what it tells the coordinator of it, and what its failure is called.

use std::sync::{Arc, Mutex, PoisonError};

use blip2_model::device::card::{Card, CardWatch};
use blip2_model::device::failure::{behind, recognised};
use blip2_model::device::seat::Seat;
use blip2_model::device::{DeviceName, KernelsMade, Present};
use blip2_model::error::ModelError;
use blip2_proto::v1;

use crate::error::{Result, WorkerError};

/// What a worker that trains can do about a full card.
const TRAIN_LESS: &str = "compute fewer rows at a time (a slot has the batch divided by train.slots: raise the one or lower the \
                          other), or keep frozen models in bf16 (model.frozen_dtype)";
/// What one of a curation can do.
const CURATE_LESS: &str = "lower curation.models.batch and curation.models.text_batch";

/// Which device a worker is to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceChoice {
    /// Instead of the one that the run's configuration names.
    pub device: Option<DeviceName>,
    /// Its place among the workers of this machine.
    pub seat: Seat,
    /// Whether workers may share a card.
    pub share: bool,
}

impl DeviceChoice {
    /// The device, with its number, where the configuration's `key` names `configured`.
    ///
    /// # Errors
    /// [`WorkerError::Configuration`]: it is not there, or has no card left for this worker.
    pub(crate) fn decide(&self, key: &str, configured: &str) -> Result<DeviceName> {
        let refused = |error| WorkerError::Configuration(format!("{key} = {error}"));
        let name = self.device.map_or_else(|| configured.parse(), Ok).map_err(refused)?;
        // The CPU is there without looking, and looking loads drivers.
        let present = if name == DeviceName::Cpu { Present::default() } else { Present::probe() };
        let refused = |error| WorkerError::Configuration(format!("the device of this worker: {error}"));
        let decided = self.seat.take(name, &present, self.share).map_err(refused)?;
        if decided != name {
            tracing::info!(asked = %name, found = %present, seat = ?self.seat, "takes {decided}");
        }
        Ok(decided)
    }
}

/// What the work is, which decides what to do about a full card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Training,
    Curation,
}

/// What is known of the device, shared by those who compute on it and those who report.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnDevice(Arc<Mutex<v1::WorkerDevice>>);

impl OwnDevice {
    /// The device that is about to be opened.
    pub(crate) fn chosen(&self, name: DeviceName) {
        self.set(described(&Card::named(name)));
    }

    /// The device that is open.
    pub(crate) fn opened(&self, watch: &CardWatch) {
        let described = described(watch.card());
        tracing::info!(device = %watch.card(), uuid = described.uuid, threads = described.threads, "the device is open");
        self.set(described);
    }

    fn set(&self, device: v1::WorkerDevice) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = device;
    }

    pub(crate) fn described(&self) -> v1::WorkerDevice {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A panic of what computes on the device, as an error.
    pub(crate) fn panicked(&self, text: String, work: Work) -> WorkerError {
        match behind(&text) {
            Some(failure) => WorkerError::device(self.described().device, failure, less(work)),
            None => WorkerError::Panicked(text),
        }
    }

    /// An error that a read of the device returned, by its right name.
    pub(crate) fn blamed(&self, error: WorkerError, work: Work) -> WorkerError {
        let failure = match &error {
            WorkerError::Model(ModelError::Device(text)) => recognised(text),
            _ => None,
        };
        match failure {
            Some(failure) => WorkerError::device(self.described().device, failure, less(work)),
            None => error,
        }
    }
}

fn less(work: Work) -> &'static str {
    match work {
        Work::Training => TRAIN_LESS,
        Work::Curation => CURATE_LESS,
    }
}

/// A device as the coordinator is told of it.
fn described(card: &Card) -> v1::WorkerDevice {
    v1::WorkerDevice {
        device: card.to_string(),
        uuid: card.uuid.clone(),
        memory_bytes: card.memory_bytes,
        threads: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
    }
}

/// How much of it is used now, and what it had to compile since it was last asked; nothing for the CPU.
pub(crate) fn device_use(watch: &CardWatch, kernels: &mut KernelsMade) -> Option<v1::DeviceUse> {
    let usage = watch.usage()?;
    Some(v1::DeviceUse {
        allocated_bytes: usage.allocated_bytes,
        reserved_bytes: usage.reserved_bytes,
        used_bytes: usage.used_bytes,
        busy_percent: usage.busy_percent,
        kernels_compiled: kernels.take() as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cards_failure_has_its_name_its_remedy_and_its_exit_code() {
        let own = OwnDevice::default();
        own.chosen(DeviceName::Cuda(Some(3)));
        let text =
            "An IO error happened\nCaused by:\n  out of device memory allocating 4096 bytes\n  0: frame";
        let error = own.panicked(text.into(), Work::Training);
        assert_eq!(error.exit_code(), 6);
        let said = error.to_string();
        for part in [
            "cuda:3: out of memory",
            "allocating 4096 bytes",
            "train.slots",
            "model.frozen_dtype",
            "nvidia-smi",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        let read =
            WorkerError::Model(ModelError::Device("cuStreamSynchronize failed with status 719".into()));
        let said = own.blamed(read, Work::Curation).to_string();
        assert!(said.contains("CUDA_ERROR_LAUNCH_FAILED") && !said.contains("curation"), "{said}");
        assert!(matches!(
            own.panicked("index out of bounds".into(), Work::Training),
            WorkerError::Panicked(_)
        ));
        let other = own.blamed(WorkerError::Model(ModelError::Device("no bf16".into())), Work::Training);
        assert_eq!(other.exit_code(), 1);
    }

    #[test]
    fn a_worker_takes_the_device_it_is_told_or_the_configured_one() {
        let choice = DeviceChoice { device: None, seat: Seat::Task(5), share: false };
        assert_eq!(choice.decide("train.device", "cpu").unwrap(), DeviceName::Cpu);
        let told = DeviceChoice { device: Some(DeviceName::Cpu), ..choice };
        assert_eq!(told.decide("train.device", "cuda:7").unwrap(), DeviceName::Cpu);
        let error = choice.decide("train.device", "gpu").unwrap_err();
        assert!(error.exit_code() == 78 && error.to_string().contains("train.device = \"gpu\""), "{error}");
    }
}
