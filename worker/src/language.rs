//! The frozen language model, and how captions and answers become its texts in a stage.

mod answers;
mod batch;
mod encoding;
#[cfg(test)]
mod golden;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::TextEncoder;
use blip2_evaluation::fault::Fault as _;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::language::{LanguageModel, split_caption};
use blip2_random::KeyedRng;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::tensors::compute_in;

pub(crate) use answers::{AnswerTexts, AskedText, GeneratedAnswer};
pub(crate) use batch::CaptionBatch;
use batch::Flat;
use encoding::encoding;

use crate::error::{Result, WorkerError};
use crate::open::of_language_model;
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;

/// What the random cut of a caption into a read and a written part is drawn for.
const CUT: &str = "prefix of a caption";

/// A frozen language model, and the captions of the stages that are trained through it.
pub struct Language {
    /// The model, without autodiff.
    pub model: LanguageModel,
    /// By the number of the stage.
    captions: BTreeMap<u32, Captions>,
    /// Of the stages that answer questions, likewise.
    answers: BTreeMap<u32, AnswerTexts>,
}

/// How a stage's captions or answers become texts of the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageTexts<'a> {
    /// The stage's number in the list, from 1: it is part of the keys of random draws.
    pub stage: u32,
    /// Its name.
    pub name: &'a str,
    /// Text before every caption, without loss; of a stage that answers, with `{}` for the question.
    pub prompt: &'a str,
    /// Tokens of a text; of a stage that answers, of the prompt with its question.
    pub text_length: usize,
    /// Tokens of an answer, where the stage answers questions.
    pub answer_length: Option<usize>,
    /// Whether the questions are whole instructions, which no prompt stands around.
    pub instructed: bool,
}

/// A stage's captions as texts of the language model.
pub struct Captions {
    encoder: Arc<TextEncoder>,
    form: Form,
    seed: u64,
    stage: u32,
}

/// How a family is trained on captions.
enum Form {
    /// A decoder writes the caption behind the soft prompt; the first `given` tokens carry no loss.
    Causal {
        /// Tokens of the prompt with the start token; 0 without a prompt.
        given: usize,
    },
    /// An encoder reads the soft prompt and the first words, or the prompt where there is one; a decoder
    /// writes the rest.
    Prefix {
        /// Read in place of the first words.
        prompt: Option<String>,
    },
}

