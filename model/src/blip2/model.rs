//! Image encoder, Q-Former and language model together.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};

use super::asking::Asking;
use super::config::{INSTRUCTBLIP, read_qformer_config};
use super::tokens::PromptTokens;
use crate::language::LanguageModel;
use crate::language::generation::{GenerateOptions, Stop};
use crate::objectives::generate::GenerateModel;
use crate::padded::Padded;
use crate::qformer::QFormerConfig;
use crate::vision::{EVA_PREFIX, ImageEncoder};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_model_files::weights::{WeightSource, load};
use blip2_tensors::device::placement::Placement;
use blip2_tensors::device::read_back::ints;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::tape::Tape;

/// Image encoder, Q-Former and language model, all on one plain device.
#[derive(Debug, Clone)]
pub struct Blip2 {
    encoder: ImageEncoder,
    trained: GenerateModel,
    language_model: LanguageModel,
    qformer: QFormerConfig,
    tokens: PromptTokens,
    processor: ImageProcessor,
    asking: Asking,
}

impl Blip2 {
    /// Puts trained parts together. Adapters are added to the language model's weights.
    ///
    /// # Errors
    /// Parts whose widths do not fit, or special tokens outside the vocabulary.
    pub fn from_parts(
        encoder: ImageEncoder,
        mut trained: GenerateModel,
        language_model: impl Into<LanguageModel>,
        qformer: QFormerConfig,
        tokens: PromptTokens,
    ) -> Result<Self, ModelError> {
        let adapters = std::mem::take(&mut trained.adapters);
        let language_model = adapters.merged(language_model.into())?;
        let refuse = |reason: String| Err(ModelError::input("parts of BLIP-2", reason));
        if qformer.image_width != encoder.width() {
            let (wanted, width) = (qformer.image_width, encoder.width());
            return refuse(format!("the Q-Former attends to width {wanted}, the image encoder has {width}"));
        }
        let (language_width, width) = (trained.opt_proj.weight.val().dims()[0], language_model.width());
        if language_width != width {
            return refuse(format!(
                "the projection ends at width {language_width}, the language model has {width}"
            ));
        }
        tokens.validate(language_model.special_tokens().vocab_size)?;
        let processor = ImageProcessor::blip2(encoder.image_size());
        let asking = Asking::published(language_model.is_encoder_decoder());
        Ok(Self { encoder, trained, language_model, qformer, tokens, processor, asking })
    }

