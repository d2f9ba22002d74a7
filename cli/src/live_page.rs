//! The page of a run while it is led here, and the same for programs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blip2_pages::chart::Series;
use blip2_pages::run_page::{Chart, RunReport, Table, Tile, render_run};
use blip2_proto::v1::{MemberStatus, StatusReply};
use blip2_records::StepRecord;
use blip2_worker::task::TaskSettings;
use tokio::sync::watch;

use crate::figures::{count, duration};
use crate::left_out::LeftOut;
use crate::metrics::series;
use crate::progress::{status_json, status_line};

/// Committed steps of which the curves are made at most; of more every second one goes.
const MOST_POINTS: usize = 2048;

/// What is shown of a run; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct LivePage(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    status: Option<watch::Receiver<StatusReply>>,
    steps: Vec<StepRecord>,
    /// Every so many steps are kept.
    stride: u64,
    left_out: LeftOut,
}

impl Default for Shown {
    fn default() -> Self {
        Self { status: None, steps: Vec::new(), stride: 1, left_out: LeftOut::default() }
    }
}

impl LivePage {
    /// Shows what this says from now on.
    pub(crate) fn follow(&self, status: watch::Receiver<StatusReply>) {
        self.shown().status = Some(status);
    }

    /// Takes in a committed step.
    pub(crate) fn record(&self, step: &StepRecord) {
        let mut shown = self.shown();
        if !step.step.is_multiple_of(shown.stride) {
            return;
        }
        shown.steps.push(step.clone());
        if shown.steps.len() > MOST_POINTS {
            shown.stride *= 2;
            let stride = shown.stride;
            shown.steps.retain(|step| step.step.is_multiple_of(stride));
        }
    }

    /// The rows that were left out, which it shows.
    pub(crate) fn left_out(&self) -> LeftOut {
        self.shown().left_out.clone()
    }

    /// The page.
    pub(crate) fn html(&self) -> String {
        let shown = self.shown();
        let status = shown.status();
        let report = RunReport {
            title: match status.run_id.as_str() {
                "" => "Run that has not begun".into(),
                run => format!("Run {run}"),
            },
            state: status_line(&status),
            tiles: tiles(&status),
            charts: shown.charts(),
            about_charts: "Steps that were committed since this coordinator leads. The page is read anew every ten seconds."
                .into(),
            tables: vec![members(&status), faults(&status)],
            pictures: shown.left_out.section(),
        };
        render_run(&report)
    }

    /// The same as `blip2 status --json`.
    pub(crate) fn json(&self) -> String {
        status_json(&self.shown().status()).to_string()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn status(&self) -> StatusReply {
        self.status.as_ref().map_or_else(StatusReply::default, |status| status.borrow().clone())
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        let mut add = |title: String, unit: &str, series: Vec<Series>| {
            if !series.is_empty() {
                charts.push(Chart { title, unit: unit.into(), series });
            }
        };
        let mut stages: Vec<(u32, &str, &str)> = self
            .steps
            .iter()
            .map(|step| (step.stage, step.stage_name.as_str(), step.task.as_str()))
            .collect();
        stages.dedup();
        for (stage, name, task) in stages {
            let Ok(task) = TaskSettings::named(task) else { continue };
            let titled = |of: fn(&blip2_worker::task::LossName) -> &'static str| -> Vec<(&str, &str)> {
                task.losses().iter().map(|loss| (of(loss), loss.title)).collect()
            };
            let lines = |names: &[(&str, &str)]| series(&self.steps, stage, names);
            add(format!("{name}: losses"), "loss, nats", lines(&titled(|loss| loss.name)));
            add(
                format!("{name}: losses on held-out rows"),
                "loss, nats",
                lines(&titled(|loss| loss.held_out)),
            );
            add(format!("{name}: norm of the gradient"), "norm", lines(&[("gradient_norm", "norm")]));
            add(format!("{name}: learning rate"), "learning rate", lines(&[("learning_rate", "rate")]));
        }
        let speed = self.steps.iter().filter(|step| step.seconds > 0.0);
        let points: Vec<(u64, f64)> =
            speed.map(|step| (step.step, step.samples as f64 / step.seconds)).collect();
        if !points.is_empty() {
            add("Throughput".into(), "samples/s", vec![Series { name: "speed".into(), points }]);
        }
        charts
    }
}