impl Language {
    /// Loads the model that `settings` names to a `place` without autodiff, and its tokenizer for each stage
    /// of `texts`; products are computed as `train.compute` says.
    ///
    /// # Errors
    /// A folder that is no model of the families, or a tokenizer that cannot be used.
    pub(crate) fn open(
        train: &StepSettings,
        settings: &ModelSettings,
        texts: &[LanguageTexts<'_>],
        place: impl Into<Placement>,
    ) -> Result<Self> {
        let folder = Path::new(&settings.language_model);
        let mut model =
            LanguageModel::open(folder, place).map_err(|error| of_language_model(settings, error))?;
        compute_in(&mut model, train.compute)?;
        let (mut captions, mut answers) = (BTreeMap::new(), BTreeMap::new());
        let (tokens, encoder_decoder) = (model.special_tokens(), model.is_encoder_decoder());
        for texts in texts {
            if let Some(answer_length) = texts.answer_length {
                let open = |length| {
                    open_tokenizer(folder, encoding(length, "", &tokens, encoder_decoder))
                        .map_err(|error| of_language_model(settings, error))
                };
                let lengths = (texts.text_length, answer_length);
                let of_stage = match (texts.instructed, tokens.eos.first()) {
                    (true, Some(end)) => AnswerTexts::of_instructions(lengths, *end, encoder_decoder, open)?,
                    (true, None) => {
                        let error = WorkerError::Configuration("it names no end token".into());
                        return Err(of_language_model(settings, error));
                    }
                    (false, _) => AnswerTexts::open(texts.prompt, lengths, encoder_decoder, open)?,
                };
                answers.insert(texts.stage, of_stage);
                continue;
            }
            let encoding = encoding(texts.text_length, texts.prompt, &tokens, encoder_decoder);
            let encoder =
                open_tokenizer(folder, encoding).map_err(|error| of_language_model(settings, error))?;
            let form = Form::of(&model, &encoder, texts)?;
            let (encoder, seed) = (Arc::new(encoder), train.seed);
            captions.insert(texts.stage, Captions { encoder, form, seed, stage: texts.stage });
        }
        Ok(Self { model, captions, answers })
    }

    /// A model with the tokenizer `encoder`, trained in `stage` on captions without a prompt; draws are keyed
    /// by `seed`.
    pub fn of(model: LanguageModel, encoder: TextEncoder, seed: u64, stage: u32) -> Self {
        let form = match model.is_encoder_decoder() {
            true => Form::Prefix { prompt: None },
            false => Form::Causal { given: 0 },
        };
        let captions = Captions { encoder: Arc::new(encoder), form, seed, stage };
        Self { model, captions: BTreeMap::from([(stage, captions)]), answers: BTreeMap::new() }
    }

    /// The tokenizer of one of the stages.
    pub(crate) fn any_encoder(&self) -> Option<Arc<TextEncoder>> {
        self.captions.values().next().map(Captions::encoder)
    }

    /// The captions of the stage of this number.
    ///
    /// # Errors
    /// The stage is not trained through the language model.
    pub(crate) fn captions(&self, stage: u32) -> Result<&Captions> {
        self.captions.get(&stage).ok_or_else(|| {
            WorkerError::Protocol(format!("stage {stage} is not trained through the language model"))
        })
    }

    /// The answers of the stage of this number.
    ///
    /// # Errors
    /// The stage answers no questions.
    pub(crate) fn answers(&self, stage: u32) -> Result<&AnswerTexts> {
        let found = self.answers.get(&stage);
        found.ok_or_else(|| WorkerError::Protocol(format!("stage {stage} answers no questions")))
    }
}

impl Form {
    fn of(model: &LanguageModel, encoder: &TextEncoder, texts: &LanguageTexts<'_>) -> Result<Self> {
        Ok(match (model.is_encoder_decoder(), texts.prompt) {
            (true, "") => Self::Prefix { prompt: None },
            (true, prompt) => Self::Prefix { prompt: Some(prompt.into()) },
            (false, "") => Self::Causal { given: 0 },
            (false, prompt) => {
                let key = format!("stages.{}.prompt", texts.name);
                let ids = encoder.encode_plain(prompt);
                Self::Causal { given: ids.map_err(|error| WorkerError::of_model(&key, prompt, error))?.len() }
            }
        })
    }
}

impl Captions {
    /// The tokenizer with the encoding of whole captions, as the loader uses it.
    pub(crate) fn encoder(&self) -> Arc<TextEncoder> {
        Arc::clone(&self.encoder)
    }

    /// The texts of a slot. Where captions are cut, the place is a function of seed and sample alone, so that
    /// it is the same whoever computes the slot.
    pub(crate) fn slot_texts(&self, slot: &SlotBatch) -> Result<CaptionBatch> {
        match &self.form {
            Form::Causal { given } => {
                let text = Flat { ids: slot.ids.clone(), mask: slot.mask.clone() };
                Ok(CaptionBatch::causal(slot.samples.len(), text, *given))
            }
            Form::Prefix { prompt } => {
                let draws = slot.samples.iter().map(|sample| self.draw(*sample));
                self.prefixed(slot.captions.iter().zip(draws), prompt.as_deref())
            }
        }
    }

    /// The texts of held-out captions: what is predicted is the same with and without pictures, so a
    /// decoder's start token carries no loss.
    pub(crate) fn held_out_texts(&self, captions: &[String]) -> Result<CaptionBatch> {
        match &self.form {
            Form::Causal { given } => {
                let mut text = Flat::default();
                for caption in captions {
                    text.push(self.encoder.encode(caption)?);
                }
                Ok(CaptionBatch::causal(captions.len(), text, (*given).max(1)))
            }
            Form::Prefix { prompt } => {
                let draws = (0..).map(|row| self.draw(row));
                self.prefixed(captions.iter().zip(draws), prompt.as_deref())
            }
        }
    }

    fn draw(&self, sample: u64) -> u64 {
        KeyedRng::new(self.seed, CUT, &[u64::from(self.stage), sample]).next_u64()
    }

