//! `status`: what a coordinator says of its run.

use std::time::Duration;

use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::{StatusReply, StatusRequest};
use blip2_proto::{MAX_TEXT, bounded_status, visible, with_token};
use tonic::Code;
use tonic::transport::Channel;

use super::{print_json, print_text};
use crate::arguments::StatusArguments;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::exit::Exit;
use crate::progress::{status_json, status_line};
use crate::secured::transport;
use crate::token::read_token;

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
    let token = read_token(arguments.token_file.as_deref())?;
    let mut client = CoordinatorClient::new(channel);
    loop {
        let status = ask(&mut client, &arguments.url, &token).await?;
        show(&status, arguments.json)?;
        let ended = matches!(status.state.as_str(), "done" | "interrupted" | "failed");
        if ended || !arguments.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(
    client: &mut CoordinatorClient<Channel>,
    url: &str,
    token: &str,
) -> Result<StatusReply, CliError> {
    let request = with_token(StatusRequest { token: token.to_owned() }, token);
    let reply = tokio::time::timeout(ANSWER_WITHIN, client.status(request)).await;
    let reply = reply.map_err(|_| CliError::failed(format!("{url}: no status within {ANSWER_WITHIN:?}")))?;
    match reply {
        Ok(reply) => Ok(bounded_status(reply.into_inner())),
        Err(status) if status.code() == Code::Unauthenticated => Err(CliError::refused(format!(
            "{url}: the token is not this run's; name the run's token file with --token-file (`train` keeps it in \
             logs/token of its run while it runs)"
        ))),
        Err(status) => {
            Err(CliError::failed(format!("{url}: no status: {}", visible(status.message(), MAX_TEXT))))
        }
    }
}

fn show(status: &StatusReply, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(&status_json(status));
    }
    print_text(&format!(
        "{}\n{}{}{}",
        status_line(status),
        members(status),
        checkpoint(status),
        faults(status)
    ))
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
        assert_eq!(checkpoint(&StatusReply::default()) + &faults(&StatusReply::default()), "");
    }
}
