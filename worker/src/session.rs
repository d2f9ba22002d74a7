//! A worker's life in a run: join, take orders, report, leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, Limits, Transport};
use blip2_dataset::{Location, Manifest};
use blip2_proto::v1;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::compute::{Compute, ComputeSpec, Order, Report};
use crate::config::{WorkerConfig, config_hash};
use crate::error::{Result, WorkerError};

/// How a worker is started.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// URL of the coordinator, `http://host:port`.
    pub coordinator: String,
    /// Where this worker's Exchange service listens; port 0 picks one.
    pub listen: SocketAddr,
    /// Host and port under which peers reach it; `None`: the bound address.
    pub advertise: Option<String>,
    /// The run's token.
    pub token: String,
    /// For logs and the status page.
    pub name: String,
    /// Identifies the executable; members of a run have the same.
    pub binary: String,
    /// Hash of the configuration this worker must find; empty: any.
    pub config_hash: String,
    /// How long to try to reach the coordinator.
    pub join_timeout: Duration,
    /// Told the bound address of the Exchange service, before the coordinator is.
    pub on_listening: Option<fn(SocketAddr)>,
}

/// How a worker's life ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The run is done.
    Done,
    /// The run was interrupted with a checkpoint saved.
    Interrupted,
    /// This worker was released; the run continues without it.
    Released,
}

/// Messages in flight between the session and the compute thread, and to the coordinator.
const CHANNEL: usize = 64;
/// Between two attempts to reach the coordinator.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// How long parts in upload and the compute thread may take once the run has ended.
const WIND_DOWN: Duration = Duration::from_secs(30);

/// Joins a run and works until it ends; `shutdown` asks it to leave.
///
/// # Errors
/// The coordinator refuses or cannot be reached, the input is bad, or the run fails.
pub async fn run(options: WorkerOptions, shutdown: impl Future<Output = ()>) -> Result<WorkerEnd> {
    let exchange =
        Exchange::bind(options.listen, options.token.clone(), Limits::default(), Transport::plain()).await?;
    if let Some(tell) = options.on_listening {
        tell(exchange.local_addr());
    }
    let exchange = Arc::new(exchange);
    let ended = join_and_work(&options, exchange.clone(), shutdown).await;
    exchange.shutdown().await;
    ended
}

async fn join_and_work(
    options: &WorkerOptions,
    exchange: Arc<Exchange>,
    shutdown: impl Future<Output = ()>,
) -> Result<WorkerEnd> {
    let mut session = Session::open(options, exchange.local_addr()).await?;
    let welcome = session.welcome(options.join_timeout).await?;
    let started = start_compute(&welcome, exchange.clone()).await;
    let compute = match started {
        Ok(compute) => compute,
        Err(error) => {
            session.fail(&error).await;
            return Err(error);
        }
    };
    let member = MemberLoop { session, exchange, compute, heartbeat: heartbeat(&welcome), epoch: 0 };
    member.work(shutdown).await
}

fn heartbeat(welcome: &v1::Welcome) -> Duration {
    Duration::from_millis(u64::from(welcome.heartbeat_ms.max(10)))
}

/// The stream to the coordinator.
struct Session {
    address: String,
    outgoing: mpsc::Sender<v1::WorkerMessage>,
    incoming: Streaming<v1::CoordinatorMessage>,
}

impl Session {
    async fn open(options: &WorkerOptions, bound: SocketAddr) -> Result<Self> {
        let unreachable =
            |reason: String| WorkerError::Coordinator { address: options.coordinator.clone(), reason };
        let connect = async {
            loop {
                match CoordinatorClient::connect(options.coordinator.clone()).await {
                    Ok(client) => break client,
                    Err(error) => {
                        tracing::debug!(%error, "coordinator not there yet");
                        tokio::time::sleep(RETRY_EVERY).await;
                    }
                }
            }
        };
        let mut client = tokio::time::timeout(options.join_timeout, connect).await.map_err(|_| {
            let seconds = options.join_timeout.as_secs_f64();
            unreachable(format!("cannot be reached within {seconds:.0} s; check --coordinator"))
        })?;
        let (outgoing, messages) = mpsc::channel(CHANNEL);
        let hello = v1::Hello {
            token: options.token.clone(),
            binary: options.binary.clone(),
            exchange_address: options.advertise.clone().unwrap_or_else(|| bound.to_string()),
            name: options.name.clone(),
            config_hash: options.config_hash.clone(),
            ..v1::Hello::default()
        };
        let hello = v1::WorkerMessage { kind: Some(v1::worker_message::Kind::Hello(hello)) };
        // The channel is new and empty.
        let _ = outgoing.send(hello).await;
        let incoming = client
            .session(ReceiverStream::new(messages))
            .await
            .map_err(|status| unreachable(format!("the session was refused: {}", status.message())))?
            .into_inner();
        Ok(Self { address: options.coordinator.clone(), outgoing, incoming })
    }

