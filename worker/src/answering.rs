//! A checkpoint that answers questions, as whoever evaluates it sees it.

use blip2_evaluation::captioning::{Caption, Decoding};
use blip2_evaluation::error::{EvaluationError, Result as EvaluationResult};
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_evaluation::writing::{Asked, ImageWriter};
use blip2_images::RgbImage;

use crate::error::WorkerError;
use crate::language::{GeneratedAnswer, Language};
use crate::settings::model::ModelSettings;
use crate::task::TaskModel;
use crate::task::scores::QuestionSet;

/// The models of a checkpoint whose Q-Former reads questions.
pub struct Answerer {
    pub(crate) model: ModelSettings,
    pub(crate) images: SampleEncoder,
    pub(crate) language: Language,
    pub(crate) task: Box<dyn TaskModel>,
    /// The prompt that questions are put in.
    pub(crate) prompt: String,
    /// Questions answered at a time.
    pub(crate) batch: usize,
}

impl ImageWriter for Answerer {
    fn texts(
        &self,
        images: &[RgbImage],
        places: &[usize],
        asked: &[Asked],
        decoding: &Decoding,
    ) -> EvaluationResult<Vec<Caption>> {
        let questions: Vec<&str> = asked.iter().map(|asked| asked.question.as_str()).collect();
        let set = QuestionSet {
            model: &self.model,
            language: &self.language,
            encoder: &self.images,
            images,
            places,
            questions: &questions,
            search: &decoding.options,
            batch: self.batch,
        };
        let written = self.task.answers(&set).map_err(as_evaluated)?;
        let caption = |GeneratedAnswer { text, tokens }: GeneratedAnswer| Caption { text, tokens };
        Ok(written.into_iter().map(caption).collect())
    }

    fn image_size(&self) -> usize {
        self.images.encoder().image_size()
    }

    fn is_encoder_decoder(&self) -> bool {
        self.language.model.is_encoder_decoder()
    }

    fn own_prompt(&self) -> Option<String> {
        Some(self.prompt.clone())
    }
}

/// What keeps a question from being answered, in an evaluation's words.
fn as_evaluated(error: WorkerError) -> EvaluationError {
    match error {
        WorkerError::Data(error) => error.into(),
        WorkerError::Model(error) => error.into(),
        other => EvaluationError::Configuration(other.to_string()),
    }
}
