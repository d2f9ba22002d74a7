//! `quickstart`: all stages on the emoji corpus, then export, evaluation and the report.

mod evaluation;
mod survival;

use std::path::{Path, PathBuf};
use std::time::Instant;

use blip2_pages::chart::Series;
use blip2_pages::quickstart_page::{CaptionLosses, Report, RetrievalScores, render};
use blip2_run::exit::Exit;
use blip2_run::layout;
use blip2_store::fetch::is_url;
use blip2_tensors::device::DeviceName;
use blip2_worker::config::stage::{NumberedStage, StageSettings};
use blip2_worker::settings::model::is_model_file;
use clap::Args;
use serde::Serialize;

use self::evaluation::{RunEvaluation, evaluate};
use self::survival::{Survival, prove};
use super::print_json;
use super::train::{train_here, with_a_worker_a_card};
use crate::again::same_command;
use crate::config::{RunConfig, load_preset};
use crate::error::CliError;
use crate::figures::duration;
use crate::metrics::{StepRecord, read, series};
use crate::progress::Audience;
use crate::report::write_page;
use crate::run_folder::Purpose;
use crate::session::Finished;
use crate::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct QuickstartArguments {
    /// Folder that gets `report.html`, `run/` and `export/`.
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Set one value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the quick start in `--out`: what is trained is not trained again; starts it where there is
    /// none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

const PRESET_NAME: &str = "configs/quickstart.toml";
const PRESET: &str = include_str!("../../../configs/quickstart.toml");

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary {
    seconds: f64,
    #[serde(rename = "r@1")]
    r1: f64,
    #[serde(rename = "r@5")]
    r5: f64,
    #[serde(rename = "r@10")]
    r10: f64,
    stage2_loss: f64,
    stage2_loss_shuffled: f64,
    language_model_loss: f64,
    /// Digests of a short run, undisturbed and with a worker killed: equal.
    survival: Survival,
    report: String,
}

/// Trains, exports, evaluates, reports.
pub(crate) async fn run(arguments: QuickstartArguments) -> Result<Exit, CliError> {
    let started = Instant::now();
    let out = arguments.out;
    let mut set = arguments.set;
    set.extend(arguments.device.map(|device| format!("train.device={device}")));
    let config = configuration(&out, &set)?;
    let run_root = PathBuf::from(&config.run.root);
    let (signals, audience) = (Signals::listen()?, Audience::detect(arguments.json));
    let resume = arguments.resume;
    let finished = train_here(config.clone(), resume, Purpose::QuickStart, audience, &signals).await?;

    eprintln!("the proof of survival: a few steps twice, and a worker killed the second time");
    let proof = out.join("proof");
    if resume {
        remove_earlier(&proof)?;
    }
    let survival = prove(&config, &proof, audience, &signals).await?;

    eprintln!("exporting, and evaluating on held-out pictures");
    let export = out.join("export");
    if resume {
        remove_earlier(&export)?;
    }
    let RunEvaluation { retrieval, caption_losses, images, digest } = tokio::select! {
        evaluation = evaluate(&config, export) => evaluation?,
        () = signals.graceful().cancelled_owned() => {
            return Err(CliError::Interrupted(format!(
                "stopped after training, which is saved; continue with {}",
                same_command(Some("--resume"))
            )));
        }
    };
    let records = read(&run_root.join(layout::METRICS))?;
    let path = out.join(layout::REPORT);
    let report = Report {
        retrieval,
        stages: config.trained_stages().map(|stage| loss_curves(&records, &stage)).collect(),
        caption_losses,
        pictures: images,
        facts: facts(&config, &finished, &records, &digest, &survival),
    };
    write_page(&render(&report), &path)?;
    let seconds = started.elapsed().as_secs_f64();
    tell(&report.retrieval, report.caption_losses, seconds, &path);
    if arguments.json {
        print_json(&summary(&report, survival, seconds, &path))?;
    }
    Ok(Exit::Done)
}

/// The preset with its run under `out`, checked before anything is written.
fn configuration(out: &Path, set: &[String]) -> Result<RunConfig, CliError> {
    let run_root = out.join("run");
    let mut values = vec![format!("run.root={}", run_root.display())];
    values.extend_from_slice(set);
    let config = with_a_worker_a_card(load_preset(PRESET_NAME, PRESET, &values)?, Some(PRESET_NAME))?;
    if Path::new(&config.run.root) != run_root {
        return Err(CliError::config("run.root: the quick start's run is in --out DIR; leave run.root out"));
    }
    let folders = [
        ("model.image_encoder", &config.model.image_encoder),
        ("model.language_model", &config.model.language_model),
        ("model.qformer_init", &config.model.qformer_init),
        ("model.qformer_tokenizer", &config.model.qformer_tokenizer),
        ("eval.clip", &config.eval.clip),
    ];
    for (key, folder) in folders {
        let path = Path::new(folder);
        if !folder.is_empty() && !is_url(folder) && !path.is_dir() && !is_model_file(key, path) {
            return Err(CliError::config(format!(
                "{key}: there is no folder {folder} here; start the quick start in the repository's folder, \
                 which has assets/"
            )));
        }
    }
    Ok(config)
}

/// Removes what an earlier quick start made beside its run: it is made again.
fn remove_earlier(folder: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::failed(format!("{}: it cannot be removed: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// The losses of a stage as its task names them.
fn loss_curves(records: &[StepRecord], stage: &NumberedStage) -> (String, Vec<Series>) {
    let task = &stage.settings.task;
    let names: Vec<(&str, &str)> = task.losses().iter().map(|loss| (loss.name, loss.title)).collect();
    (format!("Stage {}: {}", stage.number, task.title()), series(records, stage.number, &names))
}

/// A fact of every stage.
fn of_stages(config: &RunConfig, between: &str, of: impl Fn(&StageSettings) -> String) -> String {
    config.stages.iter().map(of).collect::<Vec<_>>().join(between)
}

fn facts(
    config: &RunConfig,
    finished: &Finished,
    records: &[StepRecord],
    digest: &str,
    survival: &Survival,
) -> Vec<(String, String)> {
    let samples: u64 = records.iter().map(|record| record.samples).sum();
    let busy: f64 = records.iter().map(|record| record.seconds).sum();
    let waiting: f64 = records.iter().map(|record| record.data_wait_seconds).sum();
    let share = |part: f64| if busy > 0.0 { part / busy * 100.0 } else { 0.0 };
    let facts = [
        ("Time", duration(if finished.was_done { busy } else { finished.seconds })),
        ("Throughput", format!("{:.0} pictures/s", if busy > 0.0 { samples as f64 / busy } else { 0.0 })),
        ("Steps", of_stages(config, " + ", |stage| stage.steps.to_string())),
        ("Batch", of_stages(config, " and ", |stage| stage.batch.to_string())),
        ("Pictures seen", samples.to_string()),
        ("Worker processes", config.coordinator.workers.to_string()),
        ("Waiting for data", format!("{:.1} % of the time", share(waiting))),
        ("Rows quarantined", finished.status.quarantined.to_string()),
        ("Run", config.run.root.clone()),
        ("Checkpoint", finished.checkpoint.clone()),
        ("Parameters (BLAKE3)", digest.to_owned()),
        ("A worker killed on purpose", survival.sentence()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn tell(scores: &RetrievalScores, losses: Option<CaptionLosses>, seconds: f64, path: &Path) {
    let [r1, r5, r10] = scores.ours;
    eprintln!(
        "held-out retrieval  R@1 {r1:.3}  R@5 {r5:.3}  R@10 {r10:.3}  (R@5 by chance {:.3})",
        scores.chance[1]
    );
    if let Some(losses) = losses {
        eprintln!(
            "held-out captions   {:.3} nats a token with their pictures, {:.3} with others', {:.3} with none",
            losses.with_images, losses.shuffled, losses.language_model
        );
    }
    eprintln!("done in {}; open {}", duration(seconds), path.display());
}

fn summary(report: &Report, survival: Survival, seconds: f64, path: &Path) -> Summary {
    let [r1, r5, r10] = report.retrieval.ours;
    // Without a stage that writes captions there is no such loss; JSON shows it as null.
    let none = CaptionLosses { with_images: f64::NAN, shuffled: f64::NAN, language_model: f64::NAN };
    let losses = report.caption_losses.unwrap_or(none);
    Summary {
        seconds,
        r1,
        r5,
        r10,
        stage2_loss: losses.with_images,
        stage2_loss_shuffled: losses.shuffled,
        language_model_loss: losses.language_model,
        survival,
        report: path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preset_is_checked_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = format!("model.image_encoder={}/none", folder.path().display());
        let error = configuration(folder.path(), &[nowhere]).unwrap_err();
        assert_eq!(error.exit(), Exit::BadConfig, "{error}");
        let error = configuration(folder.path(), &["run.root=elsewhere".to_owned()]).unwrap_err();
        assert_eq!(error.exit(), Exit::BadConfig, "{error}");
    }

    #[test]
    fn the_summary_has_the_promised_keys() {
        let report = Report {
            caption_losses: Some(CaptionLosses { with_images: 1.0, shuffled: 2.0, language_model: 3.0 }),
            ..Report::default()
        };
        let survival =
            Survival { steps: 16, epochs_lost: 2, undisturbed: "a1".to_owned(), killed: "a1".to_owned() };
        let json = serde_json::to_value(summary(&report, survival, 4.0, Path::new("report.html"))).unwrap();
        for key in
            ["seconds", "r@1", "r@5", "r@10", "stage2_loss", "stage2_loss_shuffled", "language_model_loss"]
        {
            assert!(json[key].is_number(), "{key}");
        }
    }
}
