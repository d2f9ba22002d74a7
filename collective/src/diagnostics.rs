//! What a member shows of itself to whoever has the token.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use blip2_proto::transport::is_authenticated;
use blip2_proto::v1::diagnostics_server;
use blip2_proto::v1::{GiveRequest, ProbeChunk, TakenReply, TraceReply, TraceRequest};
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};

use crate::probe::{MOST_PROBED, chunks};

/// How long whoever measures may take to send.
const TAKE_WITHIN: Duration = Duration::from_secs(30);

type Source = Box<dyn Fn() -> String + Send + Sync>;

/// Where a trace comes from; set once.
#[derive(Clone, Default)]
pub(crate) struct TraceSource(Arc<OnceLock<Source>>);

impl TraceSource {
    /// From here on; a second source is not taken.
    pub(crate) fn set(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        // The first one goes on.
        let _ = self.0.set(Box::new(source));
    }
}

impl fmt::Debug for TraceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSource").field("is_set", &self.0.get().is_some()).finish()
    }
}

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostics {
    trace: TraceSource,
    /// One measurement at a time.
    measuring: Arc<Semaphore>,
}

impl Diagnostics {
    /// One that shows this trace.
    pub(crate) fn new(trace: TraceSource) -> Self {
        Self { trace, measuring: Arc::new(Semaphore::new(1)) }
    }

    fn measure(&self) -> Result<OwnedSemaphorePermit, Status> {
        let only = Arc::clone(&self.measuring).try_acquire_owned();
        only.map_err(|_| Status::unavailable("somebody measures this member just now; ask again"))
    }
}

fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    match is_authenticated(request.extensions()) {
        true => Ok(()),
        false => Err(Status::unauthenticated("the token is not this run's")),
    }
}

fn too_many() -> Status {
    Status::invalid_argument(format!("a measurement has {MOST_PROBED} bytes at most"))
}

#[tonic::async_trait]
impl diagnostics_server::Diagnostics for Diagnostics {
    type GiveBytesStream = BoxStream<'static, Result<ProbeChunk, Status>>;

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        admit(&request)?;
        match self.trace.0.get() {
            Some(source) => Ok(Response::new(TraceReply { trace: source() })),
            None => Err(Status::unavailable("this member keeps no trace")),
        }
    }

    async fn take_bytes(
        &self,
        request: Request<Streaming<ProbeChunk>>,
    ) -> Result<Response<TakenReply>, Status> {
        admit(&request)?;
        let _only = self.measure()?;
        let mut chunks = request.into_inner();
        let taking = async {
            let mut bytes = 0;
            while let Some(chunk) = chunks.message().await? {
                bytes += chunk.data.len() as u64;
                if bytes > MOST_PROBED {
                    return Err(too_many());
                }
            }
            Ok(Response::new(TakenReply { bytes }))
        };
        let taken = tokio::time::timeout(TAKE_WITHIN, taking).await;
        taken.unwrap_or_else(|_| Err(Status::deadline_exceeded("the bytes do not come")))
    }

    async fn give_bytes(
        &self,
        request: Request<GiveRequest>,
    ) -> Result<Response<Self::GiveBytesStream>, Status> {
        admit(&request)?;
        let bytes = request.get_ref().bytes;
        if bytes > MOST_PROBED {
            return Err(too_many());
        }
        let only = self.measure()?;
        // The place is free again when the stream is gone, read or not.
        let given = stream::iter(chunks(bytes)).map(move |chunk| {
            let _held = &only;
            Ok(chunk)
        });
        Ok(Response::new(given.boxed()))
    }
}
