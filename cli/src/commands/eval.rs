//! `eval`: how good a run is on images it was not trained on, and how good anybody's results are.

mod score;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::{Sample, read_all};
use blip2_evaluation::retrieval::Retrieval;
use blip2_pages::quickstart_page::RetrievalScores;
use blip2_run::exit::Exit;
use blip2_store::secret_url::redacted;
use blip2_tensors::device::DeviceName;
use blip2_worker::NamedState;
use blip2_worker::WorkerConfig;
use blip2_worker::config::stage::NumberedStage;
use blip2_worker::evaluate::{self, AnswerScores, Evaluator, Measure, Scores};
use blip2_worker::settings::train::StepSettings;
use clap::Args;
use clap::Subcommand;
use serde::Serialize;

use super::checkpoint::{Target, read_state};
use super::print_json;
use crate::error::CliError;
use crate::run_folder::stored_configuration;
use score::ScoreArguments;

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Rank the captions of a file for each of its pictures: R@1, R@5, R@10.
    Retrieval(EvalTarget),
    /// Loss of the file's captions with their pictures, with shuffled ones and with none.
    Caption(EvalTarget),
    /// Accuracy of the answers to the file's questions, with their pictures and with others'.
    Vqa(EvalTarget),
    /// Score results that are already there, whoever's model wrote them.
    Score(Box<ScoreArguments>),
}

#[derive(Debug, Args)]
pub(crate) struct EvalTarget {
    /// A run (folder or URL), or one of its checkpoints.
    #[arg(long, value_name = "RUN_OR_FOLDER")]
    pub(crate) model: String,
    /// Parquet file or URL with pictures and their texts; may be repeated.
    #[arg(long, value_name = "F", required = true)]
    pub(crate) data: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; without it, the one the
    /// run was trained on.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What tells an exported model from a run.
const EXPORT_FILE: &str = "config.json";
/// The line of `eval retrieval`.
#[derive(Debug, Serialize)]
struct RetrievalLine {
    #[serde(rename = "r@1")]
    r1: f64,
    #[serde(rename = "r@5")]
    r5: f64,
    #[serde(rename = "r@10")]
    r10: f64,
    chance: [f64; 3],
    images: usize,
    texts: usize,
}

/// The line of `eval caption`.
#[derive(Debug, Serialize)]
struct CaptionLine {
    loss: f64,
    loss_shuffled: f64,
    language_model_loss: f64,
    images: usize,
}

/// The line of `eval vqa`.
#[derive(Debug, Serialize)]
struct AnswerLine {
    accuracy: f64,
    accuracy_shuffled: f64,
    loss: f64,
    questions: usize,
}

/// Measures a run's checkpoint on Parquet files, or scores results.
pub(crate) async fn run(arguments: EvalArguments) -> Result<Exit, CliError> {
    match arguments.command {
        EvalCommand::Retrieval(target) => retrieval(&target).await,
        EvalCommand::Caption(target) => caption(&target).await,
        EvalCommand::Vqa(target) => vqa(&target).await,
        EvalCommand::Score(arguments) => score::run(&arguments),
    }
}

async fn retrieval(arguments: &EvalTarget) -> Result<Exit, CliError> {
    let Scores::Retrieval(measured) = Subject::open(arguments, Measure::Retrieval).await?.measure().await?
    else {
        return Err(CliError::failed(format!(
            "{}: retrieval needs a checkpoint of a stage with contrastive heads",
            redacted(&arguments.model)
        )));
    };
    let scores = retrieval_scores(measured);
    let [r1, r5, r10] = scores.ours;
    if arguments.json {
        let (chance, images, texts) = (scores.chance, scores.pictures, scores.names);
        print_json(&RetrievalLine { r1, r5, r10, chance, images, texts })?;
    } else {
        eprintln!("R@1 {r1:.3}  R@5 {r5:.3}  R@10 {r10:.3}");
        eprintln!(
            "{} pictures, {} texts; R@5 by chance {:.3}",
            scores.pictures, scores.names, scores.chance[1]
        );
    }
    Ok(Exit::Done)
}

async fn caption(arguments: &EvalTarget) -> Result<Exit, CliError> {
    let subject = Subject::open(arguments, Measure::Captions).await?;
    let images = subject.samples.len();
    let Scores::Captions(losses) = subject.measure().await? else {
        return Err(CliError::failed(format!(
            "{}: caption losses need a checkpoint of a stage that writes captions",
            redacted(&arguments.model)
        )));
    };
    if arguments.json {
        print_json(&CaptionLine {
            loss: losses.with_images,
            loss_shuffled: losses.shuffled,
            language_model_loss: losses.language_model,
            images,
        })?;
    } else {
        eprintln!(
            "nats a token: {:.3} with its picture, {:.3} with another, {:.3} with none",
            losses.with_images, losses.shuffled, losses.language_model
        );
    }
    Ok(Exit::Done)
}

async fn vqa(arguments: &EvalTarget) -> Result<Exit, CliError> {
    let Scores::Answers(scores) = Subject::open(arguments, Measure::Answers).await?.measure().await? else {
        return Err(CliError::failed(format!(
            "{}: answers need a checkpoint of a stage that answers questions",
            redacted(&arguments.model)
        )));
    };
    let AnswerScores { loss, accuracy, shuffled, questions, .. } = scores;
    if arguments.json {
        print_json(&AnswerLine { accuracy, accuracy_shuffled: shuffled, loss, questions })?;
    } else {
        eprintln!("accuracy {accuracy:.3} with its picture, {shuffled:.3} with another");
        eprintln!("{questions} questions; {loss:.3} nats a token of the most frequent answers");
    }
    Ok(Exit::Done)
}

/// A checkpoint and the pictures it is measured on.
struct Subject {
    config: WorkerConfig,
    stage: NumberedStage,
    state: NamedState,
    samples: Vec<Sample>,
}

impl Subject {
    async fn open(arguments: &EvalTarget, measure: Measure) -> Result<Self, CliError> {
        let target = Target::resolve(&arguments.model).await?;
        if target.root.join(EXPORT_FILE).head().await?.is_some() {
            return Err(CliError::usage(format!(
                "--model {}: this is an exported model, which lacks what training has besides; name the run it came from",
                redacted(&arguments.model)
            )));
        }
        let mut config = stored_configuration(&target.root).await?.worker().with_models_here().await?;
        if let Some(device) = arguments.device {
            config.train.device = device.to_string();
        }
        let what = match measure {
            Measure::Retrieval => "a stage with contrastive heads",
            Measure::Captions => "a stage that writes captions",
            Measure::Answers => "a stage that answers questions",
        };
        let (record, stage) =
            target.record_of_stage(&config, what, |stage| stage.settings.task.measure() == measure).await?;
        let state = read_state(&target.root, &record).await?;
        let columns = stage.settings.task.columns(&config.data.columns);
        let samples = held_out(&arguments.data, &columns, config.data.max_pixels).await?;
        Ok(Self { config, stage, state, samples })
    }

