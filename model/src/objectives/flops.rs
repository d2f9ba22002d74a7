//! Floating-point operations of a training step, by formula: what a rate of computation is measured in.
//!
//! Counted are the matrix products that the step needs, a product of `[m, k]` and `[k, n]` as `2·m·n·k`;
//! norms, softmax, GELU, losses and the optimizer, far below 1 % at published sizes, are not. A trained map
//! costs twice its forward pass going back (the gradients of its input and of its weight), a frozen one as
//! much as its forward pass (its input's alone), and the frozen image encoder nothing. The products of
//! attention have two gradients everywhere. Nothing is counted twice that a program chooses to compute twice,
//! and the keys and values of an image count once for all passes.

use crate::adapters::Adapters;
use crate::language::LanguageSizes;
use crate::qformer::QFormerConfig;
use crate::vision::{ClipVisionConfig, EncoderSizes, EvaConfig};
use blip2_tensors::nn::flops::{Flops, attend, map};

/// The frozen encoder's forward pass of one image.
pub fn image_encoder(sizes: &EncoderSizes) -> Flops {
    let forward = match sizes {
        EncoderSizes::Eva(EvaConfig { width, depth, intermediate, patch_size, .. }) => {
            let tokens = sizes.tokens();
            vision(tokens, *patch_size, *width, *depth, *intermediate)
        }
        EncoderSizes::Clip(ClipVisionConfig { width, depth, intermediate, patch_size, .. }) => {
            vision(sizes.tokens(), *patch_size, *width, depth.saturating_sub(1), *intermediate)
        }
    };
    Flops { forward: forward as u64, backward: 0 }
}

fn vision(tokens: usize, patch: usize, width: usize, depth: usize, inner: usize) -> usize {
    let patches = map(tokens - 1, 3 * patch * patch, width);
    let block = 4 * map(tokens, width, width) + attend(tokens, tokens, width) + 2 * map(tokens, width, inner);
    patches + depth * block
}

/// One batch of a task as its formulas take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Pairs in the global batch.
    pub pairs: usize,
    /// Feature vectors an image.
    pub positions: usize,
    /// Tokens a text.
    pub text_length: usize,
}

/// The Q-Former's pieces for one sample.
struct Pieces<'a> {
    config: &'a QFormerConfig,
    positions: usize,
}

impl Pieces<'_> {
    /// Keys and values of one image.
    fn image(&self) -> usize {
        self.config.cross_layers() * 2 * map(self.positions, self.config.image_width, self.config.hidden)
    }

    /// Self-attention of one layer: keys and values of `own` rows, queries of `rows`, `keys` seen.
    fn attention(&self, own: usize, rows: usize, keys: usize) -> usize {
        let hidden = self.config.hidden;
        2 * map(own, hidden, hidden) + 2 * map(rows, hidden, hidden) + attend(rows, keys, hidden)
    }

    /// Cross-attention of the queries in all layers that have it.
    fn cross(&self) -> usize {
        let (hidden, queries) = (self.config.hidden, self.config.queries);
        self.config.cross_layers()
            * (2 * map(queries, hidden, hidden) + attend(queries, self.positions, hidden))
    }

    fn feed_forward(&self, rows: usize) -> usize {
        2 * map(rows, self.config.hidden, self.config.intermediate)
    }

    fn query_pass(&self) -> usize {
        let queries = self.config.queries;
        let layer = self.attention(queries, queries, queries) + self.feed_forward(queries);
        self.config.layers * layer + self.cross()
    }

    /// Text after `past` positions whose keys and values are there.
    fn text_pass(&self, length: usize, past: usize) -> usize {
        self.config.layers * (self.attention(length, length, past + length) + self.feed_forward(length))
    }

    /// Queries and text together; the last layer's text rows are not computed.
    fn joint_pass(&self, length: usize) -> usize {
        let queries = self.config.queries;
        let both = queries + length;
        let layers = self.config.layers;
        (layers - 1) * (self.attention(both, both, both) + self.feed_forward(length))
            + self.attention(both, queries, both)
            + layers * self.feed_forward(queries)
            + self.cross()
    }
}

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartFlops {
    /// What they are for.
    pub name: &'static str,
    /// Operations of all pairs.
    pub flops: Flops,
}