fn tiles(status: &StatusReply) -> Vec<Tile> {
    let tile = |label: &str, value: String, note: String| Tile { label: label.into(), value, note };
    let left = match status.eta_seconds {
        0.0 => ("unknown".to_owned(), "until steps are committed".to_owned()),
        seconds => (duration(seconds), "as it goes now".to_owned()),
    };
    vec![
        tile("Steps", status.step.to_string(), format!("of {}, all stages", status.total_steps)),
        tile("Time left", left.0, left.1),
        tile(
            "Throughput",
            format!("{:.1} samples/s", status.samples_per_s),
            format!("{:.1} % of the time waits for data", 100.0 * status.data_wait_share),
        ),
        tile(
            "Goodput",
            format!("{:.0} %", 100.0 * status.goodput),
            "of the time is in steps that were committed".into(),
        ),
        tile("Workers", status.members.len().to_string(), format!("epoch {}", status.epoch)),
        tile(
            "Checkpoint",
            if status.last_checkpoint.is_empty() { "none".into() } else { status.last_checkpoint.clone() },
            format!(
                "stored in {:.1} s, {:.2} s of stall",
                status.checkpoint_seconds, status.checkpoint_stall_seconds
            ),
        ),
        tile("Rows left out", status.quarantined.to_string(), "quarantined".into()),
    ]
}

fn members(status: &StatusReply) -> Table {
    let row = |member: &MemberStatus| {
        let device = member.device.as_ref().map_or("", |device| device.device.as_str());
        let slots = match member.slot_count {
            0 => "no slots".to_owned(),
            count => format!("slots {} to {}", member.first_slot, member.first_slot + count - 1),
        };
        let waits = format!("waits for data {:.0} % of a step", 100.0 * member.data_wait_share);
        (member.name.clone(), format!("{slots}, {device}, {waits}, at {}", member.exchange_address))
    };
    Table {
        id: "members",
        title: "Workers".into(),
        about: String::new(),
        rows: status.members.iter().map(row).collect(),
        empty: "No worker is connected.".into(),
    }
}

fn faults(status: &StatusReply) -> Table {
    let newest = status.faults.iter().rev().map(|fault| (String::new(), fault.clone()));
    Table {
        id: "faults",
        title: "Last faults".into(),
        about: match status.fault_count {
            0 => String::new(),
            faults => format!("{} so far, the newest first.", count(faults as usize, "fault")),
        },
        rows: newest.collect(),
        empty: "No fault was noticed.".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn step(step: u64) -> StepRecord {
        StepRecord {
            step,
            stage: 1,
            stage_name: "represent".into(),
            task: "contrast".into(),
            values: BTreeMap::from([
                ("loss".to_owned(), Some(3.0)),
                ("learning_rate".to_owned(), Some(1e-4)),
            ]),
            seconds: 0.5,
            samples: 64,
            ..StepRecord::default()
        }
    }

    #[test]
    fn the_page_shows_workers_curves_and_faults_and_escapes_them() {
        let page = LivePage::default();
        assert!(page.html().contains("No worker is connected"), "before anything has begun");
        let member = MemberStatus { name: "gpu-1".into(), slot_count: 4, ..MemberStatus::default() };
        let (_status, shown) = watch::channel(StatusReply {
            run_id: "a-run".into(),
            state: "running".into(),
            step: 2,
            total_steps: 40,
            eta_seconds: 90.0,
            members: vec![member],
            faults: vec!["step 1: <lost>".into()],
            fault_count: 1,
            ..StatusReply::default()
        });
        page.follow(shown);
        (0..3).for_each(|number| page.record(&step(number)));
        let html = page.html();
        for part in [
            "a-run",
            "gpu-1",
            "slots 0 to 3",
            "&lt;lost&gt;",
            "represent: losses",
            "<svg",
            "of 40, all stages",
            "Time left",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(!html.contains("<lost>") && !html.contains("src=") && !html.contains("href="));
        let json: serde_json::Value = serde_json::from_str(&page.json()).unwrap();
        assert_eq!((json["step"].as_u64(), json["members"][0]["name"].as_str()), (Some(2), Some("gpu-1")));
    }

    #[test]
    fn a_long_run_is_shown_by_some_of_its_steps() {
        let page = LivePage::default();
        (0..9000).for_each(|number| page.record(&step(number)));
        let shown = page.shown();
        assert!(shown.steps.len() <= MOST_POINTS && shown.steps.len() >= MOST_POINTS / 2);
        assert_eq!((shown.steps[0].step, shown.steps.last().unwrap().step / 8), (0, 8999 / 8));
    }
}
