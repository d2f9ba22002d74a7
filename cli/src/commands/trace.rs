//! `trace`: what every member of a run did when, in its last steps.

use std::path::PathBuf;
use std::time::Duration;

use blip2_proto::text::visible;
use blip2_proto::token::with_token;
use blip2_proto::v1::TraceRequest;
use blip2_proto::v1::diagnostics_client::DiagnosticsClient;
use blip2_run::exit::Exit;
use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};

use super::run_source::{Known, Source};
use super::run_target::RunTarget;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct TraceArguments {
    #[command(flatten)]
    run: RunTarget,
    /// File to write: open it at https://ui.perfetto.dev or in `chrome://tracing`.
    #[arg(long, value_name = "FILE", default_value = "trace.json")]
    out: PathBuf,
}

/// For the connection and for the answer of a member.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// More than the trace of any member.
const LARGEST: usize = 64 << 20;
/// Bytes of a member's reason that are shown.
const REASON: usize = 400;

/// Asks every member that the coordinator names; those that do not answer are told and left out.
pub(crate) async fn run(arguments: TraceArguments) -> Result<Exit, CliError> {
    let named = arguments.run.target.clone();
    let mut source = arguments.run.open().await?;
    let status = match source.ask().await? {
        Known::Live(status) => status,
        Known::Stored(stored) => {
            return Err(source.take_refusal().unwrap_or_else(|| {
                CliError::failed(format!("{}; members are asked while the run goes on", stored.line()))
            }));
        }
    };
    if status.members.is_empty() {
        return Err(CliError::failed(format!("{named} has no members now")));
    }
    let asked = status.members.iter().map(|member| trace_of(&source, &member.exchange_address));
    let mut traces = Vec::new();
    for (member, answer) in status.members.iter().zip(join_all(asked).await) {
        match answer {
            Ok(trace) => traces.push(trace),
            Err(reason) => {
                eprintln!("warning: {} at {}: {reason}", member.name, member.exchange_address);
            }
        }
    }
    if traces.is_empty() {
        return Err(CliError::failed("no member gave its trace: their addresses must be reached from here"));
    }
    let (members, out) = (traces.len(), arguments.out);
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", out.display()));
    std::fs::write(&out, together(traces).to_string()).map_err(failed)?;
    eprintln!("the last steps of {members} members are in {}; open it at ui.perfetto.dev", out.display());
    Ok(Exit::Done)
}

/// The trace of the member at this address, or why there is none.
async fn trace_of(source: &Source, address: &str) -> Result<Value, String> {
    let (transport, token) = source.access();
    let channel = transport.connect(address, ANSWER_WITHIN).await?;
    let mut client = DiagnosticsClient::new(channel).max_decoding_message_size(LARGEST);
    let answer = tokio::time::timeout(ANSWER_WITHIN, client.trace(with_token(TraceRequest {}, token))).await;
    let answer = answer.map_err(|_| format!("no answer within {ANSWER_WITHIN:?}"))?;
    let answer = answer.map_err(|status| visible(status.message(), REASON))?;
    serde_json::from_str(&answer.into_inner().trace).map_err(|error| format!("its trace is no JSON: {error}"))
}

/// Several traces as one, each a process of its own.
fn together(traces: Vec<Value>) -> Value {
    let mut all = Vec::new();
    for (number, mut trace) in traces.into_iter().enumerate() {
        let Some(Value::Array(events)) = trace.get_mut("traceEvents").map(Value::take) else { continue };
        for mut event in events {
            if let Value::Object(event) = &mut event {
                event.insert("pid".into(), json!(number + 1));
            }
            all.push(event);
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_processes_of_one_trace() {
        let member =
            |name: &str| json!({ "traceEvents": [{ "ph": "M", "pid": 1, "args": { "name": name } }] });
        let whole = together(vec![member("first"), json!("no trace"), member("second")]);
        let events = whole["traceEvents"].as_array().unwrap();
        let processes: Vec<(u64, &str)> = events
            .iter()
            .map(|event| (event["pid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap()))
            .collect();
        assert_eq!(processes, [(1, "first"), (3, "second")]);
    }
}