    /// Measures on a thread of its own, away from input and output.
    async fn measure(self) -> Result<Scores, CliError> {
        let Self { config, stage, state, samples } = self;
        tokio::task::spawn_blocking(move || Evaluator::open(&config)?.scores(&stage, &state, &samples))
            .await
            .map_err(|error| CliError::failed(format!("the evaluation thread failed: {error}")))?
            .map_err(CliError::from)
    }
}

/// The usable rows of evaluation files; what is not usable is said and left out.
pub(crate) async fn held_out(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<Vec<Sample>, CliError> {
    let set = read_all(sources, columns, max_pixels).await?;
    if let Some(first) = set.quarantined.first() {
        eprintln!(
            "warning: {} rows are left out; the first is row {} of row group {} of {}: {}",
            set.quarantined.len(),
            first.row,
            first.row_group,
            first.file,
            first.reason
        );
    }
    if set.not_downloaded > 0 {
        eprintln!("{} rows were not downloaded and are passed over", set.not_downloaded);
    }
    Ok(set.samples)
}

/// Retrieval, without a CLIP to compare with.
pub(crate) fn retrieval_scores(measured: Retrieval) -> RetrievalScores {
    RetrievalScores {
        ours: measured.recall,
        clip: None,
        chance: measured.chance,
        names: measured.texts,
        pictures: measured.images,
    }
}

/// Retrieval by the frozen CLIP in a folder.
pub(crate) fn clip_recall(
    folder: &str,
    train: &StepSettings,
    samples: &[Sample],
) -> Result<[f64; 3], CliError> {
    Ok(evaluate::clip_retrieval(folder.as_ref(), train, samples)?.recall)
}
