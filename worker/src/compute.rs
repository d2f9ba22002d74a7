//! The compute thread: takes orders, does steps, reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_collective::{CollectiveError, Exchange, Member, World};
use blip2_dataset::{Loader, Location, Manifest, StepBatch};
use blip2_proto::v1;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::batches::{BatchRange, start_loader};
use crate::checkpoint::{NamedState, encode_part, part_name, read_checkpoint};
use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::state::TrainState;
use crate::step::{Members, StepGradient, StepParts};

/// What the session tells the compute thread.
#[derive(Debug)]
pub(crate) enum Order {
    Assignment(v1::Assignment),
    Commit(v1::Commit),
    Stop,
}

/// What the compute thread tells the session.
#[derive(Debug)]
pub(crate) enum Report {
    Message(v1::WorkerMessage),
    /// A part to store, then to report.
    Part {
        checkpoint: String,
        name: String,
        content: Bytes,
    },
}

/// What the compute thread is started with.
pub(crate) struct ComputeSpec {
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) run_root: Location,
    pub(crate) member_id: u32,
    pub(crate) deadline: Duration,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// A reduction that waits for its commit.
struct Pending {
    epoch: u64,
    step: u64,
    gradient: StepGradient,
}

/// Batches of the own slots, from some step of a stage on.
struct Batches {
    stage: u32,
    slots: std::ops::Range<u32>,
    loader: Loader,
    /// The batch handed out last, kept until its step is committed: a redone step uses it again.
    current: Option<StepBatch>,
}

pub(crate) struct Compute {
    spec: ComputeSpec,
    parts: StepParts,
    world: Option<World>,
    state: Option<TrainState>,
    /// Committed steps behind `state`.
    step: u64,
    pending: Option<Pending>,
    batches: Option<Batches>,
    reports: mpsc::Sender<Report>,
}

impl Compute {
    pub(crate) fn new(spec: ComputeSpec, reports: mpsc::Sender<Report>) -> Result<Self> {
        let parts = StepParts::load(spec.config.clone())?;
        Ok(Self { spec, parts, world: None, state: None, step: 0, pending: None, batches: None, reports })
    }

