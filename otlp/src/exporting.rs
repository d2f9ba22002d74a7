//! The task that sends the steps.

use std::time::Duration;

use blip2_telemetry::Telemetry;
use blip2_telemetry::trace::TracedStep;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::spans::{Place, span_data};

/// Steps that may wait for a collector; of more the newest are left out.
const WAITING: usize = 64;
/// How long the last steps may take to be sent.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
/// What the spans are of where `OTEL_SERVICE_NAME` says nothing.
const SERVICE: &str = "blip2-worker";

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address of a collector, or the environment's further wishes, cannot be understood.
    #[error(
        "no traces can be sent to `{endpoint}`: {reason}; give the URL of a collector's gRPC port, for \
         example http://localhost:4317"
    )]
    Collector {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Sends the steps of this process until it is closed.
#[derive(Debug)]
pub struct TraceExport {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TraceExport {
    /// Sends every step of `telemetry` from now on to the collector at `endpoint`, on the runtime that this
    /// is called on; `place` says where this process stands by then.
    ///
    /// # Errors
    /// [`OtlpError::Collector`] of an address, or variables of OpenTelemetry, that cannot be understood. A
    /// collector that is not there is none: it may come.
    pub fn start(
        telemetry: &Telemetry,
        endpoint: &str,
        place: impl Fn() -> Option<Place> + Send + 'static,
    ) -> Result<Self, OtlpError> {
        // Headers, time limit and compression are the environment's too.
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let mut exporter = exporter.map_err(|error| OtlpError::Collector {
            endpoint: endpoint.to_owned(),
            reason: error.to_string(),
        })?;
        exporter.set_resource(&resource());
        let (to, steps) = mpsc::channel(WAITING);
        telemetry.pass_on(to);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "whoever has the export joins it")]
        let task = tokio::spawn(send_all(exporter, steps, place, stop.clone()));
        tracing::info!("every step is sent to {endpoint} as a trace");
        Ok(Self { stop, task })
    }

    /// Sends what waits, and ends.
    pub async fn close(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(CLOSES_WITHIN, &mut self.task).await.is_err() {
            tracing::warn!("the last traces could not be sent within {} s", CLOSES_WITHIN.as_secs());
            self.task.abort();
        }
    }
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else this program's name.
fn resource() -> Resource {
    let named = Resource::builder();
    let is_named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|list| list.contains("service.name="));
    if is_named { named.build() } else { named.with_service_name(SERVICE).build() }
}

async fn send_all(
    exporter: SpanExporter,
    mut steps: mpsc::Receiver<TracedStep>,
    place: impl Fn() -> Option<Place> + Send,
    stop: CancellationToken,
) {
    let mut has_failed = false;
    loop {
        let step = tokio::select! {
            biased;
            step = steps.recv() => step,
            () = stop.cancelled() => None,
        };
        let Some(step) = step else { return };
        let spans = place().map_or_else(Vec::new, |place| span_data(&step, &place));
        if spans.is_empty() {
            continue;
        }
        match exporter.export(spans).await {
            Ok(()) => has_failed = false,
            // Once, until it works again: a collector that is away is not spoken of at every step.
            Err(error) if !std::mem::replace(&mut has_failed, true) => {
                tracing::warn!(%error, "a step's trace is not sent");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use blip2_telemetry::trace::Span;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A collector that keeps what it is told.
    struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.send(request.into_inner()).await.map_err(|_| Status::unavailable("nobody asks"))?;
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    fn step(number: u64) -> Vec<Span> {
        let (name, facts) = (format!("step {number}").into(), vec![("step", number.into())]);
        let time = Duration::from_millis(3);
        vec![Span { lane: "step", name, began: Instant::now(), time, facts, is_beside: false }]
    }

    fn place() -> Option<Place> {
        Some(Place { run: "run".into(), epoch: 2, member: Some(0) })
    }

    #[tokio::test]
    async fn a_collector_gets_every_step_and_the_last_one_before_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (to, mut told) = mpsc::channel(8);
        let mut servers = JoinSet::new();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(to)));
        servers.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let telemetry = Telemetry::new("worker", "0");
        telemetry.call("worker-1");
        let export = TraceExport::start(&telemetry, &endpoint, place).unwrap();
        (6..9).for_each(|number| telemetry.trace(step(number)));
        export.close().await;
        let mut names = Vec::new();
        while let Ok(request) = told.try_recv() {
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            names.extend(scopes.flat_map(|scope| &scope.spans).map(|span| span.name.clone()));
        }
        assert_eq!(names, ["worker-1", "step 6", "worker-1", "step 7", "worker-1", "step 8"]);
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_ends_nothing_and_an_address_that_is_none_is_said() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let telemetry = Telemetry::new("worker", "0");
        let export = TraceExport::start(&telemetry, &endpoint, place).unwrap();
        (0..2 * WAITING as u64).for_each(|number| telemetry.trace(step(number)));
        drop(export);
        let error = TraceExport::start(&telemetry, "not a place", place).unwrap_err().to_string();
        assert!(error.contains("`not a place`") && error.contains("http://localhost:4317"), "{error}");
    }
}
