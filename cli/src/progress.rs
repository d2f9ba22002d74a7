//! Showing a run while it goes: a bar on a terminal, plain lines elsewhere, JSON lines for programs.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use blip2_proto::v1::{DeviceUse, StatusReply, WorkerDevice};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::figures::{count, figures, fitted, held_out, values_json};
use crate::logging::is_json;
use crate::logging::standing::{Standing, stands};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The line of a terminal that is wide enough, and of one that is not.
const WITH_BAR: &str = "{prefix} {bar:24.cyan/blue} {pos}/{len}  {wide_msg}";
const WITHOUT_BAR: &str = "{prefix} {pos}/{len}";
/// Columns of the bar, as in its template.
const BAR_WIDTH: usize = 24;
/// Columns between the parts of the template, and the last one, which some terminals wrap at.
const GAPS: usize = 5;
/// Between two redraws of the bar.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Who reads the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A person at a terminal.
    Terminal,
    /// A log file.
    Lines,
    /// A program that reads standard output.
    Json,
}

impl Audience {
    /// JSON if asked for, else what standard error is.
    pub(crate) fn detect(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal() && !is_json()) {
            (true, _) => Audience::Json,
            (false, true) => Audience::Terminal,
            (false, false) => Audience::Lines,
        }
    }
}

/// Shows every change until the sender is gone.
pub(crate) async fn show(mut status: watch::Receiver<StatusReply>, audience: Audience) {
    let bar = (audience == Audience::Terminal).then(new_bar);
    let mut log = StatusLog::default();
    let pause = if audience == Audience::Terminal { REDRAW_EVERY } else { Duration::from_millis(50) };
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        stands(standing(&now));
        match &bar {
            Some(bar) => draw(bar, &now),
            None => log.say(&now, audience),
        }
        tokio::time::sleep(pause).await;
    }
    let last = status.borrow().clone();
    stands(standing(&last));
    match &bar {
        Some(bar) => {
            draw(bar, &last);
            bar.finish();
        }
        None => log.say_last(&last, audience),
    }
}

/// Where the coordinator of a run stands.
fn standing(status: &StatusReply) -> Standing {
    let (run, epoch, step) = (status.run_id.clone(), Some(status.epoch), Some(status.step));
    Standing { run, epoch, step, member: None }
}

/// What was last told of a run, so that lines come neither too often nor twice.
#[derive(Debug, Default)]
pub(crate) struct StatusLog {
    at: Option<Instant>,
    state: String,
    step: u64,
    stage: u32,
    faults: u64,
}

impl StatusLog {
    /// Whether there is something to say: news at once, steps from time to time. It is then taken as said.
    pub(crate) fn is_due(&mut self, status: &StatusReply) -> bool {
        let overdue = self.at.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        let news =
            status.state != self.state || status.stage != self.stage || status.fault_count > self.faults;
        let due = news || (overdue && status.step != self.step);
        if due {
            self.note(status);
        }
        due
    }

    fn say(&mut self, status: &StatusReply, audience: Audience) {
        if self.is_due(status) {
            self.write(status, audience);
        }
    }

    fn say_last(&mut self, status: &StatusReply, audience: Audience) {
        if status.step != self.step || status.state != self.state {
            self.write(status, audience);
        }
    }

    fn write(&mut self, status: &StatusReply, audience: Audience) {
        // A reader that went away must not end the run.
        let _ = match audience {
            Audience::Json => writeln!(std::io::stdout(), "{}", status_json(status)),
            _ => {
                eprintln!("{}", status_line(status));
                Ok(())
            }
        };
        self.note(status);
    }

