//! What the compute thread holds, and how it tells the session of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_collective::{Exchange, World};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::loader::{Loader, LoaderStatistics, StepBatch};
use blip2_evaluation::held_out::HeldOut;
use blip2_proto::v1::DeviceUse;
use blip2_store::Location;
use blip2_telemetry::Telemetry;
use blip2_tensors::device::KernelsMade;
use blip2_tensors::device::card::CardWatch;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::valid::ValidConfig;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::member::MemberEvent;
use crate::state::TrainState;
use crate::step::StepGradient;
use crate::upload::Part;

/// What the compute thread tells the session.
#[derive(Debug)]
pub(crate) enum Report {
    /// An answer, or that it is prepared.
    Event(Box<MemberEvent>),
    /// A part to store.
    Part(Part),
    /// It cannot go on.
    Failed(WorkerError),
}

/// A reduction that waits for its commit.
pub(super) struct Pending {
    pub(super) step: u64,
    pub(super) gradient: StepGradient,
    /// Seconds of the reduction, and those of them that waited for data.
    pub(super) seconds: f64,
    pub(super) data_wait: f64,
    /// After it.
    pub(super) device_use: Option<DeviceUse>,
    pub(super) reduced: Instant,
    /// When the step began.
    pub(super) began: Instant,
}

/// Batches of the own slots, from some step of a stage on.
pub(super) struct Batches {
    pub(super) stage: u32,
    pub(super) slots: Range<u32>,
    pub(super) loader: Loader,
    /// What the loader had done when that was counted last.
    pub(super) counted: LoaderStatistics,
    /// The batch handed out last, kept until its step is committed: a redone step uses it again.
    pub(super) current: Option<StepBatch>,
}

/// What the thread has.
pub(super) struct Compute {
    pub(super) config: Arc<ValidConfig>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) run_root: Location,
    pub(super) deadline: Duration,
    pub(super) exchange: Arc<Exchange>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) frozen: FrozenModels,
    pub(super) card: CardWatch,
    pub(super) kernels: KernelsMade,
    pub(super) world: Option<World>,
    pub(super) state: Option<TrainState>,
    /// A stage's first state, from the first step of that stage on until it is committed: until then the end
    /// of the stage before can be saved.
    pub(super) next_stage: Option<TrainState>,
    /// Committed steps behind `state`.
    pub(super) step: u64,
    pub(super) pending: Option<Pending>,
    pub(super) batches: Option<Batches>,
    /// Rows to evaluate on, once they are read for the stage of a number.
    pub(super) held_out: Option<(u32, Arc<HeldOut>)>,
    /// Time that the newest reduction spent on them.
    pub(super) evaluation: Duration,
    /// Places for snapshots of checkpoint parts.
    pub(super) snapshots: Arc<Semaphore>,
    pub(super) aborted: watch::Receiver<u64>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) telemetry: Telemetry,
}

impl Compute {
    pub(super) fn report(&self, report: Report) -> Result<()> {
        self.reports.blocking_send(report).map_err(|_| WorkerError::Protocol("the session is gone".into()))
    }

    pub(super) fn is_aborted(&self, epoch: u64) -> bool {
        *self.aborted.borrow() >= epoch
    }
}
