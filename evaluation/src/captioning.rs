//! Text for images, from an exported folder.

use std::fmt::Display;
use std::path::Path;

use blip2_dataset::text::{Cut, MAX_CAPTION_WORDS, TextEncoder, TextEncoding, clean_question};
use blip2_model::blip2::Blip2;
use blip2_model::blip2::asking::{Asking, CONTINUED, PLACE, QFormerReads};
use blip2_model::language::generation::GenerateOptions;
use blip2_model::padded::Padded;
use blip2_model_files::tokenizer::QFormerTokenizer;
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::placement::NarrowDtype;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{Device, Int, Tensor};
use image::RgbImage;

use crate::error::{EvaluationError, Result};
use crate::image_transform::ImageTransform;
use crate::tokenizer::open_tokenizer;

/// Images encoded, and texts written, at a time.
const BATCH: usize = 16;

/// A model folder and its tokenizer.
pub struct Captioner {
    model: Blip2,
    text: TextEncoder,
    /// The Q-Former's, where it reads what is asked.
    questions: Option<TextEncoder>,
    device: Device,
    batch: usize,
}

/// What was written for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Without special tokens and what a stop string cut off, trimmed.
    pub text: String,
    /// Every generated token, the end token included.
    pub tokens: Vec<u32>,
}

/// How texts are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    /// The search; `eos` empty means the model's own end tokens.
    pub options: GenerateOptions,
    /// A text ends before the first of these that it comes to.
    pub stop: Vec<String>,
    /// Texts for each prompt; more than one is for sampling.
    pub samples: usize,
}

impl From<GenerateOptions> for Decoding {
    fn from(options: GenerateOptions) -> Self {
        Self { options, stop: Vec::new(), samples: 1 }
    }
}

/// Images that were looked at: `[images, queries, width]` as the language model reads them, or, for a
/// Q-Former that looks for what is asked, the encoder's features `[images, P, Dv]`.
#[derive(Debug, Clone)]
pub struct SoftPrompts(Tensor<3>);

impl SoftPrompts {
    /// Those of the images at these places, each as often as it is named.
    pub fn select(&self, images: &[usize]) -> Self {
        // A batch has far fewer images than 2^31.
        let places: Vec<i32> = images.iter().map(|place| *place as i32).collect();
        let places = Tensor::<1, Int>::from_ints(places.as_slice(), &self.0.device());
        Self(self.0.clone().select(0, places))
    }
}

/// What is asked of an image, as each part of a model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPair {
    /// What the language model continues, or its encoder reads.
    pub prompt: String,
    /// What the Q-Former reads beside the image, where it reads.
    pub qformer: String,
}

impl PromptPair {
    /// The same for both, as InstructBLIP has it.
    pub fn both(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), qformer: prompt.to_owned() }
    }
}

/// A question as a turn of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The question alone, for a Q-Former that reads that.
    pub question: String,
    /// What the language model reads: an answer goes on behind it.
    pub words: String,
}

impl Captioner {
    /// Opens a `Blip2ForConditionalGeneration` or `InstructBlipForConditionalGeneration` folder with its
    /// tokenizers.
    ///
    /// # Errors
    /// A device that is not there, or that keeps no matrices in `narrow`; another model, or weights that do
    /// not fit its configuration.
    pub fn open(folder: &Path, device: DeviceName, narrow: Option<NarrowDtype>) -> Result<Self> {
        let refused = |error: &dyn Display| EvaluationError::Configuration(error.to_string());
        let device = device.open().map_err(|error| refused(&error))?;
        let place = match narrow {
            Some(dtype) => Placement::narrow(&device, dtype).map_err(|error| refused(&error))?,
            None => Placement::from(device),
        };
        Self::open_on(folder, place)
    }

