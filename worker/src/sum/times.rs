//! Where the time of a step goes, and what it moves.

use std::ops::AddAssign;
use std::time::Instant;

use burn::tensor::Device;

use super::traffic::StepBytes;

/// Seconds a member spent in the parts of a step.
///
/// A device is given work and is not waited for, so its seconds fall where its results are read; and parts of
/// a step run beside each other. `blip2 bench step` measures them one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepTimes {
    /// The frozen encoder, with its pictures' way to the device.
    pub encoder: f64,
    /// The trained model's passes and the losses.
    pub forward: f64,
    /// The backward pass.
    pub backward: f64,
    /// From the device: features, and the gradient.
    pub to_host: f64,
    /// Adding up the own slots.
    pub adding: f64,
    /// Waiting for the other members: features, negatives, and the gradient's sum after the backward pass.
    pub exchange: f64,
    /// The gradient's norm and AdamW.
    pub optimizer: f64,
    /// New parameters on their way to the device.
    pub to_device: f64,
}

impl StepTimes {
    /// All parts, by name.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        let Self { encoder, forward, backward, to_host, adding, exchange, optimizer, to_device } = *self;
        [
            ("encoder", encoder),
            ("forward", forward),
            ("backward", backward),
            ("to_host", to_host),
            ("adding", adding),
            ("exchange", exchange),
            ("optimizer", optimizer),
            ("to_device", to_device),
        ]
    }
}

impl AddAssign for StepTimes {
    fn add_assign(&mut self, other: Self) {
        self.encoder += other.encoder;
        self.forward += other.forward;
        self.backward += other.backward;
        self.to_host += other.to_host;
        self.adding += other.adding;
        self.exchange += other.exchange;
        self.optimizer += other.optimizer;
        self.to_device += other.to_device;
    }
}

/// A part of a step.
pub(crate) type Part = fn(&mut StepTimes) -> &mut f64;

/// Measures the parts of a step, and counts the bytes it moves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopwatch {
    pub(crate) times: StepTimes,
    pub(crate) bytes: StepBytes,
    /// Waited for at the end of each part, so that the seconds are that part's alone.
    device: Option<Device>,
}

impl Stopwatch {
    /// One that waits for `device` after each part, if there is one.
    pub(crate) fn new(device: Option<Device>) -> Self {
        Self { times: StepTimes::default(), bytes: StepBytes::default(), device }
    }

    /// Another that measures in the same way, from nothing.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.device.clone())
    }

    /// Takes in what another has measured.
    pub(crate) fn take_in(&mut self, other: &Self) {
        self.times += other.times;
        self.bytes += other.bytes;
    }

    /// Does `work` and adds the seconds it took to a part's.
    pub(crate) fn time<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.wait();
        *part(&mut self.times) += started.elapsed().as_secs_f64();
        done
    }

    /// Waits for the device, if parts are told apart: what it was given before belongs to what goes on.
    pub(crate) fn wait(&self) {
        if let Some(Err(error)) = self.device.as_ref().map(Device::sync) {
            // What is wrong with the device is found where its results are read.
            tracing::debug!(%error, "a device that is waited for");
        }
    }
}
