//! `status`: what a coordinator says of its run.

use std::time::Duration;

use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::{StatusReply, StatusRequest};
use tonic::transport::Channel;

use super::{print_json, print_text};
use crate::arguments::StatusArguments;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::exit::Exit;
use crate::progress::{status_json, status_line};
use crate::secured::transport;

/// For the connection and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Faults and refusals shown, newest last.
const SHOWN_FAULTS: usize = 5;

/// Asks once, or every second until the run has ended.
pub(crate) async fn run(arguments: StatusArguments) -> Result<Exit, CliError> {
    let environment = load(&ConfigArguments::default())?.config;
    let transport = transport(&arguments.tls.over(environment.tls))?;
    let channel = transport.connect(&arguments.url, ANSWER_WITHIN).await.map_err(|reason| {
        CliError::failed(format!("{}: no coordinator answers ({reason}); has the run ended?", arguments.url))
    })?;
    let mut client = CoordinatorClient::new(channel);
    loop {
        let status = ask(&mut client, &arguments.url).await?;
        show(&status, arguments.json)?;
        let ended = matches!(status.state.as_str(), "done" | "interrupted" | "failed");
        if ended || !arguments.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(client: &mut CoordinatorClient<Channel>, url: &str) -> Result<StatusReply, CliError> {
    let reply = tokio::time::timeout(ANSWER_WITHIN, client.status(StatusRequest::default())).await;
    let reply = reply.map_err(|_| CliError::failed(format!("{url}: no status within {ANSWER_WITHIN:?}")))?;
    let reply =
        reply.map_err(|status| CliError::failed(format!("{url}: no status: {}", status.message())))?;
    Ok(reply.into_inner())
}

fn show(status: &StatusReply, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(&status_json(status));
    }
    print_text(&format!(
        "{}\n{}{}{}{}",
        status_line(status),
        members(status),
        not_downloaded(status),
        checkpoint(status),
        faults(status)
    ))
}

/// A line on rows without a picture.
fn not_downloaded(status: &StatusReply) -> String {
    match status.not_downloaded {
        0 => String::new(),
        rows => format!("  {rows} rows of the corpus were not downloaded and are passed over\n"),
    }
}

/// A line on the newest checkpoint.
fn checkpoint(status: &StatusReply) -> String {
    if status.last_checkpoint.is_empty() {
        return String::new();
    }
    format!(
        "  checkpoint {}: stored in {:.1} s, of which the steps stood still for {:.3} s\n",
        status.last_checkpoint, status.checkpoint_seconds, status.checkpoint_stall_seconds
    )
}

/// The newest faults and refusals, a line each.
fn faults(status: &StatusReply) -> String {
    let newest = status.faults.len().saturating_sub(SHOWN_FAULTS);
    status.faults[newest..].iter().map(|fault| format!("  {fault}\n")).collect()
}

/// A table of the members, a line each.
fn members(status: &StatusReply) -> String {
    let line = |member: &blip2_proto::v1::MemberStatus| {
        format!(
            "  {:<16} {:<22} slots {}..{}  data wait {:.0} %\n",
            member.name,
            member.exchange_address,
            member.first_slot,
            member.first_slot + member.slot_count,
            member.data_wait_share * 100.0
        )
    };
    status.members.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_and_faults_are_shown() {
        let status = StatusReply {
            last_checkpoint: "00000020-000003".to_owned(),
            checkpoint_seconds: 4.25,
            checkpoint_stall_seconds: 0.0316,
            faults: (0..9).map(|number| format!("fault {number}")).collect(),
            ..StatusReply::default()
        };
        let line = checkpoint(&status);
        assert!(
            line.contains("00000020-000003") && line.contains("4.2 s") && line.contains("0.032 s"),
            "{line}"
        );
        let shown = faults(&status);
        assert!(
            shown.contains("fault 4") && shown.contains("fault 8") && !shown.contains("fault 3"),
            "{shown}"
        );
        let failed = StatusReply { not_downloaded: 7, ..StatusReply::default() };
        assert!(not_downloaded(&failed).contains("7 rows") && not_downloaded(&status).is_empty());
        assert_eq!(checkpoint(&StatusReply::default()) + &faults(&StatusReply::default()), "");
    }
}
