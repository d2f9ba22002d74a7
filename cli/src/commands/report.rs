//! `report`: a page on any run, from its store and the metrics on this machine.

mod prediction;

use std::collections::BTreeMap;
use std::path::PathBuf;

use blip2_pages::chart::Series;
use blip2_pages::run_page::{Chart, RunReport, Table, Tile, render_run};
use blip2_records::{FaultRecord, StepRecord, read, read_all, read_faults};
use blip2_run::catalogue::{Catalogue, Listing};
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::{EpochMember, EpochRecord, Epochs};
use blip2_run::exit::Exit;
use blip2_run::layout;
use blip2_store::Location;
use blip2_worker::task::LossName;
use clap::Args;
use serde_json::json;

use super::print_json;
use crate::audit::{AuditReport, audit};
use crate::config::changed_values;
use crate::error::CliError;
use crate::figures::{count, duration};
use crate::metrics::series;
use crate::places::typed_location;
use crate::report::write_page;
use crate::run_folder::{local_path, metrics_folder};
use crate::stored_status::{StoredRun, StoredStatus};

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// A run (folder or URL), whether it has ended or not.
    pub(crate) run: String,
    /// The page to write [default: report.html in the run's folder, or here for a run in an object store]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print a summary as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Rows of a table that may grow with the run; the newest are shown.
const MOST_ROWS: usize = 200;
/// Recall on held-out rows.
const TEXTS: [(&str, &str); 3] = [
    ("eval_image_to_text_r@1", "R@1"),
    ("eval_image_to_text_r@5", "R@5"),
    ("eval_image_to_text_r@10", "R@10"),
];
const IMAGES: [(&str, &str); 3] = [
    ("eval_text_to_image_r@1", "R@1"),
    ("eval_text_to_image_r@5", "R@5"),
    ("eval_text_to_image_r@10", "R@10"),
];

/// A stage's losses under one of their names, with their titles.
fn titled(
    losses: &[LossName],
    name: impl Fn(&LossName) -> &'static str,
) -> Vec<(&'static str, &'static str)> {
    losses.iter().map(|loss| (name(loss), loss.title)).collect()
}

/// Where the curves come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curves {
    /// The metrics on this machine or in the store: every step.
    Metrics,
    /// The store: the last step before each checkpoint.
    Checkpoints,
}

/// Everything the page is made of.
struct Material {
    run: StoredRun,
    status: StoredStatus,
    metrics: PathBuf,
    records: Vec<StepRecord>,
    /// What the records are.
    from: Curves,
    faults: Vec<FaultRecord>,
    epochs: Vec<EpochRecord>,
    listing: Listing,
    audit: Result<AuditReport, CliError>,
}

/// Writes the page.
pub(crate) async fn run(arguments: ReportArguments) -> Result<Exit, CliError> {
    let material = Material::read(typed_location(&arguments.run)?).await?;
    let out = arguments.out.unwrap_or_else(|| match local_path(&arguments.run) {
        Some(folder) => folder.join(layout::REPORT),
        None => PathBuf::from(layout::REPORT),
    });
    write_page(&render_run(&material.report()?), &out)?;
    if arguments.json {
        print_json(&json!({
            "report": out,
            "run": material.status.run,
            "state": material.status.state,
            "step": material.status.step,
            "exact": material.audit.as_ref().ok().map(|audit| audit.exact),
        }))?;
    } else {
        eprintln!("open {}", out.display());
    }
    Ok(Exit::Done)
}

