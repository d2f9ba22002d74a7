//! Where the time of a step goes, and what it moves.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

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

/// The name of a part, as [`StepTimes::named`] has it.
fn name_of(part: Part) -> &'static str {
    let mut times = StepTimes::default();
    *part(&mut times) = 1.0;
    times.named().into_iter().find(|(_, seconds)| *seconds > 0.0).map_or("", |(name, _)| name)
}

/// A part of a step that was under way for some time.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedPart {
    /// As in [`StepTimes`].
    pub part: &'static str,
    /// The thread it ran on.
    pub lane: &'static str,
    /// When it began.
    pub began: Instant,
    /// How long it took, what it gave away meanwhile included.
    pub time: Duration,
}

/// Parts of a step that are remembered one by one; a step of very many slots has more.
const MOST_PARTS: usize = 1024;

/// The threads of a step: where it is computed, where the own slots are added up beside it, and where sums
/// arrive.
pub(crate) const COMPUTE: &str = "compute";
pub(crate) const COLLECT: &str = "collect";
pub(crate) const LAND: &str = "land";

/// Measures the parts of a step, and counts the bytes it moves.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    pub(crate) times: StepTimes,
    pub(crate) bytes: StepBytes,
    /// The parts one by one, in the order of their ends on each lane.
    pub(crate) parts: Vec<TimedPart>,
    lane: &'static str,
    /// Waited for at the end of each part, so that the seconds are that part's alone.
    device: Option<Device>,
}

impl Stopwatch {
    /// One that waits for `device` after each part, if there is one.
    pub(crate) fn new(device: Option<Device>) -> Self {
        Self {
            times: StepTimes::default(),
            bytes: StepBytes::default(),
            parts: Vec::new(),
            lane: COMPUTE,
            device,
        }
    }

    /// Another that measures in the same way, from nothing, on a thread of its own.
    pub(crate) fn another(&self, lane: &'static str) -> Self {
        Self { lane, ..Self::new(self.device.clone()) }
    }

    /// Takes in what another has measured.
    pub(crate) fn take_in(&mut self, other: Self) {
        self.times += other.times;
        self.bytes += other.bytes;
        self.parts.extend(other.parts);
        self.parts.truncate(MOST_PARTS);
    }

    /// Does `work` and adds the seconds it took to a part's.
    pub(crate) fn time<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.wait();
        self.passed(part, started, Duration::ZERO);
        done
    }

    /// A part has been under way since `began`, `given` of it for others.
    pub(crate) fn passed(&mut self, part: Part, began: Instant, given: Duration) {
        let time = began.elapsed();
        *part(&mut self.times) += time.saturating_sub(given).as_secs_f64();
        if self.parts.len() < MOST_PARTS {
            self.parts.push(TimedPart { part: name_of(part), lane: self.lane, began, time });
        }
    }

    /// Waits for the device, if parts are told apart: what it was given before belongs to what goes on.
    pub(crate) fn wait(&self) {
        if let Some(Err(error)) = self.device.as_ref().map(Device::sync) {
            // What is wrong with the device is found where its results are read.
            tracing::debug!(%error, "a device that is waited for");
        }
    }
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self::new(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_remembered_one_by_one_with_the_thread_they_ran_on() {
        let mut watch = Stopwatch::default();
        watch.time(|times| &mut times.encoder, || ());
        let mut beside = watch.another(COLLECT);
        beside.time(|times| &mut times.adding, || ());
        watch.passed(|times| &mut times.backward, Instant::now(), Duration::from_secs(1));
        watch.take_in(beside);
        let parts: Vec<(&str, &str)> = watch.parts.iter().map(|timed| (timed.lane, timed.part)).collect();
        assert_eq!(parts, [(COMPUTE, "encoder"), (COMPUTE, "backward"), (COLLECT, "adding")]);
        assert_eq!(watch.times.backward, 0.0, "what was given away is no part's");
        for _ in 0..2 * MOST_PARTS {
            watch.time(|times| &mut times.forward, || ());
        }
        assert_eq!(watch.parts.len(), MOST_PARTS);
    }
}
