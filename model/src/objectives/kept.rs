//! Numbers that a step's passes hold on the device, by formula: what decides how many pairs a micro-batch may
//! have.
//!
//! Counted is what the backward pass reads again: the inputs of trained maps and of norms, queries, keys,
//! values and probabilities of attention, the inputs of activations, the scores over a vocabulary with their
//! gradient. Dropout keeps nothing, since its mask is drawn again. The largest part, the Q-Former's, is
//! compared with what was measured (docs/pretrain-on-gpus.md).

use crate::adapters::Adapters;
use crate::language::{LanguageKept, LanguageSizes};
use crate::qformer::QFormerConfig;
use crate::vision::{ClipVisionConfig, EncoderSizes, EvaConfig};

/// Numbers of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// float32 numbers that stay from the features' passes until the own backward pass, of every pair of a
    /// member.
    pub by_all: usize,
    /// float32 numbers of one micro-batch at a time.
    pub by_one: usize,
    /// Numbers of one micro-batch at a time in the frozen models' own numbers.
    pub frozen: usize,
}

/// The Q-Former's passes over one pair.
struct Passes<'a> {
    config: &'a QFormerConfig,
    positions: usize,
}

impl Passes<'_> {
    /// The image's embeddings, normalised and as the norm reads them, with their keys and values in all
    /// layers.
    fn image(&self) -> usize {
        let of_position = 2 * self.config.image_width + 2 * self.config.cross_layers() * self.config.hidden;
        self.positions * of_position
    }

    /// All layers for `rows` of which each sees `keys`: of attention its input, queries, keys, values, what
    /// is read, the sum and its norm; of the feed-forward part the same without the three, and both sides of
    /// its activation.
    fn layers(&self, rows: usize, keys: usize) -> usize {
        let QFormerConfig { hidden, intermediate, heads, layers, .. } = *self.config;
        layers * rows * (10 * hidden + 2 * intermediate + heads * keys)
    }

    /// The queries' look at the image.
    fn cross(&self) -> usize {
        let QFormerConfig { hidden, queries, heads, .. } = *self.config;
        self.config.cross_layers() * queries * (5 * hidden + heads * self.positions)
    }
}

/// The contrast task, without the image encoder.
pub fn contrast(config: &QFormerConfig, positions: usize, text_length: usize) -> Kept {
    let passes = Passes { config, positions };
    let (queries, both) = (config.queries, config.queries + text_length);
    let features = passes.image()
        + passes.layers(queries, queries)
        + passes.cross()
        + passes.layers(text_length, text_length);
    let matching = passes.image() + 3 * (passes.layers(both, both) + passes.cross());
    let captioning = passes.layers(text_length, both) + 2 * (text_length - 1) * config.vocab;
    Kept { by_all: features, by_one: matching + captioning, frozen: 0 }
}

/// Tasks through the language model, without the image encoder: `asked` tokens beside the image, `texts` of
/// `written` tokens each, before which `read` are read.
pub fn through_language(
    config: &QFormerConfig,
    language: &dyn LanguageSizes,
    positions: usize,
    (asked, read): (usize, usize),
    (texts, written): (usize, usize),
) -> Kept {
    let passes = Passes { config, positions };
    let rows = config.queries + asked;
    let prompt = passes.image() + passes.layers(rows, rows) + passes.cross();
    let LanguageKept { narrow, wide } = language.kept(config.queries + read, written);
    Kept { by_all: 0, by_one: prompt + texts * wide, frozen: texts * narrow }
}

/// What the adapters of a language model keep of a text of `length` tokens after `read` positions, float32:
/// what each reads, under a mask of its own, and what is between its matrices.
pub fn adapters(adapters: &Adapters, language: &dyn LanguageSizes, read: usize, length: usize) -> usize {
    let of = |(name, [_, input]): (&str, [usize; 2])| {
        language.rows_of(name, read, length) * (input + adapters.rank())
    };
    adapters.maps().map(of).sum()
}

/// What passes through the frozen image encoder at a time, of one image: the widest of a block, in the
/// encoder's numbers, with the probabilities counted twice for their float32.
pub fn encoder_passing(sizes: &EncoderSizes) -> usize {
    let (EncoderSizes::Eva(EvaConfig { width, intermediate, heads, .. })
    | EncoderSizes::Clip(ClipVisionConfig { width, intermediate, heads, .. })) = sizes;
    let tokens = sizes.tokens();
    let attention = tokens * (6 * width + 2 * heads * tokens);
    let feed_forward = tokens * (3 * width + 2 * intermediate);
    attention.max(feed_forward)
}