    /// [`Captioner::open`] at a place, which may be a device alone.
    pub fn open_on(folder: &Path, place: impl Into<Placement>) -> Result<Self> {
        let place = place.into();
        let model = Blip2::open(folder, &place)?;
        let device = place.device;
        // A prompt may fill what the language model reads, behind the queries.
        let room = model.language_model().max_positions().saturating_sub(model.qformer_config().queries);
        // Some tokenizers do not put the start token in front, where training put it.
        let start = model.language_model().special_tokens().start;
        let encoding = TextEncoding { start, ..TextEncoding::new(room, model.tokens().pad) };
        let text = open_tokenizer(folder, encoding)?;
        let questions = match model.reads_questions() {
            true => Some(open_qformer_tokenizer(folder, model.qformer_config().max_positions)?),
            false => None,
        };
        Ok(Self { model, text, questions, device, batch: BATCH })
    }

    /// Encodes so many images, and writes so many texts, at a time.
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// Reads images of `side` pixels; position tables are resized.
    ///
    /// # Errors
    /// A size that is not a multiple of the patches'.
    pub fn resized(self, side: usize) -> Result<Self> {
        Ok(Self { model: self.model.resized(side)?, ..self })
    }

    /// Side of its images, pixels.
    pub fn image_size(&self) -> usize {
        self.model.encoder().image_size()
    }

    /// Whether its language model reads the prompt in an encoder of its own, as T5 does.
    pub fn is_encoder_decoder(&self) -> bool {
        self.model.language_model().is_encoder_decoder()
    }

    /// Tokens that a prompt and its continuation may have together.
    pub fn room(&self) -> usize {
        self.text.encoding().length
    }

