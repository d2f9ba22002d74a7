//! A run's status in lines of text.

use blip2_proto::v1::{MemberStatus, StatusReply};
use blip2_tensors::device::card::gib;

use crate::figures::{count, figures, held_out};
use crate::progress::status_line;
use crate::stored_status::{ending_of, has_ended};

/// Faults and refusals shown, newest last.
const SHOWN_FAULTS: usize = 5;

/// The line of a log, then a line each on members, checkpoint and faults.
pub(super) fn live_text(status: &StatusReply) -> String {
    let end = if has_ended(&status.state) { format!("{}\n", ending_of(status)) } else { String::new() };
    format!("{}\n{}{end}", status_line(status), details(status))
}

/// The same in short lines, each of which may be cut, with curves between them.
pub(super) fn live_lines(status: &StatusReply, curves: &str) -> String {
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
    format!("{head}  {}\n{held_out}{curves}{}", figures(status).join("  "), details(status))
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
        assert!(live_lines(&status, "").starts_with("stage 2  step 40/40  done of 0 workers"), "{text}");
    }
}
