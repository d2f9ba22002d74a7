//! `status`: what a run's coordinator says of it, and its store when none answers.

mod screen;
mod source;

use std::time::Duration;

use blip2_proto::v1::{MemberStatus, StatusReply};
use blip2_tensors::device::card::gib;
use tokio::time::Instant;

use super::{print_json, print_text};
use crate::arguments::StatusArguments;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::figures::{figures, held_out};
use crate::progress::{count, status_json, status_line};
use crate::stored_status::{ending_of, has_ended};
use blip2_run::exit::Exit;
use screen::Screen;
use source::{Known, Source};

const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a run that is watched may be without a coordinator that answers: another one may take over.
const PATIENCE: Duration = Duration::from_secs(30);
/// Faults and refusals shown, newest last.
const SHOWN_FAULTS: usize = 5;

/// Asks once, or every second until the run has ended.
pub(crate) async fn run(arguments: StatusArguments) -> Result<Exit, CliError> {
    let environment = load(&ConfigArguments::default())?.config;
    let tls = arguments.tls.over(environment.tls);
    let mut source = Source::open(&arguments.target, tls, arguments.token_file.as_deref()).await?;
    if arguments.watch {
        return watch(&mut source, arguments.json).await;
    }
    let known = source.ask().await?;
    match arguments.json {
        true => print_json(&known_json(&known))?,
        false => print_text(&known_text(&known))?,
    }
    Ok(Exit::Done)
}

/// Shows the run until it has ended, and says how.
async fn watch(source: &mut Source, json: bool) -> Result<Exit, CliError> {
    let mut screen = Screen::new();
    let mut heard = Instant::now();
    loop {
        let known = source.ask().await?;
        if json {
            print_json(&known_json(&known))?;
        } else {
            screen.show(&known)?;
        }
        let end = match &known {
            Known::Live(status) => has_ended(&status.state).then(|| ending_of(status)),
            Known::Stored(stored) => stored.has_ended().then(|| stored.line()),
        };
        if let Some(end) = end {
            if !json {
                print_text(&format!("{end}\n"))?;
            }
            return Ok(Exit::Done);
        }
        match known {
            Known::Live(_) => heard = Instant::now(),
            Known::Stored(_) if heard.elapsed() >= PATIENCE => {
                let seconds = PATIENCE.as_secs();
                return Err(CliError::failed(format!(
                    "no coordinator of this run has answered for {seconds} s, and the run has not ended"
                )));
            }
            Known::Stored(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn known_json(known: &Known) -> serde_json::Value {
    match known {
        Known::Live(status) => status_json(status),
        // It always serialises: numbers and strings.
        Known::Stored(stored) => serde_json::to_value(stored).unwrap_or_default(),
    }
}

fn known_text(known: &Known) -> String {
    match known {
        Known::Live(status) => live_text(status),
        Known::Stored(stored) => {
            let held_out = stored.held_out_line().map_or(String::new(), |line| format!("  {line}\n"));
            format!("{}\n{held_out}", stored.line())
        }
    }
}

/// The line of a log, then a line each on members, checkpoint and faults.
fn live_text(status: &StatusReply) -> String {
    let end = if has_ended(&status.state) { format!("{}\n", ending_of(status)) } else { String::new() };
    format!("{}\n{}{end}", status_line(status), details(status))
}

/// The same in short lines, each of which may be cut.
fn live_lines(status: &StatusReply) -> String {
    let head = format!(
        "stage {}  step {}/{}  {} of {}  epoch {}\n",
        status.stage,
        status.step,
        status.total_steps,
        status.state,
        count(status.members.len(), "worker"),
        status.epoch
    );
    let held_out = held_out(status).map_or(String::new(), |line| format!("  {line}\n"));
    format!("{head}  {}\n{held_out}{}", figures(status).join("  "), details(status))
}

fn details(status: &StatusReply) -> String {
    members(status) + &not_downloaded(status) + &checkpoint(status) + &faults(status)
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
    let line = |member: &MemberStatus| {
        format!(
            "  {:<16} {:<22} slots {}..{}  data wait {:.0} %{}\n",
            member.name,
            member.exchange_address,
            member.first_slot,
            member.first_slot + member.slot_count,
            member.data_wait_share * 100.0,
            device(member)
        )
    };
    status.members.iter().map(line).collect()
}

/// The end of a member's line: what it computes on, and how much of that is used.
fn device(member: &MemberStatus) -> String {
    let named = member.device.as_ref().map_or("", |device| device.device.as_str());
    let mut said = if named.is_empty() { String::new() } else { format!("  {named}") };
    if let Some(usage) = &member.device_use {
        said += &format!(": holds {}", gib(usage.reserved_bytes));
        if usage.used_bytes > 0 {
            said += &format!(" of {} in use", gib(usage.used_bytes));
        }
        said += &usage.busy_percent.map_or(String::new(), |percent| format!(", busy {percent} %"));
    }
    said
}

#[cfg(test)]
mod tests {
    use blip2_proto::v1::{DeviceUse, WorkerDevice};

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
        assert!(details(&failed).contains("7 rows") && not_downloaded(&status).is_empty());
        assert_eq!(checkpoint(&StatusReply::default()) + &faults(&StatusReply::default()), "");
    }

    #[test]
    fn members_are_shown_with_their_cards() {
        let card = WorkerDevice { device: "cuda:3 (NVIDIA H100)".into(), ..WorkerDevice::default() };
        let usage = DeviceUse {
            reserved_bytes: 12 << 30,
            used_bytes: 20 << 30,
            busy_percent: Some(97),
            ..DeviceUse::default()
        };
        let member = MemberStatus { device: Some(card), device_use: Some(usage), ..MemberStatus::default() };
        assert_eq!(device(&member), "  cuda:3 (NVIDIA H100): holds 12.0 GiB of 20.0 GiB in use, busy 97 %");
        let cpu = WorkerDevice { device: "cpu".into(), ..WorkerDevice::default() };
        let member = MemberStatus { device: Some(cpu), ..MemberStatus::default() };
        assert!(
            members(&StatusReply { members: vec![member], ..StatusReply::default() }).ends_with("%  cpu\n")
        );
        assert_eq!(device(&MemberStatus::default()), "");
    }

    #[test]
    fn a_run_that_has_ended_says_how() {
        let status = StatusReply {
            state: "done".into(),
            step: 40,
            total_steps: 40,
            stage: 2,
            last_checkpoint: "00000040-000002".into(),
            ..StatusReply::default()
        };
        let text = live_text(&status);
        assert!(text.ends_with("the run is done: 40 steps, checkpoint 00000040-000002\n"), "{text}");
        assert!(live_lines(&status).starts_with("stage 2  step 40/40  done of 0 workers"), "{text}");
    }
}
