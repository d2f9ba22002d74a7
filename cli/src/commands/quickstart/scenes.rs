//! The quick start on scenes, which are composed first: captions of held-out combinations, and answers.

mod answers;
mod attended;
mod evaluation;
mod judge;
mod page;

use std::path::{Path, PathBuf};
use std::time::Instant;

use blip2_pages::scenes_page::{Answers, CaptionShares, ScenesReport, render};
use blip2_run::exit::Exit;
use blip2_run::layout;
use blip2_scenes::compose::{Composer, SIZE};
use blip2_scenes::files::{self, Rows, table_path};
use blip2_scenes::split::Split;
use blip2_worker::task::TaskSettings;
use serde::Serialize;

use super::arguments::{QuickstartArguments, With};
use super::ends::{NO_LOSSES, interrupted};
use super::preparation::{checked, remove_earlier};
use super::survival::{Survival, proven};
use crate::audit::audit;
use crate::commands::print_json;
use crate::commands::train::train_here;
use crate::config::{RunConfig, load_presets};
use crate::error::CliError;
use crate::figures::duration;
use crate::places::typed_location;
use crate::progress::Audience;
use crate::report::write_page;
use crate::run_folder::Purpose;
use crate::signals::Signals;

const PRESET_NAME: &str = "configs/scenes.toml";
const PRESET: &str = include_str!("../../../../configs/scenes.toml");
const VQA_PRESET_NAME: &str = "cli/src/commands/quickstart/scenes/vqa.toml";
const VQA_PRESET: &str = include_str!("scenes/vqa.toml");

/// Where the drawings are.
const CORPUS: &str = "assets/corpus";
/// The file that says what was composed.
const COMPOSED: &str = "composed.txt";
/// Another seed than that of the scenes which the small models were trained on, which they know by heart.
const SEED: u64 = 7;
/// Rows of each held-out split; a few tell of a scene that another told of.
const HELD_OUT_ROWS: u64 = 640;
/// Stages of pre-training, before that of questions.
const PRETRAINING: usize = 2;

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
    /// Captions of held-out combinations that are wholly right, and that name the right things.
    captions_right: f64,
    things_right: f64,
    /// Answers, with their images and with others'; null where nothing was asked.
    answers_right: Option<f64>,
    answers_right_shuffled: Option<f64>,
    stage2_loss: f64,
    stage2_loss_shuffled: f64,
    language_model_loss: f64,
    /// Digests of a short run, undisturbed and with a worker killed: equal.
    survival: Survival,
    report: String,
}

/// The runs of a quick start.
#[derive(Debug)]
struct Plan {
    /// Both stages of pre-training.
    pretraining: RunConfig,
    /// The stage of questions, if it is asked for.
    questions: Option<RunConfig>,
}

/// Composes, trains, exports, evaluates, reports.
pub(super) async fn run(arguments: QuickstartArguments) -> Result<Exit, CliError> {
    let started = Instant::now();
    let QuickstartArguments { out, set, with, scenes, resume, json, .. } = arguments;
    let plan = Plan::read(&out, &set, with)?;
    let config = &plan.pretraining;
    let (signals, audience) = (Signals::listen()?, Audience::detect(json));
    let data = out.join("scenes");
    compose(scenes, data.clone()).await?;
    let finished = train_here(config.clone(), resume, Purpose::QuickStart, audience, &signals).await?;

    let survival = proven(config, &out, resume, audience, &signals).await?;

    let (export, half) = (out.join("export"), text_half(&out));
    if resume {
        remove_earlier(&export)?;
        remove_earlier(&half)?;
    }
    eprintln!("exporting, and evaluating on held-out scenes");
    let evaluated = tokio::select! {
        evaluation = evaluation::evaluate(config, &data, export, half) => evaluation?,
        () = signals.graceful().cancelled_owned() => return Err(interrupted()),
    };
    let answers = match &plan.questions {
        Some(config) => {
            eprintln!("fine-tuning on questions");
            train_here(config.clone(), resume, Purpose::QuickStart, audience, &signals).await?;
            tokio::select! {
                answers = answers::evaluate(config) => Some(answers?),
                () = signals.graceful().cancelled_owned() => return Err(interrupted()),
            }
        }
        None => None,
    };
    let audited = audit(&typed_location(&config.run.root)?, 1).await?;
    let path = out.join(layout::REPORT);
    let measured = page::Measured { evaluated, answers, audited, survival: &survival, finished: &finished };
    let report = page::report(config, plan.questions.as_ref(), scenes, measured, started.elapsed())?;
    write_page(&render(&report), &path)?;
    let seconds = started.elapsed().as_secs_f64();
    tell(&report, seconds, &path);
    if json {
        print_json(&summary(&report, survival, seconds, &path))?;
    }
    Ok(Exit::Done)
}

