//! The quick start on the emoji corpus: held-out concepts, which is harder than held-out combinations.

mod evaluation;

use blip2_records::{StepRecord, read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use blip2_pages::quickstart_page::{CaptionLosses, Report, RetrievalScores, render};
use blip2_run::exit::Exit;
use blip2_run::layout;
use serde::Serialize;

use self::evaluation::{RunEvaluation, evaluate};
use super::arguments::QuickstartArguments;
use super::ends::{NO_LOSSES, interrupted};
use super::facts::{loss_curves, training_facts};
use super::preparation::{checked, remove_earlier};
use super::survival::{Survival, proven};
use crate::commands::print_json;
use crate::commands::train::train_here;
use crate::config::{RunConfig, load_presets};
use crate::error::CliError;
use crate::figures::duration;
use crate::progress::Audience;
use crate::report::write_page;
use crate::run_folder::Purpose;
use crate::session::Finished;
use crate::signals::Signals;

const PRESET_NAME: &str = "configs/quickstart.toml";
const PRESET: &str = include_str!("../../../../configs/quickstart.toml");

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
pub(super) async fn run(arguments: QuickstartArguments) -> Result<Exit, CliError> {
    let started = Instant::now();
    let out = arguments.out;
    let config = configuration(&out, &arguments.set)?;
    let run_root = PathBuf::from(&config.run.root);
    let (signals, audience) = (Signals::listen()?, Audience::detect(arguments.json));
    let resume = arguments.resume;
    let finished = train_here(config.clone(), resume, Purpose::QuickStart, audience, &signals).await?;

    let survival = proven(&config, &out, resume, audience, &signals).await?;

    eprintln!("exporting, and evaluating on held-out pictures");
    let export = out.join("export");
    if resume {
        remove_earlier(&export)?;
    }
    let RunEvaluation { retrieval, caption_losses, images, digest } = tokio::select! {
        evaluation = evaluate(&config, export) => evaluation?,
        () = signals.graceful().cancelled_owned() => return Err(interrupted()),
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
    checked(load_presets(&[(PRESET_NAME, PRESET)], &values)?, PRESET_NAME, &run_root)
}

fn facts(
    config: &RunConfig,
    finished: &Finished,
    records: &[StepRecord],
    digest: &str,
    survival: &Survival,
) -> Vec<(String, String)> {
    let mut facts = training_facts(config, finished, records);
    facts.push(("Parameters (BLAKE3)", digest.to_owned()));
    facts.push(("A worker killed on purpose", survival.sentence()));
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
    let losses = report.caption_losses.unwrap_or(NO_LOSSES);
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
