//! The steps of this worker as spans for a collector of OpenTelemetry, where the environment names one.

#[cfg(feature = "otlp")]
use blip2_otlp::CollectorTls;
#[cfg(feature = "otlp")]
pub(crate) use blip2_otlp::TraceExport;
use blip2_telemetry::Telemetry;

use crate::error::CliError;
#[cfg(feature = "otlp")]
use crate::logging::standing::Standing;

/// How the variables of OpenTelemetry begin, the more particular one first.
const PREFIXES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
/// The variable that keeps all of it from starting.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Collector {
    /// The variable that says so.
    variable: String,
    /// Its URL, with a scheme.
    endpoint: String,
}

/// The variable that has a setting, and the setting.
fn setting(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Option<(String, String)> {
    PREFIXES.into_iter().find_map(|prefix| {
        let full = format!("{prefix}{name}");
        let value = variable(&full).filter(|value| !value.is_empty())?;
        Some((full, value))
    })
}

/// The collector; `None` where none is to be told anything. An address without a scheme is one of `https`,
/// unless the environment says otherwise.
fn collector(variable: &impl Fn(&str) -> Option<String>) -> Option<Collector> {
    let is_true = |said: &str| said.eq_ignore_ascii_case("true");
    if variable(DISABLED).is_some_and(|said| is_true(&said)) {
        return None;
    }
    let (named, endpoint) = setting(variable, "ENDPOINT")?;
    let is_insecure = setting(variable, "INSECURE").is_some_and(|(_, said)| is_true(&said));
    let endpoint = match (endpoint.contains("://"), is_insecure) {
        (true, _) => endpoint,
        (false, true) => format!("http://{endpoint}"),
        (false, false) => format!("https://{endpoint}"),
    };
    Some(Collector { variable: named, endpoint })
}

/// What the environment names for connections over TLS.
#[cfg(feature = "otlp")]
fn tls(variable: &impl Fn(&str) -> Option<String>) -> Result<CollectorTls, CliError> {
    let pem = |name: &str, what: &str| -> Result<Option<Vec<u8>>, CliError> {
        let Some((variable, path)) = setting(variable, name) else { return Ok(None) };
        let wrong = |reason: String| CliError::config(format!("{variable}: {path}: {reason}"));
        let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let holds_it = pem.windows(what.len()).any(|part| part == what.as_bytes());
        if holds_it { Ok(Some(pem)) } else { Err(wrong(format!("holds no PEM block of a {what}"))) }
    };
    let authority = pem("CERTIFICATE", "CERTIFICATE")?;
    let identity = match (pem("CLIENT_CERTIFICATE", "CERTIFICATE")?, pem("CLIENT_KEY", "PRIVATE KEY")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(CliError::config(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY belong together: set both, or \
                 neither",
            ));
        }
    };
    Ok(CollectorTls { authority, identity })
}

fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Sends every step to the collector that the environment names, if it names one.
#[cfg(feature = "otlp")]
pub(crate) fn start(telemetry: &Telemetry) -> Result<Option<TraceExport>, CliError> {
    let Some(Collector { variable, endpoint }) = collector(&of_process) else { return Ok(None) };
    // Certificates of a connection in the clear are nobody's concern.
    let tls = if endpoint.starts_with("https://") { tls(&of_process)? } else { CollectorTls::default() };
    let export = TraceExport::start(telemetry, &endpoint, tls, place);
    export.map(Some).map_err(|error| CliError::config(format!("{variable}: {error}")))
}

/// Where this process stands, as its log lines say it.
#[cfg(feature = "otlp")]
fn place() -> Option<blip2_otlp::Place> {
    let Standing { run, epoch, member, .. } = Standing::now();
    Some(blip2_otlp::Place { run, epoch: epoch?, member })
}

/// What this build has not.
#[cfg(not(feature = "otlp"))]
pub(crate) struct TraceExport(std::convert::Infallible);

#[cfg(not(feature = "otlp"))]
impl TraceExport {
    pub(crate) async fn close(self) {
        match self.0 {}
    }
}

/// Says so where a collector is named that this build cannot tell anything.
#[cfg(not(feature = "otlp"))]
pub(crate) fn start(_: &Telemetry) -> Result<Option<TraceExport>, CliError> {
    if let Some(Collector { variable, endpoint }) = collector(&of_process) {
        tracing::warn!(
            "{variable} names {endpoint}, which is told nothing: this build was made without the feature `otlp`"
        );
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment with these variables.
    fn with(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let set: Vec<(String, String)> =
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        move |name| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_environment_names_a_collector_as_for_every_program_with_opentelemetry() {
        let named = |set: &[(&str, &str)]| collector(&with(set)).map(|collector| collector.endpoint);
        let [traces, all] = PREFIXES.map(|prefix| format!("{prefix}ENDPOINT"));
        let (traces, all) = (traces.as_str(), all.as_str());
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[(all, "")]), None);
        assert_eq!(named(&[(all, "http://a:4317")]).as_deref(), Some("http://a:4317"));
        assert_eq!(
            named(&[(all, "http://a:4317"), (traces, "http://b:4317")]).as_deref(),
            Some("http://b:4317")
        );
        assert_eq!(named(&[(all, "http://a:4317"), (DISABLED, "TRUE")]), None);
        assert_eq!(named(&[(all, "http://a:4317"), (DISABLED, "false")]).as_deref(), Some("http://a:4317"));
        assert_eq!(named(&[(all, "a:4317")]).as_deref(), Some("https://a:4317"));
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        assert_eq!(named(&[(all, "a:4317"), insecure]).as_deref(), Some("http://a:4317"));
        assert_eq!(named(&[(all, "https://a:4317"), insecure]).as_deref(), Some("https://a:4317"));
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn certificates_are_read_as_the_environment_names_them_and_what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name).display().to_string();
            std::fs::write(&path, text).unwrap();
            path
        };
        let [own, other] = ["own", "other"].map(|name| file(name, "-----BEGIN CERTIFICATE-----\n"));
        let key = file("key", "-----BEGIN PRIVATE KEY-----\n");
        let empty = file("empty", "");
        let [all, traces] = ["OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"];
        let [shown, shown_key] = ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
        let none = tls(&with(&[])).unwrap();
        assert!(none.authority.is_none() && none.identity.is_none());
        let set = [(all, own.as_str()), (shown, other.as_str()), (shown_key, key.as_str())];
        let both = tls(&with(&set)).unwrap();
        assert!(both.authority.is_some() && both.identity.is_some());
        let error = |set: &[(&str, &str)]| tls(&with(set)).err().expect("refused").to_string();
        assert!(error(&[(all, &own), (traces, "nowhere")]).contains(&format!("{traces}: nowhere: ")));
        assert!(error(&[(all, &empty)]).contains("holds no PEM block of a CERTIFICATE"));
        assert!(error(&[(shown, &own)]).contains("belong together"));
        assert!(error(&[(shown, &own), (shown_key, &other)]).contains("PRIVATE KEY"));
    }
}
