//! What coordinators show of what they coordinate.

use blip2_coordinator::Figures;
use blip2_proto::v1::{LeaseStatusReply, StatusReply};
use blip2_records::StepRecord;
use blip2_records::values::HELD_OUT as HELD_OUT_PREFIX;
use blip2_store::requests;
use blip2_telemetry::Telemetry;
use blip2_telemetry::metric::{
    BADPUT_SECONDS_TOTAL, EPOCH, FAULTS_TOTAL, GOODPUT_SECONDS_TOTAL, GRADIENT_NORM, HELD_OUT,
    LAST_CHECKPOINT_TIMESTAMP_SECONDS, LAST_COMMIT_TIMESTAMP_SECONDS, LEADER, LEARNING_RATE, LOSS, MEMBERS,
    MEMBERS_WANTED, QUARANTINED_ROWS_TOTAL, REMAINING_SECONDS, SAMPLES_PER_SECOND, SAMPLES_TOTAL, STEP,
    STEP_DURATION_SECONDS, STEPS_PLANNED, STEPS_REDONE_TOTAL, STEPS_SKIPPED_TOTAL, STEPS_TOTAL,
    STORE_FAILED_TRIES_TOTAL, STORE_REQUESTS_TOTAL, TASK_ROWS_TOTAL, TASK_WORKERS, TASKS, TEMPERATURE,
};
use blip2_worker::task::TaskSettings;
use tokio::sync::watch;

use crate::gone::gone;
use crate::live_page::LivePage;

/// The numbers of this process, which is a `role`.
pub(crate) fn telemetry(role: &str) -> Telemetry {
    let telemetry = Telemetry::new(role, env!("CARGO_PKG_VERSION"));
    telemetry.ask("store", |telemetry| {
        for (asked, ended, count) in requests::counts() {
            telemetry.raise(&STORE_REQUESTS_TOTAL, &[asked, ended], count as f64);
        }
        for (cause, count) in requests::failed_tries() {
            telemetry.raise(&STORE_FAILED_TRIES_TOTAL, &[cause], count as f64);
        }
    });
    telemetry
}

/// Shows a run that this process leads, until the sender of its status is gone.
pub(crate) async fn show_lead(
    telemetry: &Telemetry,
    mut status: watch::Receiver<StatusReply>,
    figures: watch::Receiver<Figures>,
) {
    if status.wait_for(|status| status.epoch > 0).await.is_err() {
        return;
    }
    telemetry.set(&LEADER, &[], 1.0);
    telemetry.ready();
    let shown = status.clone();
    telemetry.ask("lead", move |telemetry| {
        let status = shown.borrow().clone();
        show_status(telemetry, &status);
        let figures = figures.borrow().clone();
        show_figures(telemetry, &figures);
    });
    gone(status).await;
    telemetry.set(&LEADER, &[], 0.0);
    telemetry.not_ready("this coordinator does not lead the run any more");
}

fn show_status(telemetry: &Telemetry, status: &StatusReply) {
    telemetry.set(&EPOCH, &[], status.epoch as f64);
    telemetry.set(&STEP, &[], status.step as f64);
    telemetry.set(&STEPS_PLANNED, &[], status.total_steps as f64);
    telemetry.set(&SAMPLES_PER_SECOND, &[], status.samples_per_s);
    telemetry.set(&REMAINING_SECONDS, &[], status.eta_seconds);
    telemetry.raise(&FAULTS_TOTAL, &[], status.fault_count as f64);
}

fn show_figures(telemetry: &Telemetry, figures: &Figures) {
    telemetry.set_moment(&LAST_COMMIT_TIMESTAMP_SECONDS, figures.since_commit);
    telemetry.set_moment(&LAST_CHECKPOINT_TIMESTAMP_SECONDS, figures.since_checkpoint);
    if let Some(useful) = figures.useful {
        telemetry.raise(&GOODPUT_SECONDS_TOTAL, &[], useful.as_secs_f64());
    }
    for (cause, time) in &figures.not_useful {
        telemetry.raise(&BADPUT_SECONDS_TOTAL, &[cause], time.as_secs_f64());
    }
    for (reason, steps) in &figures.redone {
        telemetry.raise(&STEPS_REDONE_TOTAL, &[reason], *steps as f64);
    }
    for (reason, rows) in &figures.quarantined {
        telemetry.raise(&QUARANTINED_ROWS_TOTAL, &[reason], *rows as f64);
    }
    for (state, members) in &figures.members {
        telemetry.set(&MEMBERS, &[state], *members as f64);
    }
    for (bound, workers) in figures.wanted {
        telemetry.set(&MEMBERS_WANTED, &[bound], f64::from(workers));
    }
}

