//! Sizes of published models and of the quick start's.

use std::sync::Arc;

use blip2_model::by_name;
use blip2_model::language::LanguageSizes;
use blip2_model::language::opt::OptConfig;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::{ClipVisionConfig, EncoderSizes, EvaConfig};
use blip2_worker::settings::model::QFormerSettings;
use clap::ValueEnum;

use super::speed::StepSizes;
use super::stub::StubSizes;

/// What is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// Stage 1 without image encoder: the paper's Q-Former over random features of 257×1408, as of ViT-g.
    Stage1Stub,
    /// Stage 1 of the paper with the first block alone of ViT-g: its features, next to nothing to compute.
    Stage1OneBlock,
    /// Stage 1 of the paper: ViT-g/14 and the Q-Former.
    Stage1VitG,
    /// Stage 1 with CLIP's ViT-L/14.
    Stage1VitL,
    /// Stage 2 of the paper without the blocks of ViT-g, whose patches alone are next to nothing to compute:
    /// the Q-Former and OPT-125M.
    #[value(name = "stage2-patches-opt-125m")]
    Stage2PatchesOpt125m,
    /// The same with Flan-T5-Base.
    Stage2PatchesFlanT5Base,
    /// Stage 2 of the paper: ViT-g/14, the Q-Former and OPT-2.7B.
    #[value(name = "stage2-opt-2.7b")]
    Stage2Opt27,
    /// Stage 2 with OPT-6.7B.
    #[value(name = "stage2-opt-6.7b")]
    Stage2Opt67,
    /// Stage 2 with Flan-T5-XL.
    Stage2FlanT5Xl,
    /// Stage 2 with Flan-T5-XXL.
    Stage2FlanT5Xxl,
    /// Fine-tuning for captions at 364 pixels: ViT-g/14, trained, the Q-Former and OPT-2.7B; parameters
    /// alone.
    CaptionVitG,
    /// Fine-tuning for retrieval at 364 pixels: ViT-g/14, trained, and the Q-Former; parameters alone.
    RetrievalVitG,
    /// The quick start's stage 1.
    Stage1Quickstart,
    /// The quick start's stage 2.
    Stage2Quickstart,
}

/// What a preset comes to.
pub(super) enum Sizes {
    /// The trained model alone.
    Stub(StubSizes),
    /// A whole run's models.
    Run(StepSizes),
}

impl Preset {
    /// As it is typed.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    /// Sizes with a `dropout` in the Q-Former.
    pub(super) fn sizes(self, batch: usize, dropout: f64) -> Sizes {
        let vit_g_at = |image_size| EncoderSizes::Eva(EvaConfig { image_size, ..EvaConfig::default() });
        let vit_g = || vit_g_at(224);
        let vit_g_of = |depth| EncoderSizes::Eva(EvaConfig { depth, ..EvaConfig::default() });
        let trained = |sizes: StepSizes| StepSizes { trains_encoder: true, ..sizes };
        let paper = |encoder, language| StepSizes {
            encoder,
            qformer: QFormerSettings { dropout, ..QFormerSettings::default() },
            vocab: by_name::BERT_VOCABULARY,
            language,
            text_length: 32,
            trains_encoder: false,
        };
        Sizes::Run(match self {
            Self::Stage1Stub => {
                let qformer = QFormerConfig::new(1408).with_dropout(dropout);
                return Sizes::Stub(StubSizes {
                    qformer,
                    embed_dim: 256,
                    positions: 257,
                    text_length: 32,
                    batch,
                });
            }
            Self::Stage1OneBlock => paper(vit_g_of(1), None),
            Self::Stage1VitG => paper(vit_g(), None),
            Self::Stage1VitL => paper(EncoderSizes::Clip(ClipVisionConfig::vit_l_14()), None),
            Self::Stage2PatchesOpt125m => paper(vit_g_of(0), published("opt-125m")),
            Self::Stage2PatchesFlanT5Base => paper(vit_g_of(0), published("flan-t5-base")),
            Self::Stage2Opt27 => paper(vit_g(), published("opt-2.7b")),
            Self::Stage2Opt67 => paper(vit_g(), published("opt-6.7b")),
            Self::Stage2FlanT5Xl => paper(vit_g(), published("flan-t5-xl")),
            Self::Stage2FlanT5Xxl => paper(vit_g(), published("flan-t5-xxl")),
            Self::CaptionVitG => trained(paper(vit_g_at(364), published("opt-2.7b"))),
            Self::RetrievalVitG => trained(paper(vit_g_at(364), None)),
            Self::Stage1Quickstart => quick_start(dropout, None),
            Self::Stage2Quickstart => {
                let small = OptConfig {
                    width: 192,
                    depth: 4,
                    heads: 6,
                    intermediate: 768,
                    vocab_size: 4096,
                    max_position_embeddings: 128,
                    ..OptConfig::default()
                };
                quick_start(dropout, Some(Arc::new(small)))
            }
        })
    }
}