    async fn welcome(&mut self, within: Duration) -> Result<v1::Welcome> {
        let first = tokio::time::timeout(within, self.next()).await;
        match first.map_err(|_| self.lost("no answer to this worker's greeting"))?? {
            v1::coordinator_message::Kind::Welcome(welcome) => Ok(welcome),
            v1::coordinator_message::Kind::Refused(refused) => {
                Err(WorkerError::Refused { reason: refused.reason })
            }
            other => Err(WorkerError::Protocol(format!("expected a welcome, got {other:?}"))),
        }
    }

    async fn next(&mut self) -> Result<v1::coordinator_message::Kind> {
        match self.incoming.next().await {
            Some(Ok(message)) => message.kind.ok_or_else(|| WorkerError::Protocol("an empty message".into())),
            Some(Err(status)) => Err(self.lost(status.message())),
            None => Err(self.lost("it closed the session")),
        }
    }

    fn lost(&self, reason: &str) -> WorkerError {
        WorkerError::Coordinator { address: self.address.clone(), reason: reason.into() }
    }

    async fn send(&self, kind: v1::worker_message::Kind) -> Result<()> {
        let message = v1::WorkerMessage { kind: Some(kind) };
        self.outgoing.send(message).await.map_err(|_| self.lost("the session is closed"))
    }

    /// Tells the coordinator why this worker cannot go on, and waits until it has taken note.
    async fn fail(&mut self, error: &WorkerError) {
        let failed = v1::Failed { exit_code: error.exit_code(), message: error.to_string() };
        if self.send(v1::worker_message::Kind::Failed(failed)).await.is_err() {
            return;
        }
        let stopped = async {
            while let Ok(kind) = self.next().await {
                if matches!(kind, v1::coordinator_message::Kind::Stop(_)) {
                    break;
                }
            }
        };
        // Without an answer the coordinator sees the stream close.
        let _ = tokio::time::timeout(Duration::from_secs(5), stopped).await;
    }
}

/// The compute thread as the session sees it.
struct ComputeThread {
    orders: Option<mpsc::Sender<Order>>,
    reports: mpsc::Receiver<Report>,
    run_root: Location,
    thread: std::thread::JoinHandle<Result<()>>,
}

async fn start_compute(welcome: &v1::Welcome, exchange: Arc<Exchange>) -> Result<ComputeThread> {
    let config: WorkerConfig = toml::from_str(&welcome.config_toml)
        .map_err(|error| WorkerError::Configuration(format!("the coordinator's: {error}")))?;
    if config_hash(&config) != welcome.config_hash {
        return Err(WorkerError::Protocol(
            "the configuration does not have the hash it is said to have".into(),
        ));
    }
    config.validate()?;
    let run_root = Location::parse(&welcome.run_root)?;
    let manifest = read_manifest(&run_root, &welcome.manifest_hash).await?;
    let spec = ComputeSpec {
        config: Arc::new(config),
        manifest: Arc::new(manifest),
        run_root: run_root.clone(),
        member_id: welcome.member_id,
        deadline: Duration::from_millis(u64::from(welcome.step_deadline_ms.max(1))),
        exchange,
        runtime: tokio::runtime::Handle::current(),
    };
    let (order_sender, orders) = mpsc::channel(CHANNEL);
    let (report_sender, reports) = mpsc::channel(CHANNEL);
    let thread = std::thread::Builder::new()
        .name("compute".into())
        .spawn(move || Compute::new(spec, report_sender)?.run(orders))
        .map_err(|error| WorkerError::Protocol(format!("cannot start the compute thread: {error}")))?;
    Ok(ComputeThread { orders: Some(order_sender), reports, run_root, thread })
}

async fn read_manifest(run_root: &Location, expected: &str) -> Result<Manifest> {
    let location = run_root.join("manifest.parquet");
    let content = location.read().await?.ok_or_else(|| {
        WorkerError::Protocol(format!("{location} is missing: can this worker reach the run's store?"))
    })?;
    let manifest = Manifest::from_parquet(content)?;
    if manifest.digest() != expected {
        return Err(WorkerError::Protocol(format!(
            "{location} is not the manifest the run was started with"
        )));
    }
    Ok(manifest)
}

/// Everything a member has while it works.
struct MemberLoop {
    session: Session,
    exchange: Arc<Exchange>,
    compute: ComputeThread,
    heartbeat: Duration,
    /// The newest assignment's epoch.
    epoch: u64,
}