impl Plan {
    /// The presets with their runs and scenes under `out`, checked before anything is written.
    fn read(out: &Path, set: &[String], with: Option<With>) -> Result<Self, CliError> {
        let (run_root, data) = (out.join("run"), out.join("scenes"));
        let file = |split| table_path(&data, split).display().to_string();
        let mut values = vec![
            format!("run.root={}", run_root.display()),
            format!("data.train=[{:?}]", file(Split::Train)),
            format!("eval.test=[{:?}]", file(Split::Combinations)),
        ];
        values.extend_from_slice(set);
        let mut presets = vec![(PRESET_NAME, PRESET)];
        presets.extend(with.map(|With::Vqa| (VQA_PRESET_NAME, VQA_PRESET)));
        let all = checked(load_presets(&presets, &values)?, PRESET_NAME, &run_root)?;
        let mut pretraining = all.clone();
        pretraining.stages.truncate(PRETRAINING);
        pretraining.data.columns.question.clear();
        pretraining.data.columns.answers.clear();
        let questions = with.map(|With::Vqa| of_questions(all, out));
        Ok(Self { pretraining, questions })
    }
}

/// Where the end of the first stage is kept for the stage of questions.
fn text_half(out: &Path) -> PathBuf {
    out.join("stage-1.safetensors")
}

/// The run of the stage of questions, which begins with the end of the other run.
fn of_questions(mut config: RunConfig, out: &Path) -> RunConfig {
    config.model.init_checkpoint =
        std::mem::replace(&mut config.run.root, out.join("run-vqa").display().to_string());
    config.stages.iter_mut().take(PRETRAINING).for_each(|stage| stage.steps = 0);
    for stage in &mut config.stages {
        if let TaskSettings::Vqa(settings) = &mut stage.task {
            settings.text_half = text_half(out).display().to_string();
        }
    }
    config
}

/// What is composed, as the file says that stands beside the scenes once all of them are there.
fn record_of(scenes: u64) -> String {
    format!("{scenes} scenes to train on, {HELD_OUT_ROWS} of each other split, {SIZE} pixels, seed {SEED}\n")
}

/// Composes the scenes of all splits, unless they are there: a run has pinned its files, which are not to be
/// written again.
async fn compose(scenes: u64, folder: PathBuf) -> Result<(), CliError> {
    let (record, wanted) = (folder.join(COMPOSED), record_of(scenes));
    match std::fs::read_to_string(&record) {
        Ok(found) if found == wanted => return Ok(()),
        Ok(found) => {
            return Err(CliError::refused(format!(
                "{} holds {}; give the same --scenes, or name another --out",
                folder.display(),
                found.trim_end()
            )));
        }
        // There are none, or not all of them.
        Err(_) => {}
    }
    eprintln!("composing {scenes} scenes to train on, and others to measure on");
    let rows = Rows { train: scenes, held_out: HELD_OUT_ROWS };
    let composed = tokio::task::spawn_blocking(move || {
        files::write(&Composer::open(CORPUS.as_ref(), SIZE, SEED)?, rows, &folder)
    });
    let ended = composed.await.map_err(|error| CliError::failed(format!("composing failed: {error}")))?;
    ended.map_err(|error| CliError::failed(format!("scenes: {error}")))?;
    std::fs::write(&record, wanted)
        .map_err(|error| CliError::failed(format!("{}: {error}", record.display())))
}

