//! The compute thread: takes one order at a time, does it, and answers once.

mod entering;
mod holdings;
mod recording;
mod saving;
mod stepping;

use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_collective::Exchange;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::error::DatasetError;
use blip2_proto::drill::Drill;
use blip2_proto::v1;
use blip2_run::layout::MANIFEST;
use blip2_store::Location;
use blip2_store::error::StoreError;
use blip2_store::secret_url::remember_credentials_of;
use blip2_telemetry::Telemetry;
use blip2_tensors::device::card::CardWatch;
use blip2_tensors::device::seat::DeviceChoice;
use blip2_tensors::device::{DeviceName, KernelsMade};
use tokio::sync::{Semaphore, mpsc, watch};

use self::holdings::Compute;
pub(crate) use self::holdings::Report;
use crate::check::check_row;
use crate::config::WorkerConfig;
use crate::config::hash::config_hash;
use crate::error::{Result, WorkerError};
use crate::member::{Failure, MemberEvent};
use crate::own_device::OwnDevice;
use crate::warm_up::warm_up;

/// Orders that may wait; the member gives one at a time.
const ORDERS: usize = 4;
/// Reports that may wait for the session.
const REPORTS: usize = 64;
/// Snapshots of checkpoint parts in memory at a time.
const SNAPSHOTS: usize = 2;

/// What the session tells the compute thread.
#[derive(Debug)]
pub(crate) enum Order {
    Enter { assignment: v1::Assignment, member_id: u32, apply_pending: bool },
    Reduce { epoch: u64, step: u64 },
    Apply(v1::Commit),
}

/// What the compute thread is started with.
pub(crate) struct ComputeSpec {
    pub(crate) config_toml: String,
    pub(crate) config_hash: String,
    pub(crate) manifest_hash: String,
    pub(crate) run_root: Location,
    pub(crate) deadline: Duration,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) drill: Drill,
    pub(crate) device: DeviceChoice,
    pub(crate) telemetry: Telemetry,
}

/// The thread as the session sees it.
pub(crate) struct ComputeThread {
    orders: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Report>,
    aborted: watch::Sender<u64>,
    device: OwnDevice,
    thread: std::thread::JoinHandle<()>,
}

impl ComputeThread {
    /// Starts the thread; it loads what the run needs, warms up and says that it is prepared.
    pub(crate) fn start(spec: ComputeSpec) -> Result<Self> {
        let (order_sender, mut orders) = mpsc::channel(ORDERS);
        let (report_sender, reports) = mpsc::channel(REPORTS);
        let (aborted, abort_watch) = watch::channel(0);
        let device = OwnDevice::default();
        let own = device.clone();
        let life = move || {
            let prepared = Compute::prepare(spec, &own, report_sender.clone(), abort_watch);
            if let Err(error) = prepared.and_then(|compute| compute.run(&mut orders)) {
                // A session that is gone needs no report.
                let _ = report_sender.blocking_send(Report::Failed(own.blamed(error)));
            }
            // The session takes the end of the reports for a panic: wait until it wants no more.
            while orders.blocking_recv().is_some() {}
        };
        let thread = std::thread::Builder::new().name("compute".into()).spawn(life);
        let thread = thread
            .map_err(|error| WorkerError::Protocol(format!("cannot start the compute thread: {error}")))?;
        Ok(Self { orders: order_sender, reports, aborted, device, thread })
    }

    /// Gives an order; whether the thread takes it.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// The next report; `None` when the thread panicked.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// What is known of the device.
    pub(crate) fn device(&self) -> v1::WorkerDevice {
        self.device.described()
    }

    /// Ends what waits on behalf of `epoch` and of older ones.
    pub(crate) fn abort(&self, epoch: u64) {
        self.aborted.send_if_modified(|aborted| {
            let newer = epoch > *aborted;
            *aborted = epoch.max(*aborted);
            newer
        });
    }

    /// Waits for the end of a thread whose reports have ended.
    pub(crate) fn join(self) -> Result<()> {
        drop(self.orders);
        joined(self.thread, &self.device)
    }

    /// Ends the thread and waits for it; one that does not end `within` this time is left behind.
    pub(crate) async fn end(self, within: Duration) -> Result<()> {
        self.abort(u64::MAX);
        let Self { orders, mut reports, thread, device, .. } = self;
        drop(orders);
        let drain = async { while reports.recv().await.is_some() {} };
        if tokio::time::timeout(within, drain).await.is_err() {
            tracing::warn!("the compute thread does not end; it is left behind");
            return Ok(());
        }
        joined(thread, &device)
    }
}

