//! BLIP's captioner: an image in, a text out (`BlipForConditionalGeneration`).

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};

use super::BlipConfig;
use super::by_image::RowsByImage;
use super::open::open;
use super::text::BlipText;
use super::vision::BlipVision;
use crate::language::generation::{Decoder, GenerateOptions, generate};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::cache::{KeyValueCache, follow};
use blip2_tensors::nn::causal::{Visible, causal_mask};
use blip2_tensors::nn::layers::{LayerNorm, Linear};
use blip2_tensors::nn::rows::next_column;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The text decoder's name.
const DECODER: &str = "text_decoder";

/// `norm(gelu(dense x))·Wᵀ + b`, where W is the word table.
#[derive(Module, Debug)]
struct Head {
    dense: Linear,
    norm: LayerNorm,
    bias: Param<Tensor<1>>,
}

/// The captioner; frozen.
#[derive(Module, Debug)]
pub struct BlipCaptioner {
    vision: BlipVision,
    text: BlipText,
    head: Head,
    #[module(skip)]
    config: BlipConfig,
}

impl BlipCaptioner {
    /// A model of zeros, to be loaded.
    pub fn new(config: &BlipConfig, device: &Device) -> Self {
        let text = &config.text;
        Self {
            vision: BlipVision::new(&config.vision, device),
            text: BlipText::new(text, device),
            head: Head {
                dense: Linear::new(text.hidden, text.hidden, true, device),
                norm: LayerNorm::new(text.hidden, text.layer_norm_eps, device),
                bias: Param::from_tensor(Tensor::zeros([text.vocab], device)),
            },
            config: config.clone(),
        }
    }

    /// Loads a `BlipForConditionalGeneration` folder onto a plain `device`.
    ///
    /// # Errors
    /// Another model, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        open(folder, device, Self::new)
    }

    /// Sizes and special tokens.
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// The features that the decoder attends to.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn image_features(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        self.vision.forward(pixels)
    }

    /// Scores of every next token at every position of texts about images.
    ///
    /// # Shapes
    /// - features as of [`BlipCaptioner::image_features`], `[b, tokens, width]`; ids and mask (1: a token, 0:
    ///   padding) `[b, T]`; output `[b, T, vocabulary]`
    pub fn logits(
        &self,
        features: Tensor<3>,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        if ids.dims() != mask.dims() || ids.dims()[0] != features.dims()[0] {
            let (ids, mask, features) = (ids.dims(), mask.dims(), features.dims());
            let reason = format!("ids {ids:?} and mask {mask:?} for features {features:?}");
            return Err(ModelError::input("text", reason));
        }
        let length = ids.dims()[1];
        let image = self.text.image_key_values(&features);
        let mask = Some(causal_mask(mask, length));
        let rows: Vec<usize> = (0..features.dims()[0]).collect();
        let by_image = RowsByImage::new(&rows, rows.len(), &features.device());
        let image = Some((image.as_slice(), &by_image));
        let hidden = self.text.forward(ids, mask, &mut KeyValueCache::default(), image)?;
        Ok(self.scores(hidden))
    }

    /// Continues the prompt for each image; what is written has the end token, if it reached it, as its last
    /// token.
    ///
    /// `prompt` is what the tokenizer gives for e.g. "a picture of", without its special tokens; the start
    /// token is put before it. Empty `options.eos` means the model's own end token.
    ///
    /// # Shapes
    /// - features as of [`BlipCaptioner::image_features`], so that several searches share them
    ///
    /// # Errors
    /// A prompt and a text that do not fit the position table, tokens outside the vocabulary, contradictory
    /// options.
    pub fn generate(
        &self,
        features: Tensor<3>,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        self.generate_several(features, prompt, 1, options)
    }

    /// [`BlipCaptioner::generate`] with `texts` for each image, those of an image one after the other; they
    /// differ where they are drawn.
    ///
    /// # Errors
    /// As of [`BlipCaptioner::generate`].
    pub fn generate_several(
        &self,
        features: Tensor<3>,
        prompt: &[u32],
        texts: usize,
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let images = features.dims()[0];
        if images * texts == 0 {
            return Ok(Vec::new());
        }
        let mut options = options.clone();
        if options.eos.is_empty() {
            options.eos.push(self.config.end_token);
        }
        let mut started = vec![self.config.start_token];
        started.extend(prompt);
        let mut decoder = CaptionDecoder {
            model: self,
            image: self.text.image_key_values(&features),
            cache: KeyValueCache::default(),
            prompt: &started,
            texts,
            started: false,
            rows: Vec::new(),
            by_image: RowsByImage::new(&[], images, &features.device()),
            device: features.device(),
        };
        generate(&mut decoder, &vec![started.clone(); images * texts], &options)
    }

    fn scores(&self, hidden: Tensor<3>) -> Tensor<3> {
        let hidden = self.head.norm.forward(gelu(self.head.dense.forward(hidden)));
        self.text.word.scores(hidden, Some(self.head.bias.val()))
    }
}

