//! A worker's steps as they come to a collector of OpenTelemetry, from a whole process over mutual TLS.
//!
//! Of builds with the feature `otlp` alone; docs/testing.md says how it is run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use blip2_tests::authority::Authority;
use blip2_tests::cluster::Cluster;
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A collector that keeps what it is told.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// It on a port of its own, as long as this lives.
struct Collector {
    kept: Kept,
    endpoint: String,
    _runtime: Runtime,
}

impl Collector {
    /// With a certificate for `localhost`; it takes in those alone whose certificate `authority` has signed.
    fn start(authority: &Authority) -> Self {
        let read = |path: &String| std::fs::read(path).expect("a file of the authority");
        let [certificate, key] = authority.issue_for("collector", "localhost");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read(&certificate), read(&key)))
            .client_ca_root(Certificate::from_pem(read(&authority.file())));
        let runtime = Runtime::new().expect("a runtime");
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let inside = runtime.enter();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let endpoint = format!("https://localhost:{}", incoming.local_addr().expect("bound").port());
        let mut server = Server::builder().tls_config(tls).expect("certificates");
        let server = server.add_service(service);
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(inside);
        Self { kept, endpoint, _runtime: runtime }
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A run of one worker that is told of this collector and these files; what the worker said.
fn run_with(run: &SmallRun, variables: &[(&str, &str)]) -> String {
    let cluster =
        variables.iter().fold(Cluster::new(run), |cluster, (name, value)| cluster.with_variable(name, value));
    let settings = ["--set", "coordinator.workers=1", "--set", "coordinator.min_workers=1"];
    let coordinator = cluster.coordinator(&settings, None);
    let worker = cluster.worker("only", &[&coordinator.url], &[], None).wait().expect(0);
    coordinator.process.wait().expect(0);
    worker.stderr
}

fn number(attributes: &[KeyValue], name: &str) -> Option<i64> {
    match attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

#[test]
fn a_collector_gets_every_step_of_a_worker_over_mutual_tls() {
    let plain = SmallRun::short("");
    plain.train(&["--workers", "1"]).expect(0);
    let run = SmallRun::short("");
    let authority = Authority::new(&run, "authority");
    let collector = Collector::start(&authority);
    let [certificate, key] = authority.issue("worker");
    run_with(
        &run,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority.file()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
            ("OTEL_SERVICE_NAME", "of-this-test"),
        ],
    );
    let requests = collector.requests();
    let resources: Vec<_> = requests.iter().flat_map(|request| &request.resource_spans).collect();
    let named = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        attribute.key == "service.name" && value == Some(&Value::StringValue("of-this-test".into()))
    };
    assert!(resources.iter().all(|spans| {
        spans.resource.as_ref().is_some_and(|resource| resource.attributes.iter().any(named))
    }));
    let spans: Vec<&Span> =
        resources.iter().flat_map(|spans| &spans.scope_spans).flat_map(|scope| &scope.spans).collect();
    // One trace a step, with a span of the worker around all others.
    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    let mut steps = BTreeSet::new();
    for spans in traces.values() {
        let (whole, parts): (Vec<&Span>, Vec<&Span>) =
            spans.iter().copied().partition(|span| span.parent_span_id.is_empty());
        assert_eq!((whole.len(), whole[0].name.as_str()), (1, "only"));
        assert!(parts.len() > 3 && parts.iter().all(|part| part.parent_span_id == whole[0].span_id));
        steps.extend(number(&whole[0].attributes, "blip2.step"));
    }
    let total = 2 * i64::try_from(SHORT_STEPS).expect("few steps");
    assert_eq!(steps, (0..total).collect::<BTreeSet<_>>(), "the last one too");
    assert_eq!(traces.len() as i64, total);
    assert_eq!(run.digest(), plain.digest(), "who is told changes no bit");
}

#[test]
fn a_collector_that_another_authority_has_signed_is_told_nothing_and_the_run_goes_on() {
    let run = SmallRun::short("");
    let [own, other] = ["own", "other"].map(|name| Authority::new(&run, name));
    let collector = Collector::start(&own);
    let said = run_with(
        &run,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &other.file()),
        ],
    );
    assert!(collector.requests().is_empty());
    assert_eq!(said.matches("a step's trace is not sent").count(), 1, "{said}");

    let cluster = Cluster::new(&run)
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .with_variable("OTEL_EXPORTER_OTLP_CERTIFICATE", "nowhere.pem");
    let refused = cluster.worker("only", &["http://127.0.0.1:1"], &[], None).wait();
    refused.expect(78).says(&["OTEL_EXPORTER_OTLP_CERTIFICATE", "nowhere.pem"]);
}