fn tell(report: &ScenesReport, seconds: f64, path: &Path) {
    let [r1, r5, r10] = report.retrieval.ours;
    eprintln!(
        "held-out retrieval  R@1 {r1:.3}  R@5 {r5:.3}  R@10 {r10:.3}  of {} captions",
        report.retrieval.names
    );
    for CaptionShares { of, count, whole, things } in &report.shares {
        eprintln!("{of:<28}{count:>4} captions: {whole:.3} wholly right, {things:.3} all things right");
    }
    if let Some(Answers { right, shuffled, questions, .. }) = &report.answers {
        eprintln!("{questions} questions: {right:.3} answered rightly, {shuffled:.3} with other images");
    }
    eprintln!("done in {}; open {}", duration(seconds), path.display());
}

fn summary(report: &ScenesReport, survival: Survival, seconds: f64, path: &Path) -> Summary {
    let [r1, r5, r10] = report.retrieval.ours;
    let all = report.shares.first();
    let losses = report.caption_losses.unwrap_or(NO_LOSSES);
    Summary {
        seconds,
        r1,
        r5,
        r10,
        captions_right: all.map_or(f64::NAN, |shares| shares.whole),
        things_right: all.map_or(f64::NAN, |shares| shares.things),
        answers_right: report.answers.as_ref().map(|answers| answers.right),
        answers_right_shuffled: report.answers.as_ref().map(|answers| answers.shuffled),
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

    fn plan(set: &[&str], with: Option<With>) -> Result<Plan, CliError> {
        // Folders of models are named from the repository's.
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones");
        let folder = |key: &str, name: &str| format!("model.{key}={}", assets.join(name).display());
        let mut values = vec![
            folder("image_encoder", "eva-scenes"),
            folder("language_model", "opt-scenes"),
            folder("qformer_init", "bert-scenes"),
            folder("qformer_tokenizer", "bert-scenes"),
        ];
        values.extend(set.iter().map(|value| (*value).to_owned()));
        Plan::read("out".as_ref(), &values, with)
    }

    #[test]
    fn questions_are_a_run_of_their_own_behind_that_of_pretraining() {
        let alone = plan(&[], None).unwrap();
        assert!(alone.questions.is_none());
        let both = plan(&["stages.vqa.steps=5"], Some(With::Vqa)).unwrap();
        assert_eq!(
            both.pretraining, alone.pretraining,
            "what is asked for afterwards changes nothing before"
        );
        let questions = both.questions.unwrap();
        assert_eq!(
            (questions.run.root.as_str(), questions.model.init_checkpoint.as_str()),
            ("out/run-vqa", "out/run")
        );
        let steps: Vec<u64> = questions.stages.iter().map(|stage| stage.steps).collect();
        assert_eq!(steps, [0, 0, 5]);
        let TaskSettings::Vqa(settings) = &questions.stages[2].task else { panic!("a stage of questions") };
        assert_eq!(settings.text_half, "out/stage-1.safetensors");
        assert_eq!(questions.data.columns.question, "question");
    }

    #[tokio::test]
    async fn scenes_that_are_there_are_not_written_again_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(COMPOSED), record_of(256)).unwrap();
        compose(256, folder.path().to_owned()).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was composed");
        let error = compose(300, folder.path().to_owned()).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused, "{error}");
        assert!(error.to_string().contains("256 scenes") && error.to_string().contains("--out"), "{error}");
    }

    #[test]
    fn what_is_the_quick_starts_is_not_set() {
        let error = plan(&["run.root=elsewhere"], None).unwrap_err();
        assert_eq!(error.exit(), Exit::BadConfig, "{error}");
        assert!(plan(&["stages.vqa.steps=5"], None).is_err(), "a stage that is not asked for");
    }
}