/// What a trained image encoder keeps of one image, float32: what enters each block, of every image of a
/// member; and one block's own activations, which are computed once more, of one micro-batch at a time.
pub fn trained_encoder(sizes: &EncoderSizes) -> Kept {
    let (depth, width, intermediate, heads) = match sizes {
        EncoderSizes::Eva(EvaConfig { depth, width, intermediate, heads, .. }) => {
            (*depth, width, intermediate, heads)
        }
        EncoderSizes::Clip(ClipVisionConfig { depth, width, intermediate, heads, .. }) => {
            (depth.saturating_sub(1), width, intermediate, heads)
        }
    };
    let tokens = sizes.tokens();
    let block = tokens * (8 * width + 2 * intermediate + heads * tokens);
    Kept { by_all: tokens * width * depth, by_one: block, frozen: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::opt::OptConfig;

    /// What was measured on the CPU in float32, without dropout, for each pair of the paper's first stage.
    const MEASURED: f64 = 0.27e9;

    #[test]
    fn the_paper_s_first_stage_keeps_what_was_measured() {
        let Kept { by_all, by_one, frozen } = contrast(&QFormerConfig::new(1408), 257, 32);
        let bytes = 4.0 * (by_all + by_one) as f64;
        assert!((bytes / MEASURED - 1.0).abs() < 0.1, "{bytes}");
        assert_eq!(frozen, 0);
    }

    #[test]
    fn a_contrast_pair_counted_by_hand() {
        let config = QFormerConfig::new(5)
            .with_hidden(4)
            .with_layers(2)
            .with_heads(2)
            .with_intermediate(6)
            .with_vocab(11)
            .with_max_positions(8)
            .with_queries(3)
            .with_cross_attention_frequency(2);
        // One layer of two sees the image; 3 queries, 4 tokens, 7 positions.
        let image = 7 * (2 * 5 + 2 * 4);
        let cross = 3 * (5 * 4 + 2 * 7);
        let layers = |rows: usize, keys: usize| 2 * rows * (40 + 12 + 2 * keys);
        let found = contrast(&config, 7, 4);
        assert_eq!(found.by_all, image + layers(3, 3) + cross + layers(4, 4));
        assert_eq!(found.by_one, image + 3 * (layers(7, 7) + cross) + layers(4, 7) + 2 * 3 * 11);
        // Twice the texts keep twice what the language model does, and the queries once.
        let opt = OptConfig { width: 8, depth: 1, heads: 2, intermediate: 10, ..OptConfig::default() };
        let of = |texts| through_language(&config, &opt, 7, (0, 0), (texts, 4));
        let language = opt.kept(3, 4);
        assert_eq!(
            of(1),
            Kept { by_all: 0, by_one: image + layers(3, 3) + cross + language.wide, frozen: language.narrow }
        );
        assert_eq!((of(2).by_one - of(1).by_one, of(2).frozen), (language.wide, 2 * language.narrow));
    }

    #[test]
    fn a_frozen_language_model_keeps_no_inputs_of_its_maps() {
        let opt = OptConfig {
            width: 8,
            depth: 2,
            heads: 2,
            intermediate: 10,
            vocab_size: 13,
            ..OptConfig::default()
        };
        let found = opt.kept(3, 4);
        assert_eq!(found.narrow, 2 * 7 * (5 * 8 + 10));
        assert_eq!(found.wide, 2 * 7 * 2 * 7 + 2 * 4 * 13);
    }

    #[test]
    fn an_encoder_counted_by_hand() {
        let eva = EvaConfig {
            width: 4,
            depth: 3,
            heads: 2,
            intermediate: 8,
            image_size: 4,
            patch_size: 2,
            ..EvaConfig::default()
        };
        let sizes = EncoderSizes::Eva(eva);
        assert_eq!(encoder_passing(&sizes), 5 * (6 * 4 + 2 * 2 * 5));
        let trained = trained_encoder(&sizes);
        assert_eq!((trained.by_all, trained.by_one), (5 * 4 * 3, 5 * (8 * 4 + 2 * 8 + 2 * 5)));
    }
}
