//! What a member shows of itself to whoever has the token.

use std::fmt;
use std::sync::{Arc, OnceLock};

use blip2_proto::transport::is_authenticated;
use blip2_proto::v1::diagnostics_server;
use blip2_proto::v1::{TraceReply, TraceRequest};
use tonic::{Request, Response, Status};

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
pub(crate) struct Diagnostics(pub(crate) TraceSource);

#[tonic::async_trait]
impl diagnostics_server::Diagnostics for Diagnostics {
    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        if !is_authenticated(request.extensions()) {
            return Err(Status::unauthenticated("the token is not this run's"));
        }
        match self.0.0.get() {
            Some(source) => Ok(Response::new(TraceReply { trace: source() })),
            None => Err(Status::unavailable("this member keeps no trace")),
        }
    }
}
