//! The sizes of whole published models, counted from shapes: no weight matrix is ever allocated.

use burn::tensor::Device;

use crate::clip::{Clip, ClipTextConfig};
use crate::language::opt::{Opt, OptConfig};
use crate::language::published::count;
use crate::language::t5::{T5, T5Config};
use crate::objectives::contrast::ContrastModel;
use crate::objectives::generate::GenerateModel;
use crate::qformer::QFormerConfig;
use crate::vision::{ClipVisionConfig, ClipVit, EvaConfig, EvaVit};
use blip2_tensors::nn::layers::LayerNorm;

/// Rows of the Q-Former's word table: BERT's and `[DEC]`.
const VOCABULARY: usize = 30523;

/// Width of the contrastive space.
const EMBED_DIM: usize = 256;

/// What LAVIS's image encoder lacks: the key biases, which are zero.
const KEY_BIASES: usize = 39 * 1408;

/// The captioning head, which `transformers` has no place for.
const CAPTION_HEAD: usize = 622_651;

fn eva() -> usize {
    count(EvaVit::new(&EvaConfig::default(), &Device::flex()))
}

fn qformer(image_width: usize) -> QFormerConfig {
    QFormerConfig::new(image_width).with_vocab(VOCABULARY)
}

fn contrast(image_width: usize) -> usize {
    count(ContrastModel::new(&qformer(image_width), EMBED_DIM, 1e-5, &Device::flex()).unwrap())
}

fn generate(image_width: usize, language_width: usize) -> usize {
    count(GenerateModel::new(&qformer(image_width), 1e-5, language_width, &Device::flex()).unwrap())
}

fn opt(width: usize) -> usize {
    let config = OptConfig { width, depth: 32, heads: 32, intermediate: 4 * width, ..OptConfig::default() };
    count(Opt::new(&config, &Device::flex()).unwrap())
}

fn flan_t5(width: usize, intermediate: usize, heads: usize) -> usize {
    let config = T5Config {
        width,
        intermediate,
        depth: 24,
        heads,
        feed_forward_proj: "gated-gelu".into(),
        tie_word_embeddings: false,
        ..T5Config::default()
    };
    count(T5::new(&config, &Device::flex()).unwrap())
}

#[test]
fn image_encoders() {
    assert_eq!(eva() - KEY_BIASES, 985_894_528);
    assert_eq!(eva() + count(LayerNorm::new(1408, 1e-6, &Device::flex())), 985_952_256);
    assert_eq!(count(ClipVit::new(&ClipVisionConfig::vit_l_14(), 23, &Device::flex()).unwrap()), 290_581_504);
}

#[test]
fn qformers() {
    let device = Device::flex();
    assert_eq!(count(qformer(1408).init(false, &device)), 105_137_664);
    let tables = VOCABULARY * 768 + 512 * 768;
    assert_eq!(count(qformer(1408).init(true, &device)) - tables, 161_825_280);
}

#[test]
fn what_the_stages_train() {
    assert_eq!(contrast(1408), 186_705_470);
    assert_eq!(contrast(1024), 183_165_758);
    assert_eq!(generate(1408, 2560), 107_133_696);
}

#[test]
fn blip2() {
    for (name, width, language, want) in [
        ("OPT-2.7B", 2560, opt(2560), 3_744_679_936_usize),
        ("OPT-6.7B", 4096, opt(4096), 7_752_738_304),
        ("Flan-T5-XL", 2048, flan_t5(2048, 5120, 32), 3_942_446_592),
        ("Flan-T5-XXL", 4096, flan_t5(4096, 10240, 64), 12_229_596_672),
    ] {
        assert_eq!(eva() + generate(1408, width) + language, want, "{name}");
    }
}

#[test]
fn blip2_for_retrieval() {
    let temperature = 1;
    assert_eq!(eva() + contrast(1408) - CAPTION_HEAD - temperature, 1_172_032_258);
}

#[test]
fn clip_vit_l_14() {
    let text = ClipTextConfig {
        width: 768,
        depth: 12,
        heads: 12,
        intermediate: 3072,
        vocab_size: 49408,
        ..ClipTextConfig::default()
    };
    let clip = Clip::new(&ClipVisionConfig::vit_l_14(), &text, 768, &Device::flex()).unwrap();
    let scale = 1;
    assert_eq!(count(clip) + scale, 427_616_513);
}
