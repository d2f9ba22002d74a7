//! What a run's own tasks measure of its checkpoints: recalls by the contrastive similarity of one caption an
//! image, losses of captions, and accuracy of answers.

use blip2_dataset::corpus::samples::Sample;
use blip2_run::exit::Exit;
use blip2_store::secret_url::redacted;
use blip2_worker::NamedState;
use blip2_worker::WorkerConfig;
use blip2_worker::config::stage::NumberedStage;
use blip2_worker::evaluate::{AnswerScores, Evaluator, Measure, Scores};
use serde::Serialize;

use super::held_out::{self, retrieval_scores};
use super::set::SetArguments;
use crate::commands::checkpoint::{Target, read_state};
use crate::commands::print_json;
use crate::error::CliError;
use crate::run_folder::stored_configuration;

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

/// Recalls of one caption an image.
pub(super) async fn retrieval(arguments: &SetArguments) -> Result<Exit, CliError> {
    let Scores::Retrieval(measured) = Subject::open(arguments, Measure::Retrieval).await?.measure().await?
    else {
        return Err(CliError::failed(format!(
            "{}: retrieval needs a checkpoint of a stage with contrastive heads",
            redacted(&arguments.model)
        )));
    };
    let scores = retrieval_scores(measured);
    let [r1, r5, r10] = scores.ours;
    if arguments.shown.json {
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

/// Losses of captions.
pub(super) async fn caption(arguments: &SetArguments) -> Result<Exit, CliError> {
    let subject = Subject::open(arguments, Measure::Captions).await?;
    let images = subject.samples.len();
    let Scores::Captions(losses) = subject.measure().await? else {
        return Err(CliError::failed(format!(
            "{}: caption losses need a checkpoint of a stage that writes captions",
            redacted(&arguments.model)
        )));
    };
    if arguments.shown.json {
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

/// Accuracy of answers.
pub(super) async fn vqa(arguments: &SetArguments) -> Result<Exit, CliError> {
    let Scores::Answers(scores) = Subject::open(arguments, Measure::Answers).await?.measure().await? else {
        return Err(CliError::failed(format!(
            "{}: answers need a checkpoint of a stage that answers questions",
            redacted(&arguments.model)
        )));
    };
    let AnswerScores { loss, accuracy, shuffled, questions, .. } = scores;
    if arguments.shown.json {
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
    async fn open(arguments: &SetArguments, measure: Measure) -> Result<Self, CliError> {
        let target = Target::resolve(&arguments.model).await?;
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
        let columns = arguments.columns.over(config.data.columns.clone())?;
        let columns = stage.settings.task.columns(&columns);
        let samples = held_out::samples(&arguments.data, &columns, config.data.max_pixels).await?;
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