impl Material {
    async fn read(root: Location) -> Result<Self, CliError> {
        let run = StoredRun::open(root).await?;
        let status = run.status(run.newest_epoch().await?).await?;
        let folder = metrics_folder(&run.config);
        let metrics = folder.join(layout::METRICS);
        let listing = Catalogue::new(&run.root).list().await?;
        let segments = if run.root.is_local() { None } else { read_all(&run.root).await? };
        let (records, from) = match (segments, metrics.is_file()) {
            (Some(records), _) => (records, Curves::Metrics),
            (None, true) => (read(&metrics)?, Curves::Metrics),
            (None, false) => (listing.valid.iter().filter_map(saved).collect(), Curves::Checkpoints),
        };
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Ok(Self {
            faults: read_faults(&run.root, &folder).await?,
            epochs: epochs(&run.root).await?,
            listing,
            audit: audit(&run.root, threads).await,
            metrics,
            records,
            from,
            status,
            run,
        })
    }

    fn report(&self) -> Result<RunReport, CliError> {
        Ok(RunReport {
            title: format!("Run {}", self.status.run),
            state: self.status.line(),
            tiles: self.tiles(),
            charts: self.charts(),
            about_charts: self.about_charts(),
            tables: vec![
                self.audited(),
                self.predicted(),
                self.faults(),
                self.membership(),
                self.checkpoints(),
                self.configuration()?,
            ],
            pictures: None,
        })
    }

    fn about_charts(&self) -> String {
        let there = self.metrics.display();
        match (self.from, self.records.is_empty()) {
            (Curves::Metrics, false) => {
                "Faint: every step. Strong: running mean, with its last value.".to_owned()
            }
            (Curves::Metrics, true) => "No step is committed yet.".to_owned(),
            (Curves::Checkpoints, _) if !self.run.root.is_local() => format!(
                "One point a checkpoint, from the COMMITs: the run has no metrics in {}.",
                self.run.root.join(layout::SEGMENTS)
            ),
            (Curves::Checkpoints, false) => format!(
                "One point a checkpoint, from the store: the last step before it. Every step, and the throughput, are in the \
                 metrics, which the coordinator writes to {there} where it runs; they are not on this machine."
            ),
            (Curves::Checkpoints, true) => format!(
                "No metrics are on this machine, and no checkpoint is in the store: the coordinator writes the metrics to \
                 {there} where it runs."
            ),
        }
    }

    /// Steps of a stage before the first one that is recorded.
    fn before(&self, stage: u32) -> u64 {
        let first = self.records.iter().find(|record| record.stage == stage).map_or(0, |record| record.step);
        let earlier = self.run.config.stages.iter().take((stage as usize).saturating_sub(1));
        let begins: u64 = earlier.map(|stage| stage.steps).sum();
        first.saturating_sub(begins)
    }