/// A step of the contrast task of all pairs, without the image encoder.
pub fn contrast(config: &QFormerConfig, embed_dim: usize, batch: BatchShape) -> Flops {
    let parts = contrast_parts(config, embed_dim, batch);
    parts.into_iter().fold(Flops::default(), |sum, part| sum + part.flops)
}

/// The same by loss, in the order of the step.
pub fn contrast_parts(config: &QFormerConfig, embed_dim: usize, batch: BatchShape) -> [PartFlops; 3] {
    let BatchShape { pairs, positions, text_length } = batch;
    let pieces = Pieces { config, positions };
    let (hidden, queries) = (config.hidden, config.queries);
    let predicted = text_length - 1;
    let features = pieces.image()
        + pieces.query_pass()
        + pieces.text_pass(text_length, 0)
        + map(queries + 1, hidden, embed_dim);
    // Own pairs, negative images, negative texts.
    let matching = pieces.image() + 3 * pieces.joint_pass(text_length) + 3 * map(1, hidden, 2);
    let captioning = pieces.text_pass(text_length, queries)
        + map(predicted, hidden, hidden)
        + map(predicted, hidden, config.vocab);
    // All with all: once as values, and with either side's own rows live, whose gradient is the only one.
    let similarities = map(pairs * queries, embed_dim, pairs);
    let contrast = Flops { forward: 3 * similarities as u64, backward: 2 * similarities as u64 };
    let trained = |forward: usize| Flops::trained(forward).times(pairs);
    [
        PartFlops { name: "contrastive", flops: trained(features) + contrast },
        PartFlops { name: "matching", flops: trained(matching) },
        PartFlops { name: "captioning", flops: trained(captioning) },
    ]
}

/// A step of the generate task of all pairs, without the image encoder; `prefix` tokens are read before each
/// text.
pub fn generate(
    config: &QFormerConfig,
    language: &dyn LanguageSizes,
    prefix: usize,
    batch: BatchShape,
) -> Flops {
    let [queries, through] = language_parts(config, language, (0, prefix), batch);
    queries.flops + through.flops
}

/// A step through the language model of all pairs, without the image encoder, by model: the queries look at
/// `asked` tokens beside the image, the language model reads `prefix` tokens before each text.
pub fn language_parts(
    config: &QFormerConfig,
    language: &dyn LanguageSizes,
    (asked, prefix): (usize, usize),
    batch: BatchShape,
) -> [PartFlops; 2] {
    let pieces = Pieces { config, positions: batch.positions };
    let pass = if asked == 0 { pieces.query_pass() } else { pieces.joint_pass(asked) };
    let prompt = pieces.image() + pass + map(config.queries, config.hidden, language.width());
    let through = language.flops(config.queries + prefix, batch.text_length);
    [
        PartFlops { name: "soft prompt", flops: Flops::trained(prompt).times(batch.pairs) },
        PartFlops { name: "language model", flops: through.times(batch.pairs) },
    ]
}

