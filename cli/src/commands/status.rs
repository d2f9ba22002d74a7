//! `status`: what a coordinator says of its run.

use std::time::Duration;

use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::{StatusReply, StatusRequest};
use tonic::transport::{Channel, Endpoint};

use super::{print_json, print_text};
use crate::arguments::StatusArguments;
use crate::error::CliError;
use crate::exit::Exit;
use crate::progress::{status_json, status_line};

/// For the connection and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Asks once, or every second until the run has ended.
pub(crate) async fn run(arguments: StatusArguments) -> Result<Exit, CliError> {
    let mut client = connect(&arguments.url).await?;
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

async fn connect(url: &str) -> Result<CoordinatorClient<Channel>, CliError> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(full)
        .map_err(|error| CliError::usage(format!("{url}: not a coordinator's URL: {error}")))?
        .connect_timeout(ANSWER_WITHIN)
        .timeout(ANSWER_WITHIN);
    let channel = endpoint.connect().await.map_err(|error| {
        CliError::failed(format!("{url}: no coordinator answers ({error}); has the run ended?"))
    })?;
    Ok(CoordinatorClient::new(channel))
}

async fn ask(client: &mut CoordinatorClient<Channel>, url: &str) -> Result<StatusReply, CliError> {
    let reply = client.status(StatusRequest::default()).await;
    let reply =
        reply.map_err(|status| CliError::failed(format!("{url}: no status: {}", status.message())))?;
    Ok(reply.into_inner())
}

fn show(status: &StatusReply, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(&status_json(status));
    }
    print_text(&format!("{}\n{}", status_line(status), members(status)))
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