impl MemberLoop {
    async fn work(mut self, shutdown: impl Future<Output = ()>) -> Result<WorkerEnd> {
        let mut uploads = tokio::task::JoinSet::new();
        let mut beat = tokio::time::interval(self.heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut leaving = false;
        let ended = loop {
            tokio::select! {
                message = self.session.next() => match message {
                    Ok(v1::coordinator_message::Kind::Stop(stop)) => break stop_reason(&stop),
                    Ok(kind) => if let Err(error) = self.order(kind).await { break Err(error) },
                    Err(error) => break Err(error),
                },
                report = self.compute.reports.recv() => match report {
                    Some(Report::Message(message)) => {
                        if self.session.outgoing.send(message).await.is_err() {
                            break Err(self.session.lost("the session is closed"));
                        }
                    }
                    Some(Report::Part { checkpoint, name, content }) => {
                        let folder = self.compute.run_root.join("checkpoints").join(&checkpoint);
                        uploads.spawn(store_part(folder, checkpoint, name, content));
                    }
                    None => break Err(WorkerError::Protocol("the compute thread ended early".into())),
                },
                Some(stored) = uploads.join_next() => {
                    let stored = stored.unwrap_or_else(|e| Err(WorkerError::Panicked(e.to_string())));
                    let told = match stored {
                        Ok(written) => {
                            self.session.send(v1::worker_message::Kind::PartWritten(written)).await
                        }
                        Err(error) => Err(error),
                    };
                    if let Err(error) = told { break Err(error) }
                },
                _ = beat.tick() => {
                    let heartbeat = v1::worker_message::Kind::Heartbeat(v1::Heartbeat {});
                    if let Err(error) = self.session.send(heartbeat).await { break Err(error) }
                },
                () = &mut shutdown, if !leaving => {
                    leaving = true;
                    let message = v1::worker_message::Kind::Leaving(v1::Leaving {});
                    if let Err(error) = self.session.send(message).await { break Err(error) }
                },
            }
        };
        uploads.shutdown().await;
        self.wind_down(ended).await
    }

    /// Passes an order on; an abort goes to the exchange at once, where the compute thread may be waiting.
    async fn order(&mut self, kind: v1::coordinator_message::Kind) -> Result<()> {
        let order = match kind {
            v1::coordinator_message::Kind::Abort(abort) => {
                self.exchange.abort(abort.epoch, &abort.reason);
                return Ok(());
            }
            v1::coordinator_message::Kind::Assignment(assignment) => {
                self.exchange.abort(self.epoch, "a newer assignment came");
                self.epoch = assignment.epoch;
                Order::Assignment(assignment)
            }
            v1::coordinator_message::Kind::Commit(commit) => Order::Commit(commit),
            other => return Err(WorkerError::Protocol(format!("unexpected in a session: {other:?}"))),
        };
        if let Some(orders) = &self.compute.orders
            && orders.send(order).await.is_err()
        {
            return Err(WorkerError::Protocol("the compute thread ended early".into()));
        }
        Ok(())
    }

    /// Stops and joins the compute thread. Its own error says more than what its end led to.
    async fn wind_down(mut self, ended: Result<WorkerEnd>) -> Result<WorkerEnd> {
        self.exchange.abort(self.epoch, "the session has ended");
        if let Some(orders) = self.compute.orders.take() {
            // A thread that is gone needs no order.
            let _ = orders.try_send(Order::Stop);
        }
        let ComputeThread { mut reports, thread, .. } = self.compute;
        let drain = async { while reports.recv().await.is_some() {} };
        if tokio::time::timeout(WIND_DOWN, drain).await.is_err() {
            tracing::warn!("the compute thread does not end; it is left behind");
            return ended;
        }
        let computed = match thread.join() {
            Ok(result) => result,
            Err(panic) => Err(WorkerError::Panicked(panic_text(panic.as_ref()))),
        };
        match (ended, computed) {
            (Err(WorkerError::Protocol(_)), Err(error)) => {
                self.session.fail(&error).await;
                Err(error)
            }
            (Err(error @ WorkerError::Data(_)), _) => {
                self.session.fail(&error).await;
                Err(error)
            }
            (ended, _) => ended,
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

fn stop_reason(stop: &v1::Stop) -> Result<WorkerEnd> {
    match stop.kind() {
        v1::StopKind::StopDone => Ok(WorkerEnd::Done),
        v1::StopKind::StopInterrupted => Ok(WorkerEnd::Interrupted),
        v1::StopKind::StopReleased => Ok(WorkerEnd::Released),
        v1::StopKind::StopFailed | v1::StopKind::StopRejoin | v1::StopKind::StopUnspecified => {
            Err(WorkerError::RunFailed { exit_code: stop.exit_code.max(1), reason: stop.reason.clone() })
        }
    }
}

async fn store_part(
    folder: Location,
    checkpoint: String,
    name: String,
    content: bytes::Bytes,
) -> Result<v1::PartWritten> {
    let length = content.len() as u64;
    let hashed = content.clone();
    let blake3 = tokio::task::spawn_blocking(move || blake3::hash(&hashed).to_hex().to_string())
        .await
        .map_err(|error| WorkerError::Panicked(error.to_string()))?;
    folder.join(&name).put(content).await?;
    Ok(v1::PartWritten { checkpoint, part: name, length, blake3, ..v1::PartWritten::default() })
}
