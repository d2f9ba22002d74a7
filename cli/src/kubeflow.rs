//! A run's progress as Kubeflow's Trainer (2.2 and later) shows it: pushed to the server that it names in the
//! environment of its pods.
//!
//! The form is the Trainer's: `POST`, a bearer's token, and `{"trainerStatus": {…}}` of at most 256 metrics
//! and 64 KiB, at most every five seconds.

use std::path::PathBuf;
use std::time::Duration;

use blip2_proto::v1::StatusReply;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Certificate, Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::gone::gone;
use crate::logging::rfc3339_now;

/// The server's URL, the file of the authority that it shows, and the file of the token, which rotates.
const URL: &str = "KUBEFLOW_TRAINER_SERVER_URL";
const CA_CERT: &str = "KUBEFLOW_TRAINER_SERVER_CA_CERT";
const TOKEN: &str = "KUBEFLOW_TRAINER_SERVER_TOKEN";

/// Between two pushes.
const EVERY: Duration = Duration::from_secs(5);
/// How long the server may take for one.
const WITHIN: Duration = Duration::from_secs(5);
/// Metrics of a push.
const MOST_METRICS: usize = 256;

/// Where the progress of a run is pushed.
#[derive(Debug)]
pub(crate) struct TrainerServer {
    url: String,
    token: Option<PathBuf>,
    client: Client,
}

