//! The task that sends the steps.

use std::time::Duration;

use blip2_telemetry::Telemetry;
use blip2_telemetry::trace::TracedStep;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

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
         example http://localhost:4317, or https://collector.example:4317"
    )]
    Collector {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// How a collector behind an `https` address is known, and this process to it.
#[derive(Clone, Default)]
pub struct CollectorTls {
    /// PEM certificates of the authority that has signed the collector's; `None`: those that this system
    /// trusts.
    pub authority: Option<Vec<u8>>,
    /// PEM certificate and key of this process; `None`: it shows none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl CollectorTls {
    fn config(self) -> ClientTlsConfig {
        let config = match self.authority {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        match self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

/// Sends the steps of this process until it is closed.
#[derive(Debug)]
pub struct TraceExport {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TraceExport {
    /// Sends every step of `telemetry` from now on to the collector at `endpoint`, on the runtime that this
    /// is called on, over `tls` where that begins with `https://`; `place` says where this process stands by
    /// then.
    ///
    /// # Errors
    /// [`OtlpError::Collector`] of an address, certificates, or variables of OpenTelemetry, that cannot be
    /// understood. A collector that is not there is none: it may come.
    pub fn start(
        telemetry: &Telemetry,
        endpoint: &str,
        tls: CollectorTls,
        place: impl Fn() -> Option<Place> + Send + 'static,
    ) -> Result<Self, OtlpError> {
        // Headers, time limit and compression are the environment's too.
        let builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let builder = match endpoint.starts_with("https://") {
            true => builder.with_tls_config(tls.config()),
            false => builder,
        };
        let mut exporter = builder.build().map_err(|error| OtlpError::Collector {
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
    use tonic::transport::ServerTlsConfig;
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
        let export = TraceExport::start(&telemetry, &endpoint, CollectorTls::default(), place).unwrap();
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
        let export = TraceExport::start(&telemetry, &endpoint, CollectorTls::default(), place).unwrap();
        (0..2 * WAITING as u64).for_each(|number| telemetry.trace(step(number)));
        drop(export);
        let plain = CollectorTls::default;
        let error = TraceExport::start(&telemetry, "not a place", plain(), place).unwrap_err().to_string();
        assert!(error.contains("`not a place`") && error.contains("http://localhost:4317"), "{error}");
        let damaged = "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n";
        let tls = CollectorTls { authority: Some(damaged.into()), identity: None };
        let error =
            TraceExport::start(&telemetry, "https://localhost:1", tls, place).unwrap_err().to_string();
        assert!(error.contains("`https://localhost:1`"), "{error}");
    }

    /// A certificate for `localhost` that signs itself, and its key.
    fn self_signed() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn over_tls_a_collector_gets_steps_if_its_authority_is_the_one_that_is_named() {
        let ((own, own_key), (other, _)) = (self_signed(), self_signed());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (to, mut told) = mpsc::channel(8);
        let mut servers = JoinSet::new();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&own, own_key));
        let mut server = tonic::transport::Server::builder().tls_config(tls).unwrap();
        let server = server.add_service(TraceServiceServer::new(Collector(to)));
        servers.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        for (authority, number) in [(other, 3), (own, 4)] {
            let telemetry = Telemetry::new("worker", "0");
            let tls = CollectorTls { authority: Some(authority.into()), identity: None };
            let export = TraceExport::start(&telemetry, &endpoint, tls, place).unwrap();
            telemetry.trace(step(number));
            export.close().await;
        }
        let request = told.try_recv().unwrap();
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        assert_eq!(spans[1].name, "step 4", "nothing to whoever has another authority");
        assert!(told.try_recv().is_err());
    }
}