    fn tiles(&self) -> Vec<Tile> {
        let samples: u64 = self.records.iter().map(|record| record.samples).sum();
        let busy: f64 = self.records.iter().map(|record| record.seconds).sum();
        let waiting: f64 = self.records.iter().map(|record| record.data_wait_seconds).sum();
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let tile = |label: &str, value: String, note: String| Tile { label: label.into(), value, note };
        let StoredStatus { step, total_steps, .. } = self.status;
        let mut tiles = vec![tile("Steps", step.to_string(), format!("of {total_steps}, all stages"))];
        if self.from == Curves::Metrics && !self.records.is_empty() {
            let rate = format!("{:.1} samples/s", ratio(samples as f64, busy));
            tiles.push(tile(
                "Throughput",
                rate,
                format!("{:.1} % of the time waits for data", 100.0 * ratio(waiting, busy)),
            ));
            tiles.push(tile("Time in steps", duration(busy), "committed ones alone".into()));
            let seen = self.records.last().map_or(0, |record| record.samples_seen).max(samples);
            tiles.push(tile("Samples seen", seen.to_string(), "each as often as the plan says".into()));
        }
        let (value, note) = match &self.audit {
            Ok(audit) if audit.exact => ("exact".to_owned(), count(audit.notes.len(), "note")),
            Ok(audit) => (count(audit.differences.len(), "difference"), "see below".to_owned()),
            Err(_) => ("none".to_owned(), "nothing to audit yet".to_owned()),
        };
        tiles.push(tile("Audit", value, note));
        tiles
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        let mut add = |title: String, unit: &str, series: Vec<Series>| {
            if !series.is_empty() {
                charts.push(Chart { title, unit: unit.into(), series });
            }
        };
        for numbered in self.run.config.trained_stages() {
            let stage = numbered.number;
            let losses = numbered.settings.task.losses();
            let before = self.before(stage);
            let lines = |names: &[(&str, &str)]| {
                let mut lines = series(&self.records, stage, names);
                lines.iter_mut().flat_map(|line| &mut line.points).for_each(|(step, _)| *step += before);
                lines
            };
            add(format!("Stage {stage}: losses"), "loss, nats", lines(&titled(losses, |loss| loss.name)));
            add(
                format!("Stage {stage}: losses on held-out rows"),
                "loss, nats",
                lines(&titled(losses, |loss| loss.held_out)),
            );
            add(format!("Stage {stage}: recall of held-out texts for pictures"), "share", lines(&TEXTS));
            add(format!("Stage {stage}: recall of held-out pictures for texts"), "share", lines(&IMAGES));
            let norm = lines(&[("gradient_norm", "norm")]);
            add(format!("Stage {stage}: norm of the gradient"), "norm", norm);
            let rate = lines(&[("learning_rate", "rate")]);
            add(format!("Stage {stage}: learning rate"), "learning rate", rate);
        }
        let speed = self.records.iter().filter(|record| record.seconds > 0.0);
        let points: Vec<(u64, f64)> =
            speed.map(|record| (record.step, record.samples as f64 / record.seconds)).collect();
        if !points.is_empty() {
            let series = vec![Series { name: "speed".into(), points }];
            add("Throughput, all stages".into(), "samples/s", series);
        }
        charts
    }

    fn audited(&self) -> Table {
        let (about, rows) = match &self.audit {
            Err(error) => (error.to_string(), Vec::new()),
            Ok(audit) => {
                let about = match audit.exact {
                    true => {
                        "Exact: every checkpoint stands for the rows of the plan, each used as often as it should be."
                    }
                    false => "What the store says differs from what the configuration and the corpus demand.",
                };
                let stages = audit.stages.iter().map(|stage| {
                    (
                        format!("stage {}", stage.stage),
                        format!(
                            "{} steps, {} samples of {} rows, each used {} to {} times",
                            stage.steps, stage.samples, stage.rows, stage.fewest_uses, stage.most_uses
                        ),
                    )
                });
                let named = |what: &str, lines: &[String]| {
                    let what = what.to_owned();
                    lines.iter().map(move |line| (what.clone(), line.clone())).collect::<Vec<_>>()
                };
                let replaced = audit.substitutions.len();
                let substituted =
                    (replaced > 0).then(|| ("substitutes".to_owned(), count(replaced, "sample")));
                let rows = stages
                    .chain(substituted)
                    .chain(named("difference", &audit.differences))
                    .chain(named("note", &audit.notes));
                (about.to_owned(), rows.collect())
            }
        };
        Table { id: "audit", title: "Audit".into(), about, rows, empty: String::new() }
    }

    fn predicted(&self) -> Table {
        let members =
            self.epochs.iter().rev().map(|epoch| &epoch.members).find(|members| !members.is_empty());
        let devices: Vec<&str> = members.into_iter().flatten().map(|member| member.device.as_str()).collect();
        let measured = if self.from == Curves::Metrics { &self.records[..] } else { &[] };
        prediction::table(&self.run.config, &devices, measured)
    }

    fn faults(&self) -> Table {
        let row = |record: &FaultRecord| {
            (format!("step {}, epoch {}", record.step, record.epoch), record.fault.clone())
        };
        Table {
            id: "faults",
            title: "Faults".into(),
            about: String::new(),
            rows: newest(&self.faults, row),
            empty: "No fault was recorded.".into(),
        }
    }

