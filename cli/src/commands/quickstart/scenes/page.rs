//! What the page of a quick start on scenes says, of what was measured.

use blip2_records::{StepRecord, read};
use std::path::PathBuf;
use std::time::Duration;

use blip2_pages::scenes_page::{Answers, CaptionedScene, ScenesReport};
use blip2_run::layout;

use super::evaluation::RunEvaluation;
use super::judge::Judged;
use crate::audit::AuditReport;
use crate::commands::quickstart::ends::{evenly, png};
use crate::commands::quickstart::facts::{loss_curves, training_facts};
use crate::commands::quickstart::survival::Survival;
use crate::config::RunConfig;
use crate::error::CliError;
use crate::figures::duration;
use crate::session::Finished;

/// All that was measured.
#[derive(Debug)]
pub(super) struct Measured<'a> {
    pub(super) evaluated: RunEvaluation,
    pub(super) answers: Option<Answers>,
    pub(super) audited: AuditReport,
    pub(super) survival: &'a Survival,
    pub(super) finished: &'a Finished,
}

/// The page of a run of `pretraining`, and of `questions` if any were asked, on so many scenes.
pub(super) fn report(
    pretraining: &RunConfig,
    questions: Option<&RunConfig>,
    scenes: u64,
    measured: Measured<'_>,
    taken: Duration,
) -> Result<ScenesReport, CliError> {
    let Measured { evaluated, answers, audited, survival, finished } = measured;
    let (mut stages, mut records) = (Vec::new(), Vec::new());
    for config in [Some(pretraining), questions].into_iter().flatten() {
        let own = read(&PathBuf::from(&config.run.root).join(layout::METRICS))?;
        stages.extend(config.trained_stages().map(|stage| loss_curves(&own, &stage)));
        records.push(own);
    }
    Ok(ScenesReport {
        trained: trained(pretraining, questions, scenes),
        captions: shown(&evaluated.captions, pretraining.eval.captions)?,
        shares: evaluated.shares,
        retrieval: evaluated.retrieval,
        caption_losses: evaluated.caption_losses,
        answers,
        attention: evaluated.attention,
        stages,
        audit: audit(&audited),
        facts: facts(pretraining, finished, &records[0], &evaluated.digest, survival, taken),
    })
}

fn trained(pretraining: &RunConfig, questions: Option<&RunConfig>, scenes: u64) -> Vec<(String, String)> {
    let mut parts = vec![
        ("Image encoder, frozen".to_owned(), "scenes: what each patch shows; no sentence".to_owned()),
        (
            "Language model, frozen".to_owned(),
            "text alone: captions and answers behind notes of them".to_owned(),
        ),
        ("Q-Former's beginning".to_owned(), "text alone: masked words".to_owned()),
    ];
    for config in [Some(pretraining), questions].into_iter().flatten() {
        for stage in config.trained_stages() {
            let about = format!(
                "{scenes} scenes, {} steps of {}: {}",
                stage.settings.steps,
                stage.settings.batch,
                stage.settings.task.title()
            );
            parts.push((format!("Q-Former, stage {}", stage.number), about));
        }
    }
    parts.push(("Never shown to any of them".to_owned(), "the combinations that are asked about".to_owned()));
    parts
}

fn shown(captions: &[Judged], most: usize) -> Result<Vec<CaptionedScene>, CliError> {
    let chosen = evenly(captions, most).into_iter();
    let page = chosen.map(|judged| {
        Ok(CaptionedScene {
            png: png(judged.shown.image())?,
            caption: judged.shown.caption().to_owned(),
            written: judged.written.clone(),
            is_right: judged.is_right(),
            has_right_things: judged.has_right_things(),
        })
    });
    page.collect()
}

/// The audit in a sentence.
fn audit(report: &AuditReport) -> String {
    match report.differences.len() {
        0 => format!(
            "exact. All {} checkpoints stand for the rows of the plan, each used as often as it should be.",
            report.checkpoints
        ),
        differences => format!("{differences} differences, the first: {}", report.differences[0]),
    }
}

fn facts(
    config: &RunConfig,
    finished: &Finished,
    records: &[StepRecord],
    digest: &str,
    survival: &Survival,
    taken: Duration,
) -> Vec<(String, String)> {
    let mut facts = vec![("Time", duration(taken.as_secs_f64())), ("Machine", machine())];
    for (name, value) in training_facts(config, finished, records) {
        facts.push((if name == "Time" { "Time of pre-training" } else { name }, value));
    }
    facts.push(("Parameters (BLAKE3)", digest.to_owned()));
    facts.push(("A worker killed on purpose", survival.sentence()));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What this machine computes with, as its system tells it.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{cores} cores, {model}")
}