/// The adapters of a language model, on one text of `length` tokens after `read` positions: both matrices of
/// each are trained.
pub fn adapters(adapters: &Adapters, language: &dyn LanguageSizes, read: usize, length: usize) -> Flops {
    let of = |(name, [output, input]): (&str, [usize; 2])| {
        let rows = language.rows_of(name, read, length);
        map(rows, input, adapters.rank()) + map(rows, adapters.rank(), output)
    };
    Flops::trained(adapters.maps().map(of).sum())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::adapters::AdapterSizes;
    use crate::language::LanguageModel;
    use crate::language::llama::LlamaConfig;
    use crate::language::opt::OptConfig;
    use crate::language::t5::T5Config;

    fn config() -> QFormerConfig {
        QFormerConfig::new(5)
            .with_hidden(4)
            .with_layers(2)
            .with_heads(2)
            .with_intermediate(6)
            .with_vocab(11)
            .with_max_positions(8)
            .with_queries(3)
            .with_cross_attention_frequency(2)
    }

    #[test]
    fn a_product_is_two_operations_a_factor() {
        assert_eq!((map(3, 5, 7), attend(2, 3, 4)), (210, 96));
    }

    #[test]
    fn an_encoder_counted_by_hand() {
        // Four patches of 2×2 and the class token, width 4, one block with an inner width of 8.
        let eva = EvaConfig {
            width: 4,
            depth: 1,
            heads: 2,
            intermediate: 8,
            image_size: 4,
            patch_size: 2,
            ..EvaConfig::default()
        };
        let patches = 2 * 4 * 12 * 4;
        let attention = 2 * 5 * 4 * 12 + 2 * (2 * 5 * 5 * 4) + 2 * 5 * 4 * 4;
        let feed_forward = 2 * 5 * 4 * 8 + 2 * 5 * 8 * 4;
        let want = Flops { forward: patches + attention + feed_forward, backward: 0 };
        assert_eq!(image_encoder(&EncoderSizes::Eva(eva)), want);
    }

    #[test]
    fn a_contrast_step_counted_by_hand() {
        // One pair's products at Q 3, T 4, P 7, hidden 4, intermediate 6, width of the image 5, embeddings
        // of 2.
        let image = 2 * (2 * 7 * 5 * 4);
        let cross = 2 * (2 * 3 * 4 * 4) + 2 * (2 * 3 * 7 * 4);
        let queries = 2 * (4 * (2 * 3 * 4 * 4) + 2 * (2 * 3 * 3 * 4) + 2 * (2 * 3 * 4 * 6)) + cross;
        let text = 2 * (4 * (2 * 4 * 4 * 4) + 2 * (2 * 4 * 4 * 4) + 2 * (2 * 4 * 4 * 6));
        let caption = 2 * (4 * (2 * 4 * 4 * 4) + 2 * (2 * 4 * 7 * 4) + 2 * (2 * 4 * 4 * 6));
        let first = 4 * (2 * 7 * 4 * 4) + 2 * (2 * 7 * 7 * 4) + 2 * (2 * 3 * 4 * 6) + 2 * (2 * 4 * 4 * 6);
        let last = 2 * (2 * 7 * 4 * 4) + 2 * (2 * 3 * 4 * 4) + 2 * (2 * 3 * 7 * 4) + 2 * (2 * 3 * 4 * 6);
        let heads = 2 * 4 * 4 * 2 + 3 * (2 * 4 * 2) + 2 * 3 * 4 * 4 + 2 * 3 * 4 * 11;
        let pair = 2 * image + queries + text + 3 * (first + last + cross) + caption + heads;
        let similarities = 2 * (2 * 3) * 2 * 2;
        let got = contrast(&config(), 2, BatchShape { pairs: 2, positions: 7, text_length: 4 });
        assert_eq!(got.forward, 2 * pair + 3 * similarities);
        assert_eq!(got.backward, 2 * 2 * pair + 2 * similarities);
    }

    #[test]
    fn a_generate_step_counted_by_hand() {
        let opt = OptConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 10,
            vocab_size: 13,
            ..OptConfig::default()
        };
        let batch = BatchShape { pairs: 3, positions: 7, text_length: 4 };
        let cross = 2 * (2 * 3 * 4 * 4) + 2 * (2 * 3 * 7 * 4);
        let queries = 2 * (4 * (2 * 3 * 4 * 4) + 2 * (2 * 3 * 3 * 4) + 2 * (2 * 3 * 4 * 6)) + cross;
        let prompt = 2 * (2 * 7 * 5 * 4) + queries + 2 * 3 * 4 * 8;
        let maps = 4 * (2 * 7 * 8 * 8) + 2 * (2 * 7 * 8 * 10) + 2 * 4 * 8 * 13;
        let attention = 2 * (2 * 7 * 7 * 8);
        let got = generate(&config(), &opt, 0, batch);
        assert_eq!(got.forward, 3 * (prompt + maps + attention));
        assert_eq!(got.backward, 3 * (2 * prompt + maps + 2 * attention));
        // Two key heads of 2 for four query heads, and gated feed-forward parts.
        let llama = LlamaConfig {
            width: 8,
            depth: 1,
            heads: 4,
            key_heads: Some(2),
            intermediate: 10,
            vocab_size: 13,
            ..LlamaConfig::default()
        };
        let maps = 2 * (2 * 7 * 8 * 8) + 2 * (2 * 7 * 8 * 4) + 3 * (2 * 7 * 8 * 10) + 2 * 4 * 8 * 13;
        let got = generate(&config(), &llama, 0, batch);
        assert_eq!(got.forward, 3 * (prompt + maps + attention));
        assert_eq!(got.backward, 3 * (2 * prompt + maps + 2 * attention));
        // An encoder-decoder that reads 3 + 2 positions and writes 4, heads of 3 with an inner width of 6.
        let t5 = T5Config {
            width: 8,
            head_width: 3,
            heads: 2,
            intermediate: 10,
            depth: 1,
            vocab_size: 13,
            ..T5Config::default()
        };
        let encoder = (4 * (2 * 5 * 8 * 6) + 3 * (2 * 5 * 8 * 10), 4 * 5 * 5 * 6);
        let own = (4 * (2 * 4 * 8 * 6), 4 * 4 * 4 * 6);
        let cross = (2 * (2 * 4 * 8 * 6) + 2 * (2 * 5 * 8 * 6), 4 * 4 * 5 * 6);
        let rest = 3 * (2 * 4 * 8 * 10) + 2 * 4 * 8 * 13;
        let got = generate(&config(), &t5, 2, batch);
        let forward = encoder.0 + encoder.1 + own.0 + own.1 + cross.0 + cross.1 + rest;
        assert_eq!(got.forward, 3 * (prompt + forward));
        // Neither the first layer's own attention nor the queries that it gives cross-attention have a
        // gradient.
        let back = encoder.0 + 2 * encoder.1 + cross.0 - 2 * 4 * 8 * 6 + 2 * cross.1 + rest;
        assert_eq!(got.backward, 3 * (2 * prompt + back));
    }

    #[test]
    fn parts_are_told_apart_by_what_they_are_for() {
        let batch = BatchShape { pairs: 2, positions: 7, text_length: 4 };
        let parts = contrast_parts(&config(), 2, batch);
        assert_eq!(parts.map(|part| part.name), ["contrastive", "matching", "captioning"]);
        // The captioning pass, the joint ones with the negative image, and what is left.
        let caption = 2 * (4 * (2 * 4 * 4 * 4) + 2 * (2 * 4 * 7 * 4) + 2 * (2 * 4 * 4 * 6));
        assert_eq!(parts[2].flops, Flops::trained(2 * (caption + 2 * 3 * 4 * 4 + 2 * 3 * 4 * 11)));
        assert!(parts[1].flops.forward > parts[0].flops.forward);
        // A question beside the image makes the queries' pass one of both.
        let opt = OptConfig { width: 8, depth: 1, heads: 2, intermediate: 10, ..OptConfig::default() };
        let [alone, asked] =
            [0, 4].map(|asked| language_parts(&config(), &opt, (asked, 0), batch)[0].flops.forward);
        let pieces = Pieces { config: &config(), positions: 7 };
        assert_eq!(asked - alone, 2 * (pieces.joint_pass(4) - pieces.query_pass()) as u64);
    }

    #[test]
    fn the_published_encoder_is_close_to_two_operations_a_weight_and_token() {
        let flops = image_encoder(&EncoderSizes::Eva(EvaConfig::default())).forward as f64;
        let weights = 2.0 * 985_000_000.0 * 257.0;
        assert!((flops / weights - 1.0).abs() < 0.05, "{}", flops / weights);
    }

    #[test]
    fn adapters_counted_by_hand() {
        let adapted = |sizes: &dyn LanguageSizes, targets: &[&str]| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            let mut model = LanguageModel::zeros(sizes, &Device::flex()).unwrap();
            let sizes = AdapterSizes { rank: 3, alpha: 1.0, targets };
            Adapters::new(&mut model, &sizes, &Device::flex()).unwrap()
        };
        // Width 8 to 8 and 10 to 8 in one layer, all of 7 positions.
        let opt = OptConfig { width: 8, depth: 1, heads: 2, intermediate: 10, ..OptConfig::default() };
        let pairs = adapted(&opt, &["q_proj", "fc2"]);
        let want = 2 * 7 * 3 * (8 + 8) + 2 * 7 * 3 * (10 + 8);
        assert_eq!(adapters(&pairs, &opt, 5, 2), Flops::trained(want));
        assert_eq!(pairs.parameters(), 3 * (8 + 8) + 3 * (10 + 8));
        // 5 positions are read by the encoder and by the decoder's keys and values of them, 4 are written.
        let t5 = T5Config { head_width: 3, ..T5Config::flan(8, 10, 1, 2) };
        let pairs = adapted(&t5, &["q", "v"]);
        let (encoder, own, cross) = (5 + 5, 4 + 4, 4 + 5);
        let want = 2 * 3 * (8 + 6) * (encoder + own + cross);
        assert_eq!(adapters(&pairs, &t5, 5, 4), Flops::trained(want));
    }
}