/// Images and what was written about them; all rows are of one length.
struct CaptionDecoder<'a> {
    model: &'a BlipCaptioner,
    /// What each layer attends to in the images that are still written about.
    image: Vec<KeyValue>,
    /// A row for each image until the first token is chosen: all its texts have the same prompt.
    cache: KeyValueCache,
    prompt: &'a [u32],
    /// Texts of an image.
    texts: usize,
    /// Whether a token was chosen.
    started: bool,
    /// The image that each row is about, as its place in `image`.
    rows: Vec<usize>,
    by_image: RowsByImage,
    device: Device,
}

impl CaptionDecoder<'_> {
    fn read(&mut self, ids: Tensor<2, Int>) -> Result<Vec<f32>, ModelError> {
        let [_, length] = ids.dims();
        let mask = Visible::to_last(length, None).mask(length, self.cache.length() + length, &self.device);
        let image = Some((self.image.as_slice(), &self.by_image));
        let hidden = self.model.text.forward(ids, mask, &mut self.cache, image)?;
        Ok(floats(self.model.scores(hidden.narrow(1, length - 1, 1)))?)
    }

    /// Images held.
    fn images(&self) -> usize {
        self.image.first().map_or(0, |layer| layer.key.dims()[0])
    }

    /// From now on `rows` are about these images; the others are let go.
    fn group(&mut self, rows: Vec<usize>) {
        let wanted: Vec<usize> = rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if wanted.len() < self.images() {
            follow(self.image.iter_mut(), &wanted);
        }
        let place = |image: &usize| wanted.partition_point(|held| held < image);
        self.rows = rows.iter().map(place).collect();
        self.by_image = RowsByImage::new(&self.rows, wanted.len(), &self.device);
    }
}

impl Decoder for CaptionDecoder<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config.text.vocab
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.cache = KeyValueCache::default();
        self.started = false;
        let images = self.images();
        let prompt: Vec<i32> = self.prompt.iter().map(|id| *id as i32).collect();
        let row = Tensor::<1, Int>::from_ints(prompt.as_slice(), &self.device);
        self.group((0..images).collect());
        let scores = self.read(row.unsqueeze::<2>().repeat_dim(0, images))?;
        self.rows = (0..images).flat_map(|image| std::iter::repeat_n(image, self.texts)).collect();
        let of_image = scores.chunks(self.vocabulary());
        Ok(of_image.flat_map(|scores| std::iter::repeat_n(scores, self.texts)).flatten().copied().collect())
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let rows: Vec<usize> = parents.iter().map(|parent| self.rows[*parent]).collect();
        self.cache.follow(if self.started { parents } else { &rows });
        // The beams of an image see the same of it: they may change places.
        if !self.started || rows != self.rows {
            self.group(rows);
        }
        self.started = true;
        self.read(next_column(tokens, &self.device))
    }
}

impl NamedTensors for BlipCaptioner {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.vision.visit_tensors(prefix, visitor)?;
        let decoder = join(prefix, DECODER);
        self.text.visit_tensors(&join(&decoder, "bert"), visitor)?;
        let head = join(&decoder, "cls.predictions");
        self.head.dense.visit_tensors(&join(&head, "transform.dense"), visitor)?;
        self.head.norm.visit_tensors(&join(&head, "transform.LayerNorm"), visitor)?;
        visitor.visit(&join(&head, "bias"), &mut self.head.bias)
    }
}