    fn note(&mut self, status: &StatusReply) {
        *self = StatusLog {
            at: Some(Instant::now()),
            state: status.state.clone(),
            step: status.step,
            stage: status.stage,
            faults: status.fault_count,
        };
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    set_template(&bar, WITHOUT_BAR);
    bar
}

fn set_template(bar: &ProgressBar, template: &str) {
    // The templates are constants that the tests parse.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
}

/// Draws the bar in one line of the terminal, whatever its width: numbers go first, then the bar itself.
fn draw(bar: &ProgressBar, status: &StatusReply) {
    bar.set_length(status.total_steps);
    bar.set_position(status.step);
    let (prefix, width) = (stage_name(status), terminal_width());
    let before = prefix.len() + BAR_WIDTH + format!("{}/{}", status.step, status.total_steps).len() + GAPS;
    set_template(bar, if width > before { WITH_BAR } else { WITHOUT_BAR });
    bar.set_prefix(prefix);
    bar.set_message(fitted(&figures(status), width.saturating_sub(before)));
}

/// Columns of the terminal behind standard error.
fn terminal_width() -> usize {
    usize::from(console::Term::stderr().size().1)
}

/// One line for a log.
pub(crate) fn status_line(status: &StatusReply) -> String {
    if status.state == "standby" {
        return format!("standing by: epoch {}, step {} when it began", status.epoch, status.step);
    }
    let mut parts = vec![
        format!("{} step {}/{}", stage_name(status), status.step, status.total_steps),
        format!("{} of {}", status.state, count(status.members.len(), "worker")),
    ];
    parts.extend(figures(status));
    parts.extend(held_out(status));
    if let Some(fault) = status.faults.last() {
        parts.push(format!("last fault: {fault}"));
    }
    parts.join("  ")
}

/// The same for programs.
pub(crate) fn status_json(status: &StatusReply) -> serde_json::Value {
    let members: Vec<serde_json::Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.member_id,
                "name": member.name,
                "address": member.exchange_address,
                "first_slot": member.first_slot,
                "slots": member.slot_count,
                "data_wait_share": member.data_wait_share,
                "device": member.device.as_ref().map(device_as_json),
                "device_use": member.device_use.as_ref().map(use_as_json),
            })
        })
        .collect();
    json!({
        "run": status.run_id,
        "state": status.state,
        "epoch": status.epoch,
        "stage": status.stage,
        "stage_name": status.stage_name,
        "task": status.task,
        "step": status.step,
        "total_steps": status.total_steps,
        "values": values_json(&status.values),
        "samples_seen": status.samples_seen,
        "held_out": values_json(&status.held_out),
        "held_out_step": status.held_out_step,
        "samples_per_s": status.samples_per_s,
        "data_wait_share": status.data_wait_share,
        "goodput": status.goodput,
        "quarantined": status.quarantined,
        "not_downloaded": status.not_downloaded,
        "skipped_steps": status.skipped_steps,
        "members": members,
        "faults": status.faults,
        "last_checkpoint": status.last_checkpoint,
        "checkpoint_stall_seconds": status.checkpoint_stall_seconds,
        "checkpoint_seconds": status.checkpoint_seconds,
        "eta_seconds": status.eta_seconds,
    })
}

fn device_as_json(device: &WorkerDevice) -> serde_json::Value {
    let WorkerDevice { device, uuid, memory_bytes, threads } = device;
    json!({ "device": device, "uuid": uuid, "memory_bytes": memory_bytes, "threads": threads })
}

fn use_as_json(usage: &DeviceUse) -> serde_json::Value {
    let DeviceUse { allocated_bytes, reserved_bytes, used_bytes, busy_percent, kernels_compiled } = usage;
    json!({
        "allocated_bytes": allocated_bytes,
        "reserved_bytes": reserved_bytes,
        "used_bytes": used_bytes,
        "busy_percent": busy_percent,
        "kernels_compiled": kernels_compiled,
    })
}

fn stage_name(status: &StatusReply) -> String {
    match (status.state.as_str(), status.stage) {
        ("waiting", _) | (_, 0) => "waiting".to_owned(),
        (_, stage) => format!("stage {stage}"),
    }
}

#[cfg(test)]
mod tests {
    use blip2_proto::v1::NamedValue;

    use super::*;

    fn status(step: u64) -> StatusReply {
        StatusReply {
            state: "running".to_owned(),
            stage: 1,
            step,
            total_steps: 300,
            values: vec![
                NamedValue { name: "itc".to_owned(), value: 3.25 },
                NamedValue { name: "lr".to_owned(), value: 1e-3 },
            ],
            samples_per_s: 200.0,
            data_wait_share: 0.03,
            eta_seconds: 75.0,
            ..StatusReply::default()
        }
    }

    #[test]
    fn a_line_says_where_the_run_is() {
        let line = status_line(&status(12));
        for part in [
            "stage 1 step 12/300",
            "itc 3.250",
            "lr 1.0e-3",
            "200.0 samples/s",
            "data wait 3 %",
            "1 min 15 s left",
        ] {
            assert!(line.contains(part), "{line}");
        }
        let json = status_json(&status(12));
        assert_eq!(json["values"]["itc"], 3.25);
        assert_eq!(json["step"], 12);
    }

    #[test]
    fn one_that_stands_by_says_so() {
        let line = status_line(&StatusReply { state: "standby".to_owned(), epoch: 4, ..status(12) });
        assert!(line.contains("standing by") && line.contains("epoch 4"), "{line}");
    }

    #[test]
    fn the_bar_has_a_valid_template() {
        for template in [WITH_BAR, WITHOUT_BAR] {
            ProgressStyle::with_template(template).unwrap();
        }
        let bar = new_bar();
        draw(&bar, &status(3));
        assert_eq!((bar.position(), bar.length()), (3, Some(300)));
    }

    #[tokio::test]
    async fn showing_ends_when_the_run_is_gone() {
        let (sender, receiver) = watch::channel(status(0));
        #[expect(clippy::disallowed_methods, reason = "joined by the test")]
        let shown = tokio::spawn(show(receiver, Audience::Lines));
        sender.send(status(1)).unwrap();
        drop(sender);
        tokio::time::timeout(Duration::from_secs(5), shown).await.unwrap().unwrap();
    }
}