/// Shows what is handed out on leases.
pub(crate) fn show_tasks(telemetry: &Telemetry, status: watch::Receiver<LeaseStatusReply>) {
    telemetry.ready();
    telemetry.ask("tasks", move |telemetry| {
        let status = status.borrow();
        for (state, count) in [("all", status.tasks), ("done", status.done), ("leased", status.leased)] {
            telemetry.set(&TASKS, &[state], count as f64);
        }
        telemetry.set(&TASK_WORKERS, &[], status.workers.len() as f64);
        telemetry.raise(&TASK_ROWS_TOTAL, &[], status.rows as f64);
    });
}

/// Shows the steps as they are committed.
#[derive(Debug)]
pub(crate) struct StepNumbers {
    telemetry: Telemetry,
    page: LivePage,
    stage: u32,
    /// The names of the stage's losses.
    losses: Vec<&'static str>,
}

impl StepNumbers {
    pub(crate) fn new(telemetry: Telemetry, page: LivePage) -> Self {
        Self { telemetry, page, stage: 0, losses: Vec::new() }
    }

    /// Takes in a committed step.
    pub(crate) fn record(&mut self, step: &StepRecord) {
        self.page.record(step);
        if step.stage != self.stage {
            self.stage = step.stage;
            [&LOSS, &TEMPERATURE].into_iter().for_each(|metric| self.telemetry.forget(metric));
            let task = TaskSettings::named(&step.task);
            self.losses =
                task.map_or(Vec::new(), |task| task.losses().iter().map(|loss| loss.name).collect());
        }
        let telemetry = &self.telemetry;
        telemetry.add(&STEPS_TOTAL, &[], 1.0);
        telemetry.add(&STEPS_SKIPPED_TOTAL, &[], f64::from(u8::from(step.skipped)));
        telemetry.add(&SAMPLES_TOTAL, &[], step.samples as f64);
        telemetry.observe(&STEP_DURATION_SECONDS, &[], step.seconds);
        for (name, value) in &step.values {
            let value = value.unwrap_or(f64::NAN);
            match (name.as_str(), name.strip_prefix(HELD_OUT_PREFIX)) {
                (_, Some(measured)) => telemetry.set(&HELD_OUT, &[measured], value),
                ("learning_rate", _) => telemetry.set(&LEARNING_RATE, &[], value),
                ("gradient_norm", _) => telemetry.set(&GRADIENT_NORM, &[], value),
                ("temperature", _) => telemetry.set(&TEMPERATURE, &[], value),
                (loss, _) if self.losses.contains(&loss) => {
                    let term = loss.strip_prefix("loss_").unwrap_or(loss);
                    telemetry.set(&LOSS, &[&step.task, term], value);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_committed_step_is_shown_by_what_its_values_are() {
        let values = [
            ("loss", Some(3.0)),
            ("loss_itc", None),
            ("learning_rate", Some(1e-4)),
            ("temperature", Some(0.07)),
            ("eval_loss", Some(2.5)),
            ("something", Some(1.0)),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into_iter();
        let step = StepRecord {
            stage: 1,
            task: "contrast".into(),
            samples: 64,
            seconds: 0.3,
            values: values.collect::<BTreeMap<_, _>>(),
            ..StepRecord::default()
        };
        let telemetry = telemetry("coordinator");
        let mut numbers = StepNumbers::new(telemetry.clone(), LivePage::default());
        numbers.record(&step);
        numbers.record(&step);
        let text = telemetry.text();
        for line in [
            "blip2_steps_total 2.0",
            "blip2_samples_total 128.0",
            "blip2_loss{task=\"contrast\",term=\"loss\"} 3.0",
            "blip2_loss{task=\"contrast\",term=\"itc\"} NaN",
            "blip2_learning_rate 0.0001",
            "blip2_temperature 0.07",
            "blip2_held_out{name=\"loss\"} 2.5",
            "blip2_step_duration_seconds_bucket{le=\"0.5\"} 2",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(!text.contains("something"));
        numbers.record(&StepRecord { stage: 2, task: "generate".into(), ..step });
        assert!(!telemetry.text().contains("task=\"contrast\""), "of the stage that is over");
    }
}
