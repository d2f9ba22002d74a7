//! A step: its batch, its gradient, and the application of what is committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::error::DatasetError;
use blip2_dataset::loader::{Loader, LoaderStatistics, SlotBatch, StepBatch};
use blip2_evaluation::held_out::HeldOut;
use blip2_proto::drill::DrillPhase;
use blip2_proto::v1;
use blip2_run::coverage::coverage_message;
use blip2_run::quarantine::to_message;

use super::holdings::{Batches, Compute, Pending};
use crate::batches::{BatchRange, start_loader};
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::own_device::device_use;
use crate::step::{NonFinite, Peers, StepGradient};

/// How often a wait for data looks whether its epoch is over.
const DATA_WAIT: Duration = Duration::from_millis(100);

/// Slots of a member, and rows of a slot, that are named when a step is not finite.
const NAMED_SLOTS: usize = 4;
const NAMED_ROWS: usize = 4;

impl Compute {
    /// Computes and reduces the gradient of the next step, which is then pending.
    pub(super) fn reduce(&mut self, epoch: u64, step: u64) -> Result<v1::StepDone> {
        let entered = self.world.as_ref().map_or(0, |world| world.epoch);
        if (entered, self.step) != (epoch, step) {
            let (at, next) = (entered, self.step);
            let reason =
                format!("step {step} of epoch {epoch} is due, this member is at step {next} of {at}");
            return Err(WorkerError::Protocol(reason));
        }
        self.pending = None;
        let started = Instant::now();
        self.evaluation = Duration::ZERO;
        let reduced = self.gradient(epoch);
        if matches!(reduced, Err(WorkerError::Data(_))) {
            // A loader that failed once fails for good: the next attempt gets a new one.
            self.batches = None;
        }
        let (gradient, mut done) = reduced?;
        (done.epoch, done.step) = (epoch, step);
        done.seconds = started.elapsed().saturating_sub(self.evaluation).as_secs_f64();
        self.pending = Some(Pending {
            step,
            gradient,
            seconds: done.seconds,
            data_wait: done.data_wait_seconds,
            device_use: done.device_use,
            reduced: Instant::now(),
            began: started,
        });
        Ok(done)
    }

    fn gradient(&mut self, epoch: u64) -> Result<(StepGradient, v1::StepDone)> {
        self.enter_stage()?;
        let held_out = self.held_out_rows(epoch)?;
        let (stage, stage_step) = self.config.stage_of_step(self.step)?;
        let waited = self.prepare_batch(epoch, &stage, stage_step)?;
        self.frozen.rehearse(DrillPhase::Forward, self.step);
        self.frozen.rehearse_failures(self.step);
        let state = self.next_stage.as_mut().or(self.state.as_mut());
        let state = state.ok_or_else(|| WorkerError::Protocol("a step without state".into()))?;
        let world =
            self.world.as_ref().ok_or_else(|| WorkerError::Protocol("a step without world".into()))?;
        let batch = self.batches.as_ref().and_then(|batches| batches.current.as_ref());
        let batch = batch.ok_or_else(|| WorkerError::Protocol("a step without batch".into()))?;
        let peers = Peers {
            exchange: &self.exchange,
            runtime: &self.runtime,
            world,
            step: self.step,
            deadline: self.deadline,
        };
        let mut gradient = self.frozen.gradient(state, &peers, stage_step, batch)?;
        if let Some(rows) = held_out.filter(|_| gradient.non_finite.is_none()) {
            let started = Instant::now();
            let rows = rows.as_deref().map_err(|error| WorkerError::Configuration(error.clone()));
            let values = self.frozen.evaluate(rows, state, &peers, stage_step, &gradient)?;
            gradient.values.extend(values);
            self.evaluation = started.elapsed();
        }
        let values = gradient.values.iter();
        let done = v1::StepDone {
            values: values
                .map(|(name, value)| v1::NamedValue { name: (*name).into(), value: *value })
                .collect(),
            data_wait_seconds: waited.as_secs_f64(),
            samples: batch.slots.iter().map(|slot| slot.samples.len() as u64).sum(),
            // The coordinator names the step, once it is committed.
            quarantined: batch
                .slots
                .iter()
                .flat_map(|slot| &slot.quarantined)
                .map(|row| to_message(row, 0))
                .collect(),
            coverage: Some(coverage_message(stage.number, batch.coverage())),
            device_use: device_use(&self.card, &mut self.kernels),
            bytes_sent: gradient.bytes.sent(),
            bytes_copied: gradient.bytes.copied(),
            non_finite: gradient.non_finite.as_ref().map(|odd| non_finite(odd, batch, &self.manifest)),
            ..v1::StepDone::default()
        };
        Ok((gradient, done))
    }

