//! The device of this worker: what it tells the coordinator of it, and what its failure is called.

use std::sync::{Arc, Mutex, PoisonError};

use blip2_evaluation::fault::Fault as _;
use blip2_proto::v1;
use blip2_tensors::device::card::{Card, CardWatch};
use blip2_tensors::device::{DeviceName, KernelsMade};

use crate::error::WorkerError;

/// What a worker that trains can do about a full card.
const TRAIN_LESS: &str = "compute fewer rows at a time (a slot has the batch divided by train.slots: raise the one or lower the \
                          other), or keep frozen models in bf16 (model.frozen_dtype)";

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
    pub(crate) fn panicked(&self, text: String) -> WorkerError {
        WorkerError::panicked(text, &self.described().device, TRAIN_LESS)
    }

    /// An error that a read of the device returned, by its right name.
    pub(crate) fn blamed(&self, error: WorkerError) -> WorkerError {
        error.blamed_on(&self.described().device, TRAIN_LESS)
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
    use blip2_run::exit::ExitClass as _;
    use blip2_tensors::error::TensorError;

    use super::*;

    #[test]
    fn a_cards_failure_has_its_name_its_remedy_and_its_exit_code() {
        let own = OwnDevice::default();
        own.chosen(DeviceName::Cuda(Some(3)));
        let text =
            "An IO error happened\nCaused by:\n  out of device memory allocating 4096 bytes\n  0: frame";
        let error = own.panicked(text.into());
        assert_eq!(error.exit().code(), 6);
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
            WorkerError::from(TensorError::Device("cuStreamSynchronize failed with status 719".into()));
        let said = own.blamed(read).to_string();
        assert!(said.contains("CUDA_ERROR_LAUNCH_FAILED") && !said.contains("train.slots"), "{said}");
        assert!(matches!(own.panicked("index out of bounds".into()), WorkerError::Panicked(_)));
        let other = own.blamed(WorkerError::from(TensorError::Device("no bf16".into())));
        assert_eq!(other.exit().code(), 1);
    }
}
