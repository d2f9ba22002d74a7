//! The way of the own slots' gradients from the thread that computes them to where they are added up.

use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use blip2_tensors::error::TensorError;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::buckets::SegmentGradients;
use blip2_tensors::train::tape::{Segment, Tape};
use burn::tensor::{Device, Gradients, Tensor};

use super::landing::closed;
use super::own_sums::OwnSums;
use super::times::Stopwatch;
use crate::error::Result;

/// Something to be done with the own sums.
pub(super) type Job<'a> = Box<dyn FnOnce(&mut OwnSums<'a>) -> Result<()> + Send + 'a>;

/// What the collecting thread is told; a channel that closes without the last message tells it to give up.
pub(super) enum Given<'a> {
    Job(Job<'a>),
    ThatIsAll,
}

/// Takes the own slots' gradients from the computing thread, in slot order.
pub(crate) struct Slots<'a> {
    pub(super) way: Way<'a>,
    /// Slots that have begun to be differentiated.
    begun: usize,
}

/// Where the own slots' gradients are added up.
pub(super) enum Way<'a> {
    Here(Box<OwnSums<'a>>),
    There(Collector<'a>),
}

/// The way to the collecting thread.
pub(super) struct Collector<'a> {
    pub(super) sender: threads::SyncSender<Given<'a>>,
    pub(super) device: Device,
}

impl<'a> Collector<'a> {
    /// Gives tensors away to be read. What is to produce them is launched before: a device that joins
    /// operations into kernels would else end the joining at whatever operation the other thread's read
    /// meets, so that kernels, and with them the last bits, differed from run to run.
    fn give(&self, job: Job<'a>) -> Result<()> {
        self.device.flush().map_err(|error| TensorError::Device(error.to_string()))?;
        self.sender.send(Given::Job(job)).map_err(|_| closed())
    }
}

impl<'a> Slots<'a> {
    pub(super) fn new(way: Way<'a>) -> Self {
        Self { way, begun: 0 }
    }

    /// Differentiates the next slot's objective and gives its gradient away, segment by segment.
    pub(crate) fn backward(
        &mut self,
        model: &mut impl NamedTensors,
        tape: Tape,
        objective: Tensor<1>,
        watch: &mut Stopwatch,
    ) -> Result<()> {
        self.backward_to(model, tape, objective, |_, _| {}, watch)?;
        Ok(())
    }

    /// The same of a slot whose gradient goes on below the tape, with [`Slots::add`]: `leaves` is shown what
    /// each segment gives before it is given away, and takes what is no parameter's. The slot's place among
    /// the own ones comes back.
    pub(crate) fn backward_to(
        &mut self,
        model: &mut impl NamedTensors,
        tape: Tape,
        objective: Tensor<1>,
        mut leaves: impl FnMut(Segment, &mut Gradients),
        watch: &mut Stopwatch,
    ) -> Result<usize> {
        self.give(|sums| {
            sums.buffers.push(sums.plan.parts.buffers());
            Ok(())
        })?;
        let place = self.begun;
        self.begun += 1;
        let started = Instant::now();
        let mut given = Duration::ZERO;
        let result = tape.backward(objective, |segment, gradients| {
            watch.wait();
            let giving = Instant::now();
            leaves(segment, gradients);
            self.add(place, model, segment, gradients)?;
            given += giving.elapsed();
            Ok(())
        });
        watch.passed(|times| &mut times.backward, started, given);
        result.map(|()| place)
    }

    /// Gives away what `segment` gave the slot at `place` among the own ones, whose segments above are given
    /// already. For each part of the gradient the slots keep their order.
    pub(crate) fn add(
        &mut self,
        place: usize,
        model: &mut impl NamedTensors,
        segment: Segment,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let gradients = SegmentGradients::take(model, gradients, segment)?;
        self.give(move |sums| sums.add_segment(place, gradients))
    }

    /// Adds the next slot's values, which may still have to be read from the device.
    pub(crate) fn push_values(&mut self, read: impl FnOnce() -> Result<Vec<f32>> + Send + 'a) -> Result<()> {
        self.give(move |sums| {
            let values = sums.watch.time(|times| &mut times.to_host, read)?;
            sums.push_values(values)
        })
    }

    pub(super) fn give(
        &mut self,
        job: impl FnOnce(&mut OwnSums<'a>) -> Result<()> + Send + 'a,
    ) -> Result<()> {
        match &mut self.way {
            Way::Here(sums) => job(sums),
            Way::There(collector) => collector.give(Box::new(job)),
        }
    }
}