    /// Loads a folder of `Blip2ForConditionalGeneration`, or of `InstructBlipForConditionalGeneration`, whose
    /// Q-Former reads questions, to a `place` without autodiff; the Q-Former is float32 there whatever the
    /// frozen models are.
    ///
    /// # Errors
    /// Another model or language model, an unsupported setting, or weights that do not fit.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = place.into();
        let device = &place.device;
        let config = FolderConfig::open(folder)?;
        let asks = match config.model_type() {
            "blip-2" => false,
            INSTRUCTBLIP => true,
            other => {
                let expected = "expected `blip-2` or `instructblip`";
                return Err(config.error(format!("model_type `{other}`, {expected}")));
            }
        };
        let mut language_model = LanguageModel::open(folder, &place)?;
        let encoder = ImageEncoder::open(folder, place.without_narrow())?;
        let (qformer, ln_vision_eps) = read_qformer_config(&config)?;
        let new = if asks { GenerateModel::reading_questions } else { GenerateModel::new };
        let mut trained = new(&qformer, ln_vision_eps, language_model.width(), device)?;
        let source = WeightSource::open_huggingface(folder)?;
        load(&mut trained, "", &source, device)?;
        let tokens = PromptTokens::read(folder, &config, language_model.special_tokens())?;
        // The token's vector is never read: the queries' outputs stand in its places.
        language_model.grow_vocabulary(tokens.image as usize + 1);
        let processor = ImageProcessor::read(folder, ImageProcessor::blip2(encoder.image_size()))?;
        let asking = Asking::read(&config, language_model.is_encoder_decoder())?;
        let model = Self::from_parts(encoder, trained, language_model, qformer, tokens)?;
        Ok(model.with_processor(processor).with_asking(asking))
    }

    /// The same model for images that are prepared otherwise than BLIP-2's.
    pub fn with_processor(self, processor: ImageProcessor) -> Self {
        Self { processor, ..self }
    }

    /// The same model for images of another size; its position table is resized bicubically.
    ///
    /// # Errors
    /// A size that is not a multiple of the patches'.
    pub fn resized(self, side: usize) -> Result<Self, ModelError> {
        let processor = self.processor.clone().resized(side);
        Ok(Self { encoder: self.encoder.resized(side)?, processor, ..self })
    }

    /// The same model, which was asked in other words in training.
    pub fn with_asking(self, asking: Asking) -> Self {
        Self { asking, ..self }
    }

    /// How it was asked in training.
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    /// Whether its Q-Former reads what is asked, beside the image.
    pub fn reads_questions(&self) -> bool {
        self.trained.qformer.text.is_some()
    }

    /// How its images are prepared.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The frozen image encoder.
    pub fn encoder(&self) -> &ImageEncoder {
        &self.encoder
    }

    /// The trained part.
    pub fn trained(&self) -> &GenerateModel {
        &self.trained
    }

    /// The frozen language model.
    pub fn language_model(&self) -> &LanguageModel {
        &self.language_model
    }

    /// Sizes of the Q-Former.
    pub fn qformer_config(&self) -> &QFormerConfig {
        &self.qformer
    }

    /// The special tokens of prompts.
    pub fn tokens(&self) -> &PromptTokens {
        &self.tokens
    }

    /// Scores of every next token at every position, by a decoder-only language model.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; ids and mask `[b, T]`, where each row holds as many image
    ///   tokens as there are queries; output `[b, T, vocabulary]`
    pub fn logits(
        &self,
        pixels: Tensor<4>,
        ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        self.language_model.forward(self.inputs(pixels, ids)?, attention_mask)
    }

    /// What the language model reads: the vectors of `ids`, where the image tokens are the queries' outputs.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; ids `[b, T]`, where each row holds as many image tokens as
    ///   there are queries; output `[b, T, width]`
    pub fn inputs(&self, pixels: Tensor<4>, ids: Tensor<2, Int>) -> Result<Tensor<3>, ModelError> {
        self.inputs_of(self.soft_prompt(pixels)?, ids)
    }

    /// [`Blip2::inputs`] for images that were looked at before.
    ///
    /// # Shapes
    /// - soft_prompt `[b, queries, width]`; ids `[b, T]`; output `[b, T, width]`
    pub fn inputs_of(&self, soft_prompt: Tensor<3>, ids: Tensor<2, Int>) -> Result<Tensor<3>, ModelError> {
        place_soft_prompt(&self.language_model, soft_prompt, ids, self.tokens.image)
    }

    /// What the language model reads in place of an image: the projected outputs of the queries, which read
    /// nothing beside it.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, queries, width]`
    pub fn soft_prompt(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        let features = self.encoder.forward(pixels)?;
        self.trained.forward(features, &mut Dropout::off(), &mut Tape::whole())
    }

    /// How much each query attends to each position of the image; none where no layer sees it.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, queries, P]`, the class token first
    pub fn image_attention(&self, pixels: Tensor<4>) -> Result<Option<Tensor<3>>, ModelError> {
        self.trained.image_attention(self.encoder.forward(pixels)?)
    }

    /// The same where the queries read a question each; the encoder has looked at the images before.
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`; output `[b, queries, width]`
    ///
    /// # Errors
    /// A Q-Former that does not read, or questions that do not fit.
    pub fn soft_prompt_asked(
        &self,
        image_features: Tensor<3>,
        questions: Padded<'_>,
    ) -> Result<Tensor<3>, ModelError> {
        self.trained.forward_asked(image_features, questions, &mut Dropout::off(), &mut Tape::whole())
    }

    /// Continues each image's prompt; a text has its end token, if it reached one, as its last token.
    ///
    /// A prompt is what the tokenizer gives (with its start or end token, without image tokens); an empty one
    /// means that token alone.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; b prompts of any lengths
    pub fn generate(
        &self,
        pixels: Tensor<4>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        if prompts.is_empty() && pixels.dims()[0] == 0 {
            return Ok(Vec::new());
        }
        self.generate_from(self.soft_prompt(pixels)?, prompts, options, &|_| false)
    }

    /// [`Blip2::generate`] for images that were looked at before; a text also ends where `stop` holds for its
    /// new tokens.
    ///
    /// # Shapes
    /// - soft_prompt `[b, queries, width]`; b prompts of any lengths
    pub fn generate_from(
        &self,
        soft_prompt: Tensor<3>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let batch = soft_prompt.dims()[0];
        if prompts.len() != batch {
            let reason = format!("{} prompts for {batch} pictures", prompts.len());
            return Err(ModelError::input("prompts", reason));
        }
        let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| self.with_image_tokens(prompt)).collect();
        let (ids, mask) = self.left_padded(&prompts, &soft_prompt.device());
        let inputs = self.inputs_of(soft_prompt, ids)?;
        self.language_model.generate(inputs, mask, &prompts, options, stop)
    }

    fn with_image_tokens(&self, prompt: &[u32]) -> Vec<u32> {
        let mut ids = vec![self.tokens.image; self.qformer.queries];
        if prompt.is_empty() {
            ids.push(self.tokens.bos);
        }
        ids.extend(prompt);
        ids
    }

    fn left_padded(&self, prompts: &[Vec<u32>], device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let length = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let padding = length - prompt.len();
            ids.extend(std::iter::repeat_n(self.tokens.pad as i32, padding));
            ids.extend(prompt.iter().map(|id| *id as i32));
            mask.extend(std::iter::repeat_n(0, padding));
            mask.extend(std::iter::repeat_n(1, prompt.len()));
        }
        let tensor = |values: Vec<i32>| {
            Tensor::<1, Int>::from_ints(values.as_slice(), device).reshape([prompts.len(), length])
        };
        (tensor(ids), tensor(mask))
    }
}

/// The vectors of `ids`, where the image tokens are replaced in order by the rows of the soft prompt.
///
/// # Shapes
/// - soft_prompt `[b, queries, width]`; ids `[b, T]`; output `[b, T, width]`
///
/// # Errors
/// A row that does not hold exactly as many image tokens as there are queries, or an id outside the
/// vocabulary.
fn place_soft_prompt(
    language_model: &LanguageModel,
    soft_prompt: Tensor<3>,
    ids: Tensor<2, Int>,
    image_token: u32,
) -> Result<Tensor<3>, ModelError> {
    let [batch, queries, width] = soft_prompt.dims();
    let [rows, length] = ids.dims();
    if rows != batch {
        return Err(ModelError::input("prompt", format!("{rows} rows of ids for {batch} pictures")));
    }
    let host_ids = ints(ids.clone())?;
    let vocabulary = language_model.special_tokens().vocab_size as i64;
    if let Some(id) = host_ids.iter().find(|id| !(0..vocabulary).contains(*id)) {
        return Err(ModelError::input("prompt", format!("token {id}, the language model has {vocabulary}")));
    }
    let mut sources = Vec::with_capacity(host_ids.len());
    for (row, text) in host_ids.chunks(length).enumerate() {
        let mut placed = 0;
        for (position, id) in text.iter().enumerate() {
            let is_image = *id == i64::from(image_token);
            sources.push(if is_image {
                rows * length + row * queries + placed
            } else {
                row * length + position
            });
            placed += usize::from(is_image);
        }
        if placed != queries {
            let reason = format!("row {row} has {placed} image tokens, there are {queries} queries");
            return Err(ModelError::input("prompt", reason));
        }
    }
    let text = language_model.embed(ids).reshape([rows * length, width]);
    let soft_prompt = soft_prompt.reshape([batch * queries, width]);
    let sources: Vec<i32> = sources.into_iter().map(|source| source as i32).collect();
    let sources = Tensor::<1, Int>::from_ints(sources.as_slice(), &text.device());
    Ok(Tensor::cat(vec![text, soft_prompt], 0).select(0, sources).reshape([rows, length, width]))
}

impl NamedTensors for Blip2 {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        // CLIP's names under the same module, so that they do not collide with the norm after it.
        self.encoder.visit_tensors(&join(prefix, EVA_PREFIX), visitor)?;
        self.trained.visit_tensors(prefix, visitor)?;
        let language_model = join(prefix, self.language_model.prefix());
        self.language_model.visit_tensors(&language_model, visitor)
    }
}
