//! The metrics port of this process, as its flag or its configuration says.

mod pages;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use blip2_proto::transport::{bind, is_loopback, listening};
use blip2_telemetry::Telemetry;
use blip2_telemetry::endpoint::Endpoint;
use clap::Args;
use serde_json::json;

pub(crate) use self::pages::Shown;
use self::pages::{For, routes};
use super::{even_unread, print_json};
use crate::config::MetricsSection;
use crate::error::CliError;

/// Where this process shows its metrics.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MetricsArguments {
    /// Show metrics and health of this process at this address, over plain HTTP and to everybody who reaches
    /// it: `/metrics`, `/livez`, `/readyz`; port 0 takes a free one, printed as a JSON line.
    #[arg(long, value_name = "ADDR", env = "BLIP2_METRICS_LISTEN", hide_env_values = true, value_parser = listening)]
    metrics_listen: Option<SocketAddr>,
}

impl MetricsArguments {
    /// Opens the port, if one is asked for: by the flag, else by `section`. With the page of what goes on
    /// here, which is shown beyond this machine to those alone who have its token, and to nobody if there is
    /// none.
    pub(crate) fn open(
        &self,
        section: Option<&MetricsSection>,
        telemetry: &Telemetry,
        told: Told,
        page: Option<(Arc<dyn Shown>, Option<&str>)>,
    ) -> Result<Option<Endpoint>, CliError> {
        let wrong = |error| CliError::config(format!("metrics.listen: {error}"));
        let configured = section.map(|section| section.listen.as_str()).filter(|listen| !listen.is_empty());
        let address = match (self.metrics_listen, configured) {
            (Some(address), _) => address,
            (None, Some(text)) => listening(text).map_err(wrong)?,
            (None, None) => return Ok(None),
        };
        let failed = |error: std::io::Error| {
            CliError::failed(format!(
                "cannot show metrics on {address}: {error}; choose another --metrics-listen or metrics.listen, or \
                 leave it out"
            ))
        };
        let listener = bind(address).map_err(failed)?;
        let is_local = listener.local_addr().is_ok_and(|bound| is_loopback(&bound));
        let more = page.map_or_else(Router::new, |(page, token)| {
            let shown_to = match token {
                _ if is_local => For::Everybody,
                Some(token) => For::Members(token.into()),
                None => For::Nobody,
            };
            routes(page, shown_to)
        });
        let endpoint = Endpoint::open(listener, telemetry.clone(), more).map_err(failed)?;
        let bound = endpoint.address();
        match told {
            Told::Program => even_unread(print_json(&json!({ "metrics": bound.to_string() })))?,
            Told::Person => eprintln!("metrics at http://{bound}/metrics"),
        }
        Ok(Some(endpoint))
    }
}

/// Who is told where the port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Who reads JSON lines on standard output.
    Program,
    /// Who reads standard error.
    Person,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(listen: &str) -> Result<Option<Endpoint>, CliError> {
        let section = MetricsSection { listen: listen.into() };
        MetricsArguments::default().open(Some(&section), &Telemetry::default(), Told::Person, None)
    }

    #[tokio::test]
    async fn a_port_is_opened_only_where_one_is_asked_for_and_one_that_is_taken_is_named() {
        assert!(open("").unwrap().is_none());
        let endpoint = open("127.0.0.1:0").unwrap().unwrap();
        let error = open(&endpoint.address().to_string()).unwrap_err().to_string();
        assert!(
            error.contains(&endpoint.address().to_string()) && error.contains("metrics.listen"),
            "{error}"
        );
        let error = open("localhost").unwrap_err().to_string();
        assert!(error.contains("metrics.listen: localhost"), "{error}");
        let all = open("[::]:0").unwrap().unwrap();
        assert!(all.address().ip().is_unspecified());
    }
}