    fn membership(&self) -> Table {
        let row = |record: &EpochRecord| {
            let what = match (&record.end, record.members.len()) {
                (Some(how), _) => format!("the run is {how}"),
                (None, 0) => format!("a coordinator begins at {}", record.address),
                (None, members) => {
                    let named = |member: &EpochMember| match member.device.as_str() {
                        "" => member.name.clone(),
                        device => format!("{} on {device}", member.name),
                    };
                    let names: Vec<String> = record.members.iter().map(named).collect();
                    format!("{}: {}", count(members, "worker"), names.join(", "))
                }
            };
            let back = record.back_from.map_or(String::new(), |from| format!("; back from step {from}"));
            (format!("epoch {}, step {}", record.epoch, record.step), what + &back)
        };
        Table {
            id: "membership",
            title: "Membership".into(),
            about: "An epoch begins whenever a worker or a coordinator comes or goes.".into(),
            rows: newest(&self.epochs, row),
            empty: "Nobody has led this run yet.".into(),
        }
    }

    fn checkpoints(&self) -> Table {
        let whole = self.listing.valid.iter().map(|record| {
            let bytes: u64 = record.objects().map(|object| object.length).sum();
            (record.name.clone(), format!("step {}, {:.1} MB", record.step, bytes as f64 / 1e6))
        });
        let damaged = self.listing.damaged.iter();
        let damaged = damaged.map(|found| (found.name.clone(), format!("damaged: {}", found.reason)));
        let rows: BTreeMap<String, String> = whole.chain(damaged).collect();
        Table {
            id: "checkpoints",
            title: "Checkpoints".into(),
            about: String::new(),
            rows: rows.into_iter().collect(),
            empty: "Nothing is saved yet.".into(),
        }
    }

    fn configuration(&self) -> Result<Table, CliError> {
        Ok(Table {
            id: "configuration",
            title: "Configuration".into(),
            about: "What differs from the defaults.".into(),
            rows: changed_values(&self.run.config)?,
            empty: String::new(),
        })
    }
}

/// What a checkpoint says of the last step before it.
fn saved(checkpoint: &CheckpointRecord) -> Option<StepRecord> {
    let finite = |value: &f64| value.is_finite().then_some(*value);
    let values = checkpoint.values.iter().map(|(name, value)| (name.clone(), finite(value))).collect();
    Some(StepRecord {
        step: checkpoint.step.checked_sub(1)?,
        stage: checkpoint.stage,
        stage_name: checkpoint.stage_name.clone(),
        task: checkpoint.task.clone(),
        epoch: checkpoint.epoch,
        values,
        ..StepRecord::default()
    })
}

/// All epochs that can be read; the audit names the others.
async fn epochs(root: &Location) -> Result<Vec<EpochRecord>, CliError> {
    let epochs = Epochs::new(root, String::new(), String::new());
    let mut records = Vec::new();
    for number in epochs.numbers().await? {
        if let Ok(Some(record)) = epochs.read(number).await {
            records.push(record);
        }
    }
    Ok(records)
}

/// Rows of the newest items, newest last, after a word on those that are left out.
fn newest<T>(items: &[T], row: impl Fn(&T) -> (String, String)) -> Vec<(String, String)> {
    let skipped = items.len().saturating_sub(MOST_ROWS);
    let left_out = (skipped > 0).then(|| ("earlier".to_owned(), format!("{skipped} more")));
    left_out.into_iter().chain(items[skipped..].iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tables_show_the_newest_rows_and_say_what_is_missing() {
        let items: Vec<u32> = (0..500).collect();
        let rows = newest(&items, |item| (item.to_string(), String::new()));
        assert_eq!((rows.len(), rows[0].1.as_str()), (MOST_ROWS + 1, "300 more"));
        assert_eq!(rows.last().map(|row| row.0.as_str()), Some("499"));
        assert_eq!(newest(&items[..2], |item| (item.to_string(), String::new())).len(), 2);
    }
}