    fn prefixed<'a>(
        &self,
        captions: impl Iterator<Item = (&'a String, u64)>,
        prompt: Option<&str>,
    ) -> Result<CaptionBatch> {
        let mut batch = CaptionBatch::default();
        for (caption, draw) in captions {
            let (read, written) = match prompt {
                Some(prompt) => (prompt, caption.as_str()),
                None => split_caption(caption, draw),
            };
            batch.prefix.push(self.encoder.encode(read)?);
            batch.text.push(self.encoder.encode(written)?);
            batch.rows += 1;
        }
        batch.labels = batch.text.labels(batch.rows, 0);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_tensors::train::loss::IGNORED;
    use burn::tensor::Device;

    fn open(language_model: &str, prompt: &str) -> Language {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones");
        let language_model = assets.join(language_model).display().to_string();
        let settings = ModelSettings { language_model, ..ModelSettings::default() };
        let texts = LanguageTexts {
            stage: 2,
            name: "generate",
            prompt,
            text_length: 10,
            answer_length: None,
            instructed: false,
        };
        Language::open(&StepSettings::default(), &settings, &[texts], Device::flex()).unwrap()
    }

    fn captions_of(language_model: &str, prompt: &str) -> Captions {
        open(language_model, prompt).captions.remove(&2).unwrap()
    }

    fn slot(captions: &[&str], samples: &[u64]) -> SlotBatch {
        SlotBatch {
            slot: 0,
            pixels: Default::default(),
            ids: Vec::new(),
            mask: Vec::new(),
            captions: captions.iter().map(ToString::to_string).collect(),
            questions: Vec::new(),
            image_ids: Vec::new(),
            samples: samples.to_vec(),
            addresses: Vec::new(),
            keys: Vec::new(),
            coverage: Default::default(),
            quarantined: Vec::new(),
        }
    }

    fn words(language: &Captions, flat: &Flat, row: usize) -> String {
        let ids: Vec<u32> = flat.ids[row * 10..][..10].iter().map(|id| *id as u32).collect();
        language.encoder.decode(&ids, true).unwrap().trim().to_string()
    }

    #[test]
    fn an_encoder_reads_the_first_words_and_the_rest_is_written() {
        let language = captions_of("t5-scenes", "");
        let caption = "two cats left of a dog";
        let batch = language.slot_texts(&slot(&[caption; 12], &(0..12).collect::<Vec<_>>())).unwrap();
        let mut cuts = std::collections::BTreeSet::new();
        for row in 0..12 {
            let (read, written) = (words(&language, &batch.prefix, row), words(&language, &batch.text, row));
            assert_eq!(format!("{read} {written}"), caption);
            cuts.insert(read.split(' ').count());
            let labels = &batch.labels[row * 10..][..10];
            let end = labels.iter().position(|label| *label == IGNORED).unwrap_or(10);
            assert_eq!(labels[end - 1], 1, "the end token is predicted: {labels:?}");
        }
        assert_eq!(cuts, [1, 2, 3].into(), "every cut up to the middle occurs");
        // A sample is cut at the same place among others, wherever it stands.
        let alone = language.slot_texts(&slot(&[caption], &[7])).unwrap();
        assert_eq!(alone.text.ids, batch.text.ids[70..80]);
    }

    #[test]
    fn one_word_is_written_whole_and_a_prompt_is_read() {
        let batch = captions_of("t5-scenes", "").slot_texts(&slot(&["apple"], &[3])).unwrap();
        assert_eq!(batch.prefix.mask.iter().sum::<i32>(), 1, "the end token alone");
        assert!(batch.tokens() >= 2);
        let language = captions_of("t5-scenes", "a photo of");
        let batch = language.slot_texts(&slot(&["a red car"], &[3])).unwrap();
        assert_eq!(words(&language, &batch.prefix, 0), "a photo of");
        assert_eq!(words(&language, &batch.text, 0), "a red car");
    }

    #[test]
    fn a_decoders_prompt_has_no_loss() {
        let captions = ["red car".to_string()];
        let all = captions_of("opt-tiny", "").held_out_texts(&captions).unwrap();
        assert_eq!(all.labels[0], IGNORED, "the start token");
        let prompted = captions_of("opt-tiny", "a picture of").held_out_texts(&captions).unwrap();
        let language = captions_of("opt-tiny", "a picture of");
        let given = language.encoder.encode_plain("a picture of").unwrap().len();
        assert!(prompted.labels[..given].iter().all(|label| *label == IGNORED));
        assert_ne!(prompted.labels[given], IGNORED);
    }
}