    /// The held-out rows if the state after the next step is evaluated, or why there are none. They are read
    /// once.
    fn held_out_rows(&mut self, epoch: u64) -> Result<Option<std::result::Result<Arc<HeldOut>, String>>> {
        let committed = self.step + 1;
        if !self.config.eval.is_due(committed, self.config.is_stage_end(committed)) {
            return Ok(None);
        }
        let (stage, _) = self.config.stage_of_step(self.step)?;
        if let Some((_, rows)) = self.held_out.as_ref().filter(|(number, _)| *number == stage.number) {
            return Ok(Some(Ok(rows.clone())));
        }
        // The clock is the runtime's, and this thread enters the runtime only to wait.
        let reading = async {
            tokio::time::timeout(self.deadline, self.frozen.read_held_out(&self.config, &stage)).await
        };
        let read = match self.unless_aborted(epoch, reading)? {
            Ok(read) => read.map(Arc::new).map_err(|error| error.to_string()),
            Err(_) => Err(format!("they are not read after {:.0} s", self.deadline.as_secs_f64())),
        };
        self.held_out = read.as_ref().ok().map(|rows| (stage.number, rows.clone()));
        Ok(Some(read))
    }

    /// Makes a stage's first state at its boundary; the end of the stage before stays until a step of it is
    /// committed.
    fn enter_stage(&mut self) -> Result<()> {
        let (stage, _) = self.config.stage_of_step(self.step)?;
        if let (None, Some(state)) = (&self.next_stage, &self.state)
            && state.stage.number != stage.number
        {
            let device = self.frozen.device.clone().autodiff();
            self.next_stage = Some(state.enter(stage, &self.config, self.frozen.sizes, &device)?);
        }
        Ok(())
    }

    /// Makes `batches.current` the batch of the step, and says how long that took: nothing for a batch that
    /// is there.
    fn prepare_batch(&mut self, epoch: u64, stage: &NumberedStage, stage_step: u64) -> Result<Duration> {
        let slots = match &self.world {
            Some(world) => world.own()?.slots.clone(),
            None => return Err(WorkerError::Protocol("a batch without world".into())),
        };
        let mut batches = match self.batches.take() {
            Some(batches) if batches.stage == stage.number && batches.slots == slots => batches,
            old => {
                // The old loader is stopped and joined before the new one takes its memory.
                if let Some(mut old) = old {
                    self.record_reads(&mut old);
                }
                let range = BatchRange { stage: stage.clone(), first_step: stage_step, slots: slots.clone() };
                let runtime = self.runtime.clone();
                let loader = start_loader(&self.config, &self.frozen, self.manifest.clone(), runtime, range)?;
                Batches {
                    stage: stage.number,
                    slots,
                    loader,
                    counted: LoaderStatistics::default(),
                    current: None,
                }
            }
        };
        let mut waited = Duration::ZERO;
        if batches.current.as_ref().is_none_or(|batch| batch.step != stage_step) {
            let started = Instant::now();
            let batch = self.next_batch(&batches.loader, epoch);
            waited = started.elapsed();
            if let Ok(batch) = &batch
                && batch.step != stage_step
            {
                return Err(WorkerError::Protocol(format!("batch {} for step {stage_step}", batch.step)));
            }
            match batch {
                Ok(batch) => batches.current = Some(batch),
                Err(error) => {
                    self.batches = Some(batches);
                    return Err(error);
                }
            }
        }
        self.record_reads(&mut batches);
        self.batches = Some(batches);
        Ok(waited)
    }