fn joined(thread: std::thread::JoinHandle<()>, device: &OwnDevice) -> Result<()> {
    thread.join().map_err(|panic| device.panicked(panic_text(panic.as_ref())))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

impl Compute {
    fn prepare(
        spec: ComputeSpec,
        own: &OwnDevice,
        reports: mpsc::Sender<Report>,
        aborted: watch::Receiver<u64>,
    ) -> Result<Self> {
        let mut config: WorkerConfig = toml::from_str(&spec.config_toml)
            .map_err(|error| WorkerError::Configuration(format!("the coordinator's: {error}")))?;
        if config_hash(&config) != spec.config_hash {
            let reason = "the configuration does not have the hash it is said to have".into();
            return Err(WorkerError::Protocol(reason));
        }
        let device = spec.device.decide("train.device", &config.train.device);
        let device = device.map_err(|error| WorkerError::Configuration(error.to_string()))?;
        config.train.device = device.to_string();
        own.chosen(device);
        remember_credentials_of(&config);
        let config = Arc::new(spec.runtime.block_on(config.with_models_here())?.validate()?);
        let manifest = spec.runtime.block_on(read_manifest(&spec.run_root, &spec.manifest_hash))?;
        let kernels = KernelsMade::from_now_on();
        let mut frozen = config.frozen_models()?;
        let in_memory = Instant::now();
        let card = CardWatch::new(device, &frozen.device);
        own.opened(&card);
        frozen.drill = spec.drill;
        let manifest = Arc::new(manifest);
        // A corpus that this member cannot read is found before others wait for it.
        check_row(&config, &frozen, manifest.clone(), spec.runtime.clone(), spec.deadline)?;
        // A processor has no kernels to make, and its first pass costs what every pass does.
        if device != DeviceName::Cpu {
            warm_up(&config, &frozen)?;
        }
        tracing::info!(seconds = in_memory.elapsed().as_secs_f64(), "ready after the models are in memory");
        let compute = Self {
            config,
            manifest,
            run_root: spec.run_root,
            deadline: spec.deadline,
            exchange: spec.exchange,
            runtime: spec.runtime,
            frozen,
            card,
            kernels,
            world: None,
            state: None,
            next_stage: None,
            step: 0,
            pending: None,
            batches: None,
            held_out: None,
            evaluation: Duration::ZERO,
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
            aborted,
            reports,
            telemetry: spec.telemetry,
        };
        compute.report(Report::Event(Box::new(MemberEvent::Prepared)))?;
        Ok(compute)
    }

    /// Follows orders until the session is gone.
    fn run(mut self, orders: &mut mpsc::Receiver<Order>) -> Result<()> {
        while let Some(order) = orders.blocking_recv() {
            let answer = match order {
                Order::Enter { assignment, member_id, apply_pending } => {
                    let result = blameless(self.enter(&assignment, member_id, apply_pending), member_id)?;
                    MemberEvent::Entered { epoch: assignment.epoch, step: assignment.step, result }
                }
                Order::Reduce { epoch, step } => {
                    let own = self.world.as_ref().and_then(|world| world.own().ok()).map(|own| own.id);
                    let result = blameless(self.reduce(epoch, step), own.unwrap_or_default())?;
                    MemberEvent::Reduced { epoch, step, result }
                }
                Order::Apply(commit) => {
                    self.apply(&commit)?;
                    MemberEvent::Applied { step: commit.step }
                }
            };
            self.report(Report::Event(Box::new(answer)))?;
        }
        Ok(())
    }
}

/// Turns the failures that another attempt may not have into an answer, which names who is to blame: members
/// that did not answer, or `own` for what is this member's own trouble. The others end it.
fn blameless<T>(result: Result<T>, own: u32) -> Result<std::result::Result<T, Failure>> {
    let error = match result {
        Ok(done) => return Ok(Ok(done)),
        Err(error) => error,
    };
    let suspects = match &error {
        WorkerError::Collective(error) if error.is_own() || lacks_descriptors() => vec![own],
        WorkerError::Collective(error) => error.suspects(),
        WorkerError::Aborted { .. } | WorkerError::Checkpoint { .. } => Vec::new(),
        WorkerError::Data(
            DatasetError::Store(StoreError::Failed { .. } | StoreError::Denied { .. })
            | DatasetError::ReadRowGroup { .. }
            | DatasetError::Deadline { .. },
        ) => vec![own],
        _ => return Err(error),
    };
    tracing::warn!(%error, "an order of the coordinator could not be done");
    Ok(Err(Failure { reason: error.to_string(), suspects }))
}

/// Whether this process can open nothing any more: then it is not the others that do not answer.
fn lacks_descriptors() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
}

async fn read_manifest(run_root: &Location, expected: &str) -> Result<Manifest> {
    let location = run_root.join(MANIFEST);
    let content = location.read().await?.ok_or_else(|| {
        WorkerError::Protocol(format!("{location} is missing: can this worker reach the run's store?"))
    })?;
    let manifest = Manifest::from_parquet(content)?;
    if manifest.digest() != expected {
        let reason = format!("{location} is not the manifest the run was started with");
        return Err(WorkerError::Protocol(reason));
    }
    Ok(manifest)
}