/// The language model of this name.
fn published(name: &str) -> Option<Arc<dyn LanguageSizes>> {
    by_name::language_model(name).map(Arc::from)
}

fn quick_start(dropout: f64, language: Option<Arc<dyn LanguageSizes>>) -> StepSizes {
    let encoder = EvaConfig {
        width: 128,
        depth: 6,
        heads: 4,
        intermediate: 512,
        image_size: 64,
        patch_size: 8,
        ..EvaConfig::default()
    };
    let qformer = QFormerSettings {
        hidden: 128,
        layers: 4,
        heads: 4,
        intermediate: 512,
        queries: 8,
        max_positions: 64,
        embed_dim: 64,
        dropout,
        ..QFormerSettings::default()
    };
    let encoder = EncoderSizes::Eva(encoder);
    StepSizes { encoder, qformer, vocab: 1792, language, text_length: 16, trains_encoder: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_have_the_paper_s_sizes() {
        let Sizes::Stub(stub) = Preset::Stage1Stub.sizes(8, 0.1) else { panic!("a stub") };
        let sizes = &stub.qformer;
        assert_eq!((sizes.hidden, sizes.layers, sizes.vocab), (768, 12, 30_523));
        let Sizes::Run(run) = Preset::Stage2FlanT5Xl.sizes(8, 0.1) else { panic!("a run") };
        assert_eq!((run.encoder.tokens(), run.encoder.width(), run.qformer.dropout), (257, 1408, 0.1));
        assert_eq!(run.language.unwrap().width(), 2048);
        let Sizes::Run(small) = Preset::Stage2PatchesOpt125m.sizes(8, 0.0) else { panic!("a run") };
        assert_eq!((small.encoder.tokens(), small.encoder.width()), (257, 1408));
        assert_eq!(small.language.unwrap().width(), 768);
        let Sizes::Run(small) = Preset::Stage1Quickstart.sizes(8, 0.0) else { panic!("a run") };
        assert!(small.encoder.tokens() == 65 && small.language.is_none());
    }

    /// The quick start's sizes are those of the folders that come with the program.
    #[test]
    fn the_quick_start_s_sizes_are_its_backbones() {
        let Sizes::Run(small) = Preset::Stage2Quickstart.sizes(8, 0.0) else { panic!("a run") };
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones");
        let encoder = blip2_model::vision::ImageEncoder::sizes_of(&assets.join("eva-tiny")).unwrap();
        assert_eq!(small.encoder, encoder);
        let opt = std::fs::read_to_string(assets.join("opt-tiny/config.json")).unwrap();
        let opt: serde_json::Value = serde_json::from_str(&opt).unwrap();
        let got = small.language.unwrap().section().unwrap();
        for name in ["hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "vocab_size"] {
            assert!(opt[name].is_u64() && opt[name] == got[name], "{name}");
        }
    }
}