    /// Tokens of a prompt.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        Ok(self.text.encode_plain(prompt)?.len())
    }

    /// Whether its Q-Former reads what is asked, beside the image.
    pub fn reads_questions(&self) -> bool {
        self.questions.is_some()
    }

    /// A question in the words in which the model was trained to answer: cleaned as in training.
    pub fn question(&self, question: &str) -> PromptPair {
        let question = clean_question(question, MAX_CAPTION_WORDS);
        self.asked(&question, self.model.asking().prompt_of(&question))
    }

    /// How a turn of a dialogue is worded: where the Q-Former reads what is asked, as [`Captioner::question`]
    /// has it; of other models as BLIP-2 was shown, and the question as it is typed.
    pub fn turn(&self, question: &str) -> Turn {
        if !self.reads_questions() {
            return Turn { question: question.into(), words: CONTINUED.replacen(PLACE, question, 1) };
        }
        let question = clean_question(question, MAX_CAPTION_WORDS);
        Turn { words: self.model.asking().prompt_of(&question), question }
    }

    /// What the words of every turn begin with, where that is anything.
    pub fn turns_begin_with(&self) -> Option<&str> {
        let prompt = if self.reads_questions() { &self.model.asking().prompt } else { CONTINUED };
        let (before, _) = prompt.split_once(PLACE)?;
        Some(before.trim()).filter(|before| !before.is_empty())
    }

    /// The prompt that its questions were put in, where its folder names another than the published one.
    pub fn question_prompt(&self) -> Option<&str> {
        let (asking, published) = (self.model.asking(), Asking::published(self.is_encoder_decoder()));
        (self.reads_questions() && asking.prompt != published.prompt).then_some(asking.prompt.as_str())
    }

    /// The question that `prompt` ends with, where there is one and the Q-Former reads that alone, or else
    /// the prompt for both.
    pub fn asked(&self, question: &str, prompt: String) -> PromptPair {
        let qformer = match self.model.asking().qformer {
            QFormerReads::Question if !question.is_empty() => question.to_owned(),
            _ => prompt.clone(),
        };
        PromptPair { prompt, qformer }
    }

    /// Encodes images once, to write about them as often as wanted.
    ///
    /// # Errors
    /// An image that cannot be resized.
    pub fn encode(&self, images: &[RgbImage]) -> Result<SoftPrompts> {
        let transform = ImageTransform::new(self.model.processor());
        let mut soft_prompts = Vec::new();
        for images in images.chunks(self.batch) {
            let pixels = transform.tensor(images.iter(), &self.device)?;
            soft_prompts.push(match self.questions {
                Some(_) => self.model.encoder().forward(pixels)?,
                None => self.model.soft_prompt(pixels)?,
            });
        }
        Ok(SoftPrompts(Tensor::cat(soft_prompts, 0)))
    }

    /// For each image and each query, how much the query attends to each patch, row by row; the rest of a sum
    /// of 1 goes to the class token. Empty where no layer sees the image.
    ///
    /// # Errors
    /// An image that cannot be resized.
    pub fn attention(&self, images: &[RgbImage]) -> Result<Vec<Vec<Vec<f32>>>> {
        let transform = ImageTransform::new(self.model.processor());
        let mut all = Vec::with_capacity(images.len());
        for images in images.chunks(self.batch) {
            let pixels = transform.tensor(images.iter(), &self.device)?;
            let Some(attention) = self.model.image_attention(pixels)? else { break };
            let [_, queries, positions] = attention.dims();
            let values = floats(attention)?;
            all.extend(
                values.chunks(queries * positions).map(|image| {
                    image.chunks(positions).map(|query| query[1..].to_vec()).collect::<Vec<_>>()
                }),
            );
        }
        Ok(all)
    }

    /// Continues each image's prompt, which a Q-Former that reads reads too; for each prompt as many texts as
    /// `decoding.samples`.
    ///
    /// # Errors
    /// As of [`Captioner::answer`].
    pub fn generate(
        &self,
        soft_prompts: &SoftPrompts,
        prompts: &[String],
        decoding: &Decoding,
    ) -> Result<Vec<Vec<Caption>>> {
        let asked: Vec<PromptPair> = prompts.iter().map(|prompt| PromptPair::both(prompt)).collect();
        self.answer(soft_prompts, &asked, decoding)
    }

    /// Writes what is asked of each image; for each as many texts as `decoding.samples`.
    ///
    /// # Errors
    /// A prompt that leaves no room for the longest text, options that contradict each other, numbers of
    /// draws that are not one for each text.
    pub fn answer(
        &self,
        soft_prompts: &SoftPrompts,
        asked: &[PromptPair],
        decoding: &Decoding,
    ) -> Result<Vec<Vec<Caption>>> {
        let mut options = decoding.options.clone();
        if options.eos.is_empty() {
            options.eos = self.model.tokens().eos.clone();
        }
        let samples = decoding.samples.max(1);
        let mut rows = Vec::with_capacity(asked.len() * samples);
        for (index, asked) in asked.iter().enumerate() {
            let ids = self.prompt_ids(&asked.prompt, options.max_new_tokens)?;
            rows.extend((0..samples).map(|_| (index, ids.clone())));
        }
        let stop = |tokens: &[u32]| self.stops(tokens, &decoding.stop);
        let mut captions = vec![Vec::with_capacity(samples); asked.len()];
        let numbers = draw_numbers(&options, rows.len())?;
        for (rows, numbers) in rows.chunks(self.batch).zip(numbers.chunks(self.batch)) {
            let images: Vec<i32> = rows.iter().map(|(index, _)| *index as i32).collect();
            let images = Tensor::<1, Int>::from_ints(images.as_slice(), &self.device);
            let ids: Vec<Vec<u32>> = rows.iter().map(|(_, ids)| ids.clone()).collect();
            let mut options = options.clone();
            if let Some(sampling) = &mut options.sampling {
                sampling.numbers = numbers.to_vec();
            }
            let texts: Vec<&str> = rows.iter().map(|(index, _)| asked[*index].qformer.as_str()).collect();
            let soft_prompts = self.soft_prompts(soft_prompts.0.clone().select(0, images), &texts)?;
            for ((index, _), tokens) in
                rows.iter().zip(self.model.generate_from(soft_prompts, &ids, &options, &stop)?)
            {
                let text = until_stop(&self.text.decode(&tokens, true)?, &decoding.stop).trim().to_string();
                captions[*index].push(Caption { text, tokens });
            }
        }
        Ok(captions)
    }

    /// What the language model reads of images that were looked at, one for each of `texts`, which the
    /// Q-Former reads, if it does.
    fn soft_prompts(&self, looked_at: Tensor<3>, texts: &[&str]) -> Result<Tensor<3>> {
        let Some(encoder) = &self.questions else { return Ok(looked_at) };
        let texts: Vec<Vec<u32>> =
            texts.iter().map(|text| encoder.encode_plain(text)).collect::<std::result::Result<_, _>>()?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in &texts {
            let padding = longest - text.len();
            // Vocabularies are far smaller than 2^31.
            ids.extend(text.iter().map(|id| *id as i32));
            ids.extend(std::iter::repeat_n(encoder.encoding().pad_id as i32, padding));
            mask.extend(std::iter::repeat_n(1, text.len()).chain(std::iter::repeat_n(0, padding)));
        }
        Ok(self.model.soft_prompt_asked(looked_at, Padded { ids: &ids, mask: &mask })?)
    }

    /// Tokens of a prompt that leaves room for `new` ones.
    fn prompt_ids(&self, prompt: &str, new: usize) -> Result<Vec<u32>> {
        // The tokenizer puts the start token in front.
        let ids = self.text.encode_plain(prompt)?;
        if ids.len() + new > self.room() {
            let (prompt, room) = (ids.len(), self.room());
            return Err(EvaluationError::Configuration(format!(
                "a prompt of {prompt} tokens and {new} new ones are more than the {room} that the language model \
                 reads behind a picture: shorten the prompt or lower max_new_tokens"
            )));
        }
        Ok(ids)
    }

    /// Continues `prompt` for each image; `options.eos` empty means the model's own end tokens.
    ///
    /// # Errors
    /// As of [`Captioner::encode`] and [`Captioner::generate`].
    pub fn captions(
        &self,
        images: &[RgbImage],
        prompt: &str,
        options: &GenerateOptions,
    ) -> Result<Vec<Caption>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let prompts = vec![prompt.to_owned(); images.len()];
        let texts = self.generate(&self.encode(images)?, &prompts, &options.clone().into())?;
        Ok(texts.into_iter().flatten().collect())
    }

    /// Whether the text of these tokens has come to one of the stop strings.
    fn stops(&self, tokens: &[u32], stop: &[String]) -> bool {
        // Ids that were generated are in the vocabulary, so they decode.
        !stop.is_empty() && self.text.decode(tokens, true).is_ok_and(|text| until_stop(&text, stop) != text)
    }
}

