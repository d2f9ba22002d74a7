//! The steps of this worker as spans for a collector of OpenTelemetry, where the environment names one.

#[cfg(feature = "otlp")]
pub(crate) use blip2_otlp::TraceExport;
use blip2_telemetry::Telemetry;

use crate::error::CliError;
#[cfg(feature = "otlp")]
use crate::logging::standing::Standing;

/// The variables of OpenTelemetry that name a collector, the more particular one first.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The variable that keeps all of it from starting.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// The variable that names a collector, and the collector; `None` where none is to be told anything.
fn collector(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    if variable(DISABLED).is_some_and(|said| said.eq_ignore_ascii_case("true")) {
        return None;
    }
    let named = ENDPOINTS.into_iter().filter_map(|name| Some((name, variable(name)?)));
    named.into_iter().find(|(_, endpoint)| !endpoint.is_empty())
}

/// Sends every step to the collector that the environment names, if it names one.
#[cfg(feature = "otlp")]
pub(crate) fn start(telemetry: &Telemetry) -> Result<Option<TraceExport>, CliError> {
    let Some((variable, endpoint)) = collector(|name| std::env::var(name).ok()) else { return Ok(None) };
    let export = TraceExport::start(telemetry, &endpoint, place);
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
    if let Some((variable, endpoint)) = collector(|name| std::env::var(name).ok()) {
        tracing::warn!(
            "{variable} names {endpoint}, which is told nothing: this build was made without the feature `otlp`"
        );
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_collector_as_for_every_program_with_opentelemetry() {
        let named = |set: &[(&str, &str)]| {
            collector(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
            .map(|(_, endpoint)| endpoint)
        };
        let [traces, all] = ENDPOINTS;
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[(all, "")]), None);
        assert_eq!(named(&[(all, "http://a:4317")]).as_deref(), Some("http://a:4317"));
        assert_eq!(
            named(&[(all, "http://a:4317"), (traces, "http://b:4317")]).as_deref(),
            Some("http://b:4317")
        );
        assert_eq!(named(&[(all, "http://a:4317"), (DISABLED, "TRUE")]), None);
        assert_eq!(named(&[(all, "http://a:4317"), (DISABLED, "false")]).as_deref(), Some("http://a:4317"));
    }
}