    /// The loader's next batch, unless the epoch is aborted first.
    fn next_batch(&self, loader: &Loader, epoch: u64) -> Result<StepBatch> {
        let started = Instant::now();
        loop {
            let slice = DATA_WAIT.min(self.deadline.saturating_sub(started.elapsed()));
            match loader.next(slice) {
                Err(DatasetError::Deadline { step, .. }) if started.elapsed() >= self.deadline => {
                    let seconds = self.deadline.as_secs_f64();
                    return Err(DatasetError::Deadline { step, seconds }.into());
                }
                Err(DatasetError::Deadline { .. }) if self.is_aborted(epoch) => {
                    return Err(WorkerError::Aborted { epoch });
                }
                Err(DatasetError::Deadline { .. }) => {}
                batch => return Ok(batch?),
            }
        }
    }

    /// Applies a committed step and hands out its checkpoint part.
    ///
    /// A commit of the step before the next one asks for the part alone: a save that was begun with other
    /// members.
    pub(super) fn apply(&mut self, commit: &v1::Commit) -> Result<()> {
        self.frozen.rehearse(DrillPhase::Commit, commit.step);
        if commit.step + 1 != self.step {
            let is_odd = |pending: &Pending| pending.gradient.non_finite.is_some();
            if self.pending.as_ref().is_some_and(|pending| is_odd(pending) != commit.skipped) {
                let reason = format!("whether step {} changes the parameters is in doubt", commit.step);
                return Err(WorkerError::Protocol(reason));
            }
            self.apply_pending(commit.step)?;
            // Who took part in the step has the state it began with.
            self.exchange.clear_state();
        }
        self.hand_out_part(commit)
    }

    /// Applies the pending gradient of `step`.
    pub(super) fn apply_pending(&mut self, step: u64) -> Result<()> {
        let pending = self.pending.take().filter(|pending| (pending.step, self.step) == (step, step));
        let Some(mut pending) = pending else {
            let next = self.step;
            let reason =
                format!("step {step} is to be applied, this member is at {next} and has not reduced it");
            return Err(WorkerError::Protocol(reason));
        };
        let waited = pending.reduced.elapsed();
        self.enter_stage()?;
        let (_, stage_step) = self.config.stage_of_step(self.step)?;
        let mut state = self.next_stage.take().or(self.state.take());
        let applied = match &mut state {
            Some(state) => self.frozen.apply(state, stage_step, &mut pending.gradient),
            None => Err(WorkerError::Protocol("a commit without state".into())),
        };
        self.state = state;
        self.step += 1;
        self.record(&pending, waited.as_secs_f64());
        applied
    }
}

fn non_finite(odd: &NonFinite, batch: &StepBatch, manifest: &Manifest) -> v1::NonFinite {
    let slots = batch.slots.iter().filter(|slot| odd.slots.contains(&slot.slot));
    let slots = slots.take(NAMED_SLOTS).map(|slot| v1::SlotSamples {
        slot: slot.slot,
        keys: (0..slot.samples.len().min(NAMED_ROWS)).map(|row| name_of(slot, row, manifest)).collect(),
        more: slot.samples.len().saturating_sub(NAMED_ROWS) as u32,
    });
    v1::NonFinite { term: odd.term.clone(), slots: slots.collect() }
}

/// A row's key, or where it lies.
fn name_of(slot: &SlotBatch, row: usize, manifest: &Manifest) -> String {
    let key = slot.keys.get(row).filter(|key| !key.is_empty());
    let place = || {
        let address = slot.addresses.get(row)?;
        let file = &manifest.files.get(address.file as usize)?.location;
        Some(format!("{file} row group {} row {}", address.row_group, address.row))
    };
    key.cloned().or_else(place).unwrap_or_default()
}