/// The Q-Former's tokenizer of a folder. Of a text that is longer than its positions the first words are left
/// out: what is asked stands at the end.
fn open_qformer_tokenizer(folder: &Path, length: usize) -> Result<TextEncoder> {
    let QFormerTokenizer { origin, content, .. } = QFormerTokenizer::open(folder)?;
    let open = |pad| {
        let encoding = TextEncoding { cut: Cut::First, ..TextEncoding::new(length, pad) };
        TextEncoder::from_json(&content, &origin, encoding)
    };
    Ok(open(open(0)?.id_of("[PAD]").unwrap_or(0))?)
}

/// What keys the draws of each of `texts` texts.
fn draw_numbers(options: &GenerateOptions, texts: usize) -> Result<Vec<u64>> {
    let given = options.sampling.as_ref().map_or(&[][..], |sampling| &sampling.numbers);
    match given.len() {
        0 => Ok((0..texts as u64).collect()),
        numbers if numbers == texts => Ok(given.to_vec()),
        numbers => {
            Err(EvaluationError::Configuration(format!("{numbers} numbers for the draws of {texts} texts")))
        }
    }
}

/// The text before the first stop string.
fn until_stop<'a>(text: &'a str, stop: &[String]) -> &'a str {
    let end = stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_starts_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/opt-tiny");
        let text = TextEncoder::open(&folder, TextEncoding::new(16, 1)).unwrap();
        let start = text.id_of("</s>").unwrap();
        assert_eq!(text.encode_plain("").unwrap(), [start]);
        let prompt = text.encode_plain("a photo of").unwrap();
        assert_eq!(prompt.iter().filter(|token| **token == start).count(), 1, "{prompt:?}");
    }

    #[test]
    fn a_text_ends_before_its_first_stop_string() {
        let stop = ["Question:".to_owned(), "\n".to_owned()];
        assert_eq!(until_stop("red. Question: why\n", &stop), "red. ");
        assert_eq!(until_stop("red\nQuestion:", &stop), "red");
        assert_eq!(until_stop("red", &stop), "red");
        assert_eq!(until_stop("red", &[]), "red");
    }
}