    /// Follows orders until told to stop, or until the session is gone.
    pub(crate) fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<()> {
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Assignment(assignment) => {
                    if self.entered(&assignment)? && self.has_steps() {
                        self.do_step()?;
                    }
                }
                Order::Commit(commit) => {
                    self.commit(&commit)?;
                    // Orders that came meanwhile say whether the next step is still ours to do.
                    if orders.is_empty() && self.pending.is_none() && self.has_steps() {
                        self.do_step()?;
                    }
                }
                Order::Stop => break,
            }
        }
        Ok(())
    }

    /// Whether the run has a step after the committed ones.
    fn has_steps(&self) -> bool {
        self.step < self.spec.config.total_steps()
    }

    /// Takes up an assignment; a peer whose state cannot be had is reported, and another assignment follows.
    fn entered(&mut self, assignment: &v1::Assignment) -> Result<bool> {
        match self.enter(assignment) {
            Ok(()) => Ok(true),
            Err(WorkerError::Collective(error)) => {
                self.report_failure(assignment.epoch, assignment.step, &error)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes up an assignment: its world, and the state after its committed steps.
    fn enter(&mut self, assignment: &v1::Assignment) -> Result<()> {
        self.pending = None;
        let members: Vec<Member> = assignment.members.iter().map(member).collect();
        let rank = members.iter().position(|member| member.id == self.spec.member_id).ok_or_else(|| {
            WorkerError::Protocol(format!("epoch {} does not name this member", assignment.epoch))
        })?;
        let world = World { epoch: assignment.epoch, rank, members };
        self.spec.exchange.set_world(world.clone());
        self.world = Some(world);
        if self.state.is_none() || self.step != assignment.step {
            self.take_state(assignment)?;
        }
        self.offer_state(assignment)
    }

    fn take_state(&mut self, assignment: &v1::Assignment) -> Result<()> {
        let device = self.parts.device.clone().autodiff();
        let (config, sizes) = (&self.spec.config, self.parts.sizes);
        let state = match &assignment.state {
            Some(v1::assignment::State::Fresh(_)) => TrainState::fresh(config, sizes, &device)?,
            Some(v1::assignment::State::Checkpoint(name)) => {
                let folder = self.spec.run_root.join("checkpoints").join(name);
                let (step, stored) = self.spec.runtime.block_on(read_checkpoint(&folder))?;
                if step != assignment.step {
                    let reason = format!("it holds step {step}, the run continues from {}", assignment.step);
                    return Err(WorkerError::checkpoint(name, reason));
                }
                TrainState::restore(config, sizes, &stored, &device)?
            }
            Some(v1::assignment::State::Peer(address)) => {
                let fetch = self.spec.exchange.fetch_state(address, assignment.step, self.spec.deadline);
                let bytes = self.spec.runtime.block_on(fetch)?;
                TrainState::restore(config, sizes, &NamedState::decode(address, &[bytes])?, &device)?
            }
            None => return Err(WorkerError::Protocol("an assignment without a state".into())),
        };
        self.state = Some(state);
        self.step = assignment.step;
        self.batches = None;
        Ok(())
    }

    /// Publishes the state if this member is the one a joiner copies from.
    fn offer_state(&self, assignment: &v1::Assignment) -> Result<()> {
        let own = assignment.members.iter().find(|member| member.member_id == self.spec.member_id);
        let is_source = match (&assignment.state, own) {
            (Some(v1::assignment::State::Peer(address)), Some(own)) => *address == own.exchange_address,
            _ => false,
        };
        match &self.state {
            Some(state) if is_source => {
                let whole = encode_part(state, 0, 1)?;
                self.spec.exchange.publish_state(self.step, Arc::new(vec![whole]));
            }
            _ => self.spec.exchange.clear_state(),
        }
        Ok(())
    }

    /// Computes the gradient of the next step and reports it; a failed exchange is reported, not returned.
    fn do_step(&mut self) -> Result<()> {
        let started = Instant::now();
        let (step, epoch) = (self.step, self.world.as_ref().map_or(0, |world| world.epoch));
        match self.gradient() {
            Ok((gradient, mut done)) => {
                done.epoch = epoch;
                done.step = step;
                done.seconds = started.elapsed().as_secs_f64();
                self.pending = Some(Pending { epoch, step, gradient });
                self.report(v1::worker_message::Kind::StepDone(done))
            }
            Err(WorkerError::Collective(error)) => {
                tracing::warn!(step, epoch, %error, "step failed");
                let failed =
                    v1::StepFailed { epoch, step, suspects: error.suspects(), reason: error.to_string() };
                self.report(v1::worker_message::Kind::StepFailed(failed))
            }
            Err(error) => Err(error),
        }
    }

    fn report_failure(&self, epoch: u64, step: u64, error: &CollectiveError) -> Result<()> {
        tracing::warn!(step, epoch, %error, "step failed");
        let (suspects, reason) = (error.suspects(), error.to_string());
        self.report(v1::worker_message::Kind::StepFailed(v1::StepFailed { epoch, step, suspects, reason }))
    }

    fn gradient(&mut self) -> Result<(StepGradient, v1::StepDone)> {
        self.enter_stage()?;
        let (stage, stage_step) = self.stage_step();
        let first_use = self.prepare_batch(stage, stage_step)?;
        let state =
            self.state.as_mut().ok_or_else(|| WorkerError::Protocol("a step without state".into()))?;
        let world =
            self.world.as_ref().ok_or_else(|| WorkerError::Protocol("a step without world".into()))?;
        let batch = self.batches.as_ref().and_then(|batches| batches.current.as_ref());
        let batch = batch.ok_or_else(|| WorkerError::Protocol("a step without batch".into()))?;
        let members = Members {
            exchange: &self.spec.exchange,
            runtime: &self.spec.runtime,
            world,
            step: self.step,
            deadline: self.spec.deadline,
        };
        let gradient = self.parts.gradient(state, &members, stage_step, batch)?;
        let values = gradient.values.iter();
        let done = v1::StepDone {
            values: values
                .map(|(name, value)| v1::NamedValue { name: (*name).into(), value: *value })
                .collect(),
            data_wait_seconds: if first_use { batch.waited.as_secs_f64() } else { 0.0 },
            samples: batch.slots.iter().map(|slot| slot.samples.len() as u64).sum(),
            quarantined: batch.slots.iter().flat_map(|slot| &slot.quarantined).map(quarantined).collect(),
            ..v1::StepDone::default()
        };
        Ok((gradient, done))
    }

    /// Turns the state into stage 2's at the boundary.
    fn enter_stage(&mut self) -> Result<()> {
        let (stage, _) = self.stage_step();
        if let Some(state) = &self.state
            && state.stage == 1
            && stage == 2
        {
            let device = self.parts.device.clone().autodiff();
            self.state = Some(state.enter_stage2(&self.spec.config, self.parts.sizes, &device)?);
        }
        Ok(())
    }

    /// The next step's stage, and its index within it.
    fn stage_step(&self) -> (u32, u64) {
        match self.step.checked_sub(self.spec.config.stage1.steps) {
            Some(step) => (2, step),
            None => (1, self.step),
        }
    }

    /// Makes `batches.current` the batch of the step; whether it was read just now.
    fn prepare_batch(&mut self, stage: u32, stage_step: u64) -> Result<bool> {
        let slots = match &self.world {
            Some(world) => world.own()?.slots.clone(),
            None => return Err(WorkerError::Protocol("a batch without world".into())),
        };
        let fits = |batches: &Batches| batches.stage == stage && batches.slots == slots;
        if !self.batches.as_ref().is_some_and(fits) {
            // The old loader is stopped and joined before the new one takes its memory.
            self.batches = None;
            let loader = start_loader(
                &self.parts,
                self.spec.manifest.clone(),
                self.spec.runtime.clone(),
                BatchRange { stage, first_step: stage_step, slots: slots.clone() },
            )?;
            self.batches = Some(Batches { stage, slots, loader, current: None });
        }
        let deadline = self.spec.deadline;
        let Some(batches) = &mut self.batches else { return Ok(false) };
        if batches.current.as_ref().is_some_and(|batch| batch.step == stage_step) {
            return Ok(false);
        }
        let batch = batches.loader.next(deadline)?;
        if batch.step != stage_step {
            return Err(WorkerError::Protocol(format!("batch {} for step {stage_step}", batch.step)));
        }
        batches.current = Some(batch);
        Ok(true)
    }

    /// Applies a committed step and hands out its checkpoint part.
    ///
    /// A commit of the step before the next one asks for the part alone: a save that was begun with other members.
    fn commit(&mut self, commit: &v1::Commit) -> Result<()> {
        if commit.step + 1 == self.step {
            return self.hand_out_part(commit);
        }
        let pending = self.pending.take();
        let Some(mut pending) = pending.filter(|p| p.step == commit.step && p.epoch == commit.epoch) else {
            return Err(WorkerError::Protocol(format!(
                "step {} of epoch {} is committed, but this member has not reduced it",
                commit.step, commit.epoch
            )));
        };
        let (_, stage_step) = self.stage_step();
        let state =
            self.state.as_mut().ok_or_else(|| WorkerError::Protocol("a commit without state".into()))?;
        self.parts.apply(state, stage_step, &mut pending.gradient)?;
        self.step += 1;
        self.hand_out_part(commit)
    }

    fn hand_out_part(&self, commit: &v1::Commit) -> Result<()> {
        if commit.save_checkpoint.is_empty() {
            return Ok(());
        }
        let state =
            self.state.as_ref().ok_or_else(|| WorkerError::Protocol("a save without state".into()))?;
        let content = encode_part(state, commit.part_index, commit.part_count)?;
        self.send(Report::Part {
            checkpoint: commit.save_checkpoint.clone(),
            name: part_name(commit.part_index, commit.part_count),
            content,
        })
    }

    fn report(&self, kind: v1::worker_message::Kind) -> Result<()> {
        self.send(Report::Message(v1::WorkerMessage { kind: Some(kind) }))
    }

    fn send(&self, report: Report) -> Result<()> {
        self.reports.blocking_send(report).map_err(|_| WorkerError::Protocol("the session is gone".into()))
    }
}

fn member(member: &v1::MemberSlots) -> Member {
    Member {
        id: member.member_id,
        address: member.exchange_address.clone(),
        slots: member.first_slot..member.first_slot + member.slot_count,
    }
}

fn quarantined(record: &blip2_dataset::QuarantineRecord) -> v1::Quarantined {
    v1::Quarantined {
        key: record.key.clone(),
        file: record.file.clone(),
        row_group: record.row_group,
        row: record.row,
        reason: record.reason.clone(),
        sample: record.sample,
        stage: record.stage,
        ..v1::Quarantined::default()
    }
}
