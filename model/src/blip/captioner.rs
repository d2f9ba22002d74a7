//! BLIP's captioner: a picture in, a text out (`BlipForConditionalGeneration`).

use std::iter::repeat_n;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};

use super::BlipConfig;
use super::text::BlipText;
use super::vision::BlipVision;
use crate::ModelError;
use crate::cache::{KeyValueCache, follow};
use crate::causal::{Visible, causal_mask};
use crate::generate::{Decoder, GenerateOptions, generate, next_column};
use crate::host::floats;
use crate::layers::{LayerNorm, Linear, linear};
use crate::qformer::KeyValue;
use crate::tensors::{NamedTensors, TensorVisitor, join};

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
    pub(super) fn new(config: &BlipConfig, device: &Device) -> Self {
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
        super::open(folder, device, Self::new)
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

    /// Scores of every next token at every position of texts about pictures.
    ///
    /// # Shapes
    /// - features as of [`BlipCaptioner::image_features`], `[b, tokens, width]`; ids and mask (1: a token, 0: padding)
    ///   `[b, T]`; output `[b, T, vocabulary]`
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
        let hidden = self.text.forward(ids, mask, &mut KeyValueCache::default(), Some(&image))?;
        Ok(self.scores(hidden))
    }

    /// Continues the prompt `samples` times for each picture, whose texts follow each other; what is written has the end
    /// token, if it reached it, as its last token. More than one is for sampling.
    ///
    /// `prompt` is what the tokenizer gives for e.g. "a picture of", without its special tokens; the start token is put
    /// before it. Empty `options.eos` means the model's own end token.
    ///
    /// # Shapes
    /// - features as of [`BlipCaptioner::image_features`], so that several searches share them
    ///
    /// # Errors
    /// A prompt and a text that do not fit the position table, tokens outside the vocabulary, contradictory options.
    pub fn generate(
        &self,
        features: Tensor<3>,
        prompt: &[u32],
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let pictures: Vec<usize> = (0..features.dims()[0]).flat_map(|row| repeat_n(row, samples)).collect();
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let mut options = options.clone();
        if options.eos.is_empty() {
            options.eos.push(self.config.end_token);
        }
        let mut started = vec![self.config.start_token];
        started.extend(prompt);
        let mut image = self.text.image_key_values(&features);
        if samples > 1 {
            follow(image.iter_mut(), &pictures);
        }
        let prompts = vec![started.clone(); pictures.len()];
        let mut decoder = CaptionDecoder {
            model: self,
            image,
            cache: KeyValueCache::default(),
            prompt: &started,
            pictures,
            device: features.device(),
        };
        generate(&mut decoder, &prompts, &options)
    }

    fn scores(&self, hidden: Tensor<3>) -> Tensor<3> {
        let hidden = self.head.norm.forward(gelu(self.head.dense.forward(hidden)));
        linear(hidden, self.text.word.weight.val(), Some(self.head.bias.val()))
    }
}

/// Pictures and what was written about them; all rows are of one length.
struct CaptionDecoder<'a> {
    model: &'a BlipCaptioner,
    image: Vec<KeyValue>,
    cache: KeyValueCache,
    prompt: &'a [u32],
    /// The picture that each row is about.
    pictures: Vec<usize>,
    device: Device,
}

impl CaptionDecoder<'_> {
    fn read(&mut self, ids: Tensor<2, Int>) -> Result<Vec<f32>, ModelError> {
        let [_, length] = ids.dims();
        let mask = Visible::to_last(length, None).mask(length, self.cache.length() + length, &self.device);
        let hidden = self.model.text.forward(ids, mask, &mut self.cache, Some(&self.image))?;
        floats(self.model.scores(hidden.narrow(1, length - 1, 1)))
    }
}

impl Decoder for CaptionDecoder<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config.text.vocab
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.cache = KeyValueCache::default();
        let prompt: Vec<i32> = self.prompt.iter().map(|id| *id as i32).collect();
        let row = Tensor::<1, Int>::from_ints(prompt.as_slice(), &self.device);
        self.read(row.unsqueeze::<2>().repeat_dim(0, self.pictures.len()))
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.cache.follow(parents);
        let pictures: Vec<usize> = parents.iter().map(|parent| self.pictures[*parent]).collect();
        // The beams of a picture see the same of it: they may change places.
        if pictures != self.pictures {
            follow(self.image.iter_mut(), parents);
            self.pictures = pictures;
        }
        self.read(next_column(tokens, &self.device))
    }
}

impl NamedTensors for BlipCaptioner {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        self.vision.visit_tensors(prefix, visitor)?;
        let decoder = join(prefix, DECODER);
        self.text.visit_tensors(&join(&decoder, "bert"), visitor)?;
        let head = join(&decoder, "cls.predictions");
        self.head.dense.visit_tensors(&join(&head, "transform.dense"), visitor)?;
        self.head.norm.visit_tensors(&join(&head, "transform.LayerNorm"), visitor)?;
        visitor.visit(&join(&head, "bias"), &mut self.head.bias)
    }
}
