//! What is measured: every metric by name, each said once.

/// What comes before every name.
pub const PREFIX: &str = "blip2_";

/// How a metric's numbers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values below bounds, of seconds.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without [`PREFIX`]; that of a counter ends in `_total`.
    pub name: &'static str,
    /// How its numbers are meant.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

impl Metric {
    /// The name as it is shown.
    pub fn full_name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// The names of the series that it is shown as.
    pub fn series(&self) -> Vec<String> {
        let name = self.full_name();
        match self.kind {
            Kind::Counter | Kind::Gauge => vec![name],
            Kind::Histogram => ["bucket", "count", "sum"].map(|end| format!("{name}_{end}")).into(),
        }
    }
}

/// Declares metrics, a line each, and the list of all.
macro_rules! metrics {
    ($(#[doc = $help:literal] $constant:ident: $kind:ident $name:literal [$($label:literal),*];)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All metrics.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    /// 1 for the program that runs, by version and by what the process is
    BUILD_INFO: Gauge "build_info" ["version", "role"];
    /// Bytes of memory that the process holds
    RESIDENT_MEMORY_BYTES: Gauge "resident_memory_bytes" [];
    /// Requests to remote stores, by what was asked and how it ended; with its tries each counts once
    STORE_REQUESTS_TOTAL: Counter "store_requests_total" ["op", "outcome"];
    /// Tries of such requests that came to nothing and are made again up to a bound, by cause
    STORE_FAILED_TRIES_TOTAL: Counter "store_failed_tries_total" ["cause"];

    /// 1 while this coordinator leads the run
    LEADER: Gauge "leader" [];
    /// 1 while this coordinator stands by
    STANDBY: Gauge "standby" [];
    /// The newest membership epoch
    EPOCH: Gauge "epoch" [];
    /// Committed steps; of a worker, those behind the state it holds
    STEP: Gauge "step" [];
    /// Steps of the whole run
    STEPS_PLANNED: Gauge "steps_planned" [];
    /// When the newest step was committed; before the first, when this coordinator began to lead
    LAST_COMMIT_TIMESTAMP_SECONDS: Gauge "last_commit_timestamp_seconds" [];
    /// When the newest checkpoint was complete; before the first, when this coordinator began to lead
    LAST_CHECKPOINT_TIMESTAMP_SECONDS: Gauge "last_checkpoint_timestamp_seconds" [];
    /// Seconds of a committed step: of the slowest member where a coordinator says it, else of this worker
    STEP_DURATION_SECONDS: Histogram "step_duration_seconds" [];
    /// Steps that were committed
    STEPS_TOTAL: Counter "steps_total" [];
    /// Committed steps that changed no parameter because a value was not finite
    STEPS_SKIPPED_TOTAL: Counter "steps_skipped_total" [];
    /// Attempts at a step that came to nothing, and committed steps that were lost and done again, by reason
    STEPS_REDONE_TOTAL: Counter "steps_redone_total" ["reason"];
    /// Samples of the committed steps
    SAMPLES_TOTAL: Counter "samples_total" [];
    /// Samples a second over the newest committed steps
    SAMPLES_PER_SECOND: Gauge "samples_per_second" [];
    /// Seconds to the end of the run as it goes now; 0 while unknown
    REMAINING_SECONDS: Gauge "remaining_seconds" [];
    /// Workers by state: computing, waiting, preparing, leaving
    MEMBERS: Gauge "members" ["state"];
    /// Workers that the configuration wants: `start` to begin with, `min` to go on with
    MEMBERS_WANTED: Gauge "members_wanted" ["bound"];
    /// Faults that were noticed
    FAULTS_TOTAL: Counter "faults_total" [];
    /// Losses of the newest committed step, by the stage's task and the loss's name
    LOSS: Gauge "loss" ["task", "term"];
    /// The newest numbers on held-out rows, by name
    HELD_OUT: Gauge "held_out" ["name"];
    /// Learning rate of the newest committed step
    LEARNING_RATE: Gauge "learning_rate" [];
    /// Norm of the gradient of the newest committed step, before it was clipped
    GRADIENT_NORM: Gauge "gradient_norm" [];
    /// Temperature of the contrastive loss after the newest committed step
    TEMPERATURE: Gauge "temperature" [];
    /// Seconds of the run since it was first led that went into steps which were committed
    GOODPUT_SECONDS_TOTAL: Counter "goodput_seconds_total" [];
    /// Other seconds since the run was first led, by cause: start_up, data, save, restore, wasted, no_leader
    BADPUT_SECONDS_TOTAL: Counter "badput_seconds_total" ["cause"];
    /// Rows that steps could not use, by reason: image, text, question
    QUARANTINED_ROWS_TOTAL: Counter "quarantined_rows_total" ["reason"];

    /// Seconds of this worker's committed steps by phase; phases run beside each other
    STEP_PHASE_SECONDS_TOTAL: Counter "step_phase_seconds_total" ["phase"];
    /// Bytes that this worker's committed steps moved, by way
    COLLECTIVE_BYTES_TOTAL: Counter "collective_bytes_total" ["kind"];
    /// Row groups that this worker read, from the store or from the disk cache
    LOADER_ROW_GROUPS_TOTAL: Counter "loader_row_groups_total" ["from"];
    /// Bytes of them
    LOADER_BYTES_TOTAL: Counter "loader_bytes_total" ["from"];
    /// Samples of this worker by what they found of their row group in the loader's memory
    LOADER_SAMPLES_TOTAL: Counter "loader_samples_total" ["found"];
    /// Reads from the store that this worker made again, because one failed or was slow
    LOADER_READS_AGAIN_TOTAL: Counter "loader_reads_again_total" ["reason"];
    /// Sessions that this worker opened with coordinators
    SESSIONS_TOTAL: Counter "sessions_total" [];
    /// Bytes of the device's memory: of tensors, held by this worker, in use by whatever process
    DEVICE_MEMORY_BYTES: Gauge "device_memory_bytes" ["kind"];
    /// Kernels that this worker's steps launched for the first time: compiled, or found on disk
    KERNELS_COMPILED_TOTAL: Counter "kernels_compiled_total" [];

    /// Tasks of a curation or units of an evaluation, by state: all, done, leased
    TASKS: Gauge "tasks" ["state"];
    /// Workers that have a task
    TASK_WORKERS: Gauge "task_workers" [];
    /// Tasks that this process saw done or failed, by outcome
    TASKS_TOTAL: Counter "tasks_total" ["outcome"];
    /// Rows of the tasks that this process saw done
    TASK_ROWS_TOTAL: Counter "task_rows_total" [];
    /// Rows of a curation's tasks that are done, by outcome: written, duplicate, without_text, rejected
    CURATED_ROWS_TOTAL: Counter "curated_rows_total" ["outcome"];
    /// Texts of them by source, and by outcome: kept, or why not
    CURATED_TEXTS_TOTAL: Counter "curated_texts_total" ["source", "outcome"];
}

/// Upper bounds of the buckets of seconds.
pub const SECONDS: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_their_kind_and_are_each_of_one_metric() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(metric.name.bytes().all(plain), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.trim().is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
