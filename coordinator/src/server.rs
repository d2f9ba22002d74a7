//! The gRPC server of a run.

use std::pin::Pin;
use std::time::Duration;

use blip2_dataset::QuarantineList;
use blip2_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use blip2_proto::v1::{CoordinatorMessage, StatusReply, StatusRequest, WorkerMessage};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::{Actor, Opened};
use crate::{
    Catalogue, CheckpointSettings, CommittedStep, CoordinatorError, CoordinatorSettings, Epochs, Machine,
    Outcome, Result, RunSpec,
};

/// Connections that wait to be taken in.
const WAITING_CONNECTIONS: usize = 64;
/// Messages of one worker that may wait to be sent; one that lets more pile up is lost.
const WAITING_MESSAGES: usize = 256;
/// How long open calls may take to end when the run is over.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);
/// Object with the quarantined rows, in the run's folder.
pub(crate) const QUARANTINE: &str = "quarantine.parquet";

/// Coordinates a run to its end: serves workers on `listener` until the run is done, failed, or saved after `shutdown`.
///
/// `status` always holds the newest state of the run. `commits` gets every committed step once, in order; a receiver
/// that is slow slows the run down, one that is dropped does not matter.
///
/// # Errors
/// The settings do not fit, the store fails before the first step, or the server cannot run. How the run itself ended,
/// failures of workers included, is its [`Outcome`].
pub async fn run(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    spec: RunSpec,
    settings: CoordinatorSettings,
    checkpoints: CheckpointSettings,
    status: watch::Sender<StatusReply>,
    commits: mpsc::Sender<CommittedStep>,
) -> Result<Outcome> {
    spec.validate()?;
    settings.validate(spec.slots)?;
    let started =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    // Unique to this process: no result depends on it, it only tells our own epoch objects from another's.
    let coordinator = format!("{}-{started}", std::process::id());
    let epochs = Epochs::new(&spec.run_root, coordinator);
    let epoch = epochs.begin(spec.resume.as_ref().map_or(0, |record| record.step)).await?;
    let quarantine = match spec.run_root.join(QUARANTINE).read().await? {
        Some(content) => QuarantineList::from_parquet(content)?,
        None => QuarantineList::default(),
    };
    let catalogue = Catalogue::new(&spec.run_root);
    let (root, schedule, keep) = (spec.run_root.clone(), spec.schedule(), checkpoints.keep);
    let machine = Machine::new(spec, settings, checkpoints, epoch, quarantine);

    let (opened, connections) = mpsc::channel(WAITING_CONNECTIONS);
    let service = Service { opened, status: status.subscribe() };
    let stop = CancellationToken::new();
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(CoordinatorServer::new(service))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.clone().cancelled_owned(),
        );
    let mut server = tokio::spawn(serving);
    let actor = Actor::new(machine, catalogue, epochs, schedule, keep, root, status, commits);
    let outcome = tokio::select! {
        outcome = actor.run(connections, shutdown) => Ok(outcome),
        ended = &mut server => Err(CoordinatorError::Server(match ended {
            Ok(Ok(())) => "without a reason".into(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        })),
    };
    stop.cancel();
    if outcome.is_ok() && tokio::time::timeout(SHUTDOWN_WAIT, &mut server).await.is_err() {
        server.abort();
        // The task was aborted just now: its end carries no news.
        let _ = server.await;
    }
    outcome
}

/// Hands connections to the actor and shows the status.
#[derive(Debug)]
struct Service {
    opened: mpsc::Sender<Opened>,
    status: watch::Receiver<StatusReply>,
}

#[tonic::async_trait]
impl Coordinator for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = std::result::Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> std::result::Result<Response<Self::SessionStream>, Status> {
        let (outgoing, messages) = mpsc::channel(WAITING_MESSAGES);
        let opened = Opened { incoming: request.into_inner(), outgoing };
        self.opened.send(opened).await.map_err(|_| Status::unavailable("the run is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> std::result::Result<Response<StatusReply>, Status> {
        Ok(Response::new(self.status.borrow().clone()))
    }
}