impl TrainerServer {
    /// The one of this process' environment, if it names one. What is wrong with it is said and costs the
    /// pushes, never the run.
    pub(crate) fn of_process() -> Option<Self> {
        let server = Self::named(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
        server.map_err(|reason| tracing::warn!("no progress is pushed: {reason}")).ok()
    }

    fn named(variable: impl Fn(&str) -> Option<String>) -> Option<Result<Self, String>> {
        let url = variable(URL)?;
        let client = client(variable(CA_CERT).as_deref());
        Some(client.map(|client| Self { url, token: variable(TOKEN).map(PathBuf::from), client }))
    }

    /// Whether the server has taken it, and did not say that it comes too soon after another.
    async fn push(&self, status: &StatusReply) -> Result<bool, String> {
        let mut request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json");
        if let Some(file) = &self.token {
            let token = tokio::fs::read_to_string(file).await;
            let token = token.map_err(|error| format!("{TOKEN}={}: {error}", file.display()))?;
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let sent = request.body(progress(status, rfc3339_now()).to_string()).send().await;
        match sent.map_err(|error| error.without_url().to_string())?.status() {
            done if done.is_success() => Ok(true),
            StatusCode::TOO_MANY_REQUESTS => Ok(false),
            refused => Err(format!("the server answers {refused}")),
        }
    }
}

fn client(ca_cert: Option<&str>) -> Result<Client, String> {
    let mut client = Client::builder().timeout(WITHIN);
    if let Some(file) = ca_cert {
        let wrong = |error: &dyn std::fmt::Display| format!("{CA_CERT}={file}: {error}");
        let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
        client = client.tls_certs_merge(authorities);
    }
    client.build().map_err(|error| error.to_string())
}

/// Pushes the run's progress beside it, until its end, which is pushed too; nothing without a server.
pub(crate) async fn push_progress(server: Option<TrainerServer>, mut status: watch::Receiver<StatusReply>) {
    let Some(server) = server else { return };
    tracing::info!("the run's progress is pushed to {}", server.url);
    let mut has_failed = false;
    let mut push = async |status: &StatusReply| match server.push(status).await {
        Ok(taken) => {
            has_failed = false;
            taken
        }
        Err(reason) => {
            // Once, until it works again.
            if !std::mem::replace(&mut has_failed, true) {
                tracing::warn!("the run's progress is not pushed to {}: {reason}", server.url);
            }
            true
        }
    };
    // Before the run is led here there is nothing to say.
    if status.wait_for(|status| status.epoch > 0).await.is_err() {
        return;
    }
    loop {
        let now = status.borrow_and_update().clone();
        let taken = push(&now).await;
        if tokio::time::timeout(EVERY, gone(status.clone())).await.is_ok() {
            // The end is told at once, unless that is too soon for the server.
            if !taken {
                tokio::time::sleep(EVERY).await;
            }
            let last = status.borrow().clone();
            if !taken || last != now {
                push(&last).await;
            }
            return;
        }
    }
}

/// A push.
fn progress(status: &StatusReply, now: String) -> Value {
    let numbers = [
        ("step", status.step as f64),
        ("samples_seen", status.samples_seen as f64),
        ("samples_per_s", status.samples_per_s),
        ("goodput", status.goodput),
        ("members", status.members.len() as f64),
    ];
    let named =
        numbers.into_iter().chain(status.values.iter().map(|value| (value.name.as_str(), value.value)));
    let finite = named.filter(|(_, value)| value.is_finite()).take(MOST_METRICS);
    // The Trainer's values are text.
    let metrics: Vec<Value> =
        finite.map(|(name, value)| json!({ "name": name, "value": value.to_string() })).collect();
    let mut told = json!({ "metrics": metrics, "lastUpdatedTime": now });
    if let Some(percent) = (100 * status.step).checked_div(status.total_steps) {
        told["progressPercentage"] = percent.min(100).into();
    }
    if status.eta_seconds > 0.0 || status.state == "done" {
        told["estimatedRemainingSeconds"] = (status.eta_seconds.ceil() as u64).into();
    }
    json!({ "trainerStatus": told })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use blip2_proto::v1::NamedValue;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;

    fn status(step: u64, state: &str) -> StatusReply {
        let value = |name: &str, value| NamedValue { name: name.into(), value };
        StatusReply {
            epoch: 2,
            step,
            total_steps: 8,
            state: state.into(),
            eta_seconds: if state == "done" { 0.0 } else { 61.2 },
            values: vec![value("loss", 2.5), value("odd", f64::NAN)],
            ..StatusReply::default()
        }
    }

    #[test]
    fn a_push_has_what_the_trainer_knows_and_no_number_that_is_none() {
        let told = progress(&status(3, "running"), "2026-01-01T00:00:00Z".into());
        let told = &told["trainerStatus"];
        assert_eq!(
            (&told["progressPercentage"], &told["estimatedRemainingSeconds"]),
            (&37.into(), &62.into())
        );
        assert_eq!(told["lastUpdatedTime"], "2026-01-01T00:00:00Z");
        let metrics = told["metrics"].as_array().unwrap();
        assert!(metrics.contains(&json!({ "name": "loss", "value": "2.5" })), "{metrics:?}");
        assert!(metrics.iter().all(|metric| metric["name"] != "odd"));
        let many = StatusReply { values: vec![NamedValue::default(); 1000], ..status(1, "running") };
        assert_eq!(progress(&many, String::new())["trainerStatus"]["metrics"].as_array().unwrap().len(), 256);
        let unknown = progress(&StatusReply::default(), String::new());
        assert_eq!(unknown["trainerStatus"].get("progressPercentage"), None);
        let done = progress(&status(8, "done"), String::new());
        assert_eq!(done["trainerStatus"]["estimatedRemainingSeconds"], 0);
    }

    #[tokio::test]
    async fn the_server_is_told_with_the_newest_token_and_of_the_end_at_once() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (told, mut pushes) = mpsc::channel(16);
        let told = Arc::new(told);
        let heard = move |headers: HeaderMap, body: Bytes| {
            let told = told.clone();
            async move {
                let shown = headers[AUTHORIZATION].to_str().unwrap().to_owned();
                let body: Value = serde_json::from_slice(&body).unwrap();
                told.send((shown, body["trainerStatus"]["progressPercentage"].as_u64())).await.unwrap();
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        let mut servers = JoinSet::new();
        servers
            .spawn(async move { axum::serve(listener, Router::new().route("/status", post(heard))).await });
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "first\n").unwrap();
        let server = TrainerServer::named(|name| match name {
            URL => Some(url.clone()),
            TOKEN => Some(token.display().to_string()),
            _ => None,
        });
        let (sender, receiver) = watch::channel(StatusReply::default());
        let pushing = push_progress(Some(server.unwrap().unwrap()), receiver);
        let run = async {
            sender.send_replace(status(4, "running"));
            assert_eq!(pushes.recv().await, Some(("Bearer first".into(), Some(50))));
            std::fs::write(&token, "second").unwrap();
            sender.send_replace(status(8, "done"));
            drop(sender);
        };
        tokio::join!(pushing, run);
        assert_eq!(pushes.recv().await, Some(("Bearer second".into(), Some(100))));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_and_a_certificate_that_is_none_cost_the_pushes_alone() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let named = |set: &[(&str, &str)]| {
            TrainerServer::named(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(named(&[]).is_none());
        let wrong = named(&[(URL, "https://a"), (CA_CERT, "/nowhere/ca.pem")]).unwrap().unwrap_err();
        assert!(wrong.contains("KUBEFLOW_TRAINER_SERVER_CA_CERT=/nowhere/ca.pem"), "{wrong}");
        let nobody = named(&[(URL, "http://127.0.0.1:1/status")]).unwrap().unwrap();
        let (sender, receiver) = watch::channel(StatusReply::default());
        let run = async {
            sender.send_replace(status(1, "running"));
            tokio::task::yield_now().await;
            drop(sender);
        };
        tokio::join!(push_progress(Some(nobody), receiver), run);
    }
}
