//! Answers of the fine-tuned model to questions on held-out scenes, with their images and with others'.

use blip2_pages::scenes_page::{AnsweredQuestion, Answers};
use blip2_worker::evaluate::{AnswerScores, Evaluator, Scores};

use crate::commands::eval::held_out;
use crate::commands::quickstart::ends::{ends_of, evenly, png};
use crate::config::RunConfig;
use crate::error::CliError;

/// Questions that are asked.
const QUESTIONS: usize = 500;
/// Those that the page shows.
const SHOWN: usize = 16;

/// Asks the end of the run of questions.
pub(super) async fn evaluate(config: &RunConfig) -> Result<Answers, CliError> {
    let mut samples =
        held_out::samples(&config.eval.test, &config.data.columns, config.data.max_pixels).await?;
    samples.truncate(QUESTIONS);
    let ends = ends_of(config).await?;
    let worker = config.worker().with_models_here().await?;
    let measured = tokio::task::spawn_blocking(move || -> Result<_, CliError> {
        let (stage, state) =
            ends.last().ok_or_else(|| CliError::failed("no stage of questions was trained"))?;
        Ok((Evaluator::open(&worker)?.scores(stage, state, &samples)?, samples))
    });
    let (scores, samples) = measured
        .await
        .map_err(|error| CliError::failed(format!("the evaluation thread failed: {error}")))??;
    let Scores::Answers(AnswerScores { accuracy, shuffled, questions, written, .. }) = scores else {
        return Err(CliError::failed("the run of questions answers none"));
    };
    let mut shown = Vec::new();
    for answer in evenly(&written, SHOWN) {
        let sample = &samples[answer.sample];
        let Some(question) = &sample.question else { continue };
        shown.push(AnsweredQuestion {
            png: png(&sample.image)?,
            question: question.text.clone(),
            answer: question.answers.most_frequent().to_owned(),
            written: answer.text.clone(),
        });
    }
    Ok(Answers { right: accuracy, shuffled, questions, shown })
}
