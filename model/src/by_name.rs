//! Sizes of published models by the names of their folders, for what is known of a run before its models are
//! there.

use crate::language::LanguageSizes;
use crate::language::llama::LlamaConfig;
use crate::language::opt::OptConfig;
use crate::language::t5::T5Config;
use crate::vision::{ClipVisionConfig, EncoderSizes, EvaConfig};

/// Image encoders, as `models get` and the hubs call their folders and files.
pub const IMAGE_ENCODERS: &[&str] =
    &["eva-vit-g", "eva_vit_g", "clip-vit-large-patch14", "clip-vit-l", "clip_vit_l"];

/// Language models, likewise.
pub const LANGUAGE_MODELS: &[&str] = &[
    "opt-125m",
    "opt-350m",
    "opt-1.3b",
    "opt-2.7b",
    "opt-6.7b",
    "opt-13b",
    "flan-t5-small",
    "flan-t5-base",
    "flan-t5-large",
    "flan-t5-xl",
    "flan-t5-xxl",
    "vicuna-7b",
    "vicuna-13b",
    "smollm2-135m",
];

/// BERT's words and `[DEC]`: the Q-Former's word table where its tokenizer is BERT's.
pub const BERT_VOCABULARY: usize = 30_523;

/// How whole models are called, whose language model's name follows; all have the paper's image encoder.
const WHOLE: [&str; 2] = ["blip2-", "instructblip-"];

/// The name of a folder, file or URL itself.
fn own_name(place: &str) -> String {
    place.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase()
}

/// The longest of `names` that a name begins with.
fn known_as(name: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().filter(|known| name.starts_with(known)).max_by_key(|known| known.len())
}

/// The image encoder that a folder, file or URL is named after.
pub fn image_encoder(place: &str) -> Option<EncoderSizes> {
    let name = own_name(place);
    if WHOLE.iter().any(|begins| name.starts_with(begins)) {
        return Some(EncoderSizes::Eva(EvaConfig::default()));
    }
    Some(match known_as(&name, IMAGE_ENCODERS)? {
        "eva-vit-g" | "eva_vit_g" => EncoderSizes::Eva(EvaConfig::default()),
        _ => EncoderSizes::Clip(ClipVisionConfig::vit_l_14()),
    })
}

/// The language model that a folder or URL is named after.
pub fn language_model(place: &str) -> Option<Box<dyn LanguageSizes>> {
    let name = own_name(place);
    let name = WHOLE.iter().find_map(|begins| name.strip_prefix(begins)).unwrap_or(&name);
    Some(match known_as(name, LANGUAGE_MODELS)? {
        "opt-125m" => Box::new(OptConfig::default()),
        "opt-350m" => Box::new(OptConfig::opt_350m()),
        "opt-1.3b" => Box::new(OptConfig::of_sizes(2048, 24, 32)),
        "opt-2.7b" => Box::new(OptConfig::of_sizes(2560, 32, 32)),
        "opt-6.7b" => Box::new(OptConfig::of_sizes(4096, 32, 32)),
        "opt-13b" => Box::new(OptConfig::of_sizes(5120, 40, 40)),
        "flan-t5-small" => Box::new(T5Config::flan(512, 1024, 8, 6)),
        "flan-t5-base" => Box::new(T5Config::flan(768, 2048, 12, 12)),
        "flan-t5-large" => Box::new(T5Config::flan(1024, 2816, 24, 16)),
        "flan-t5-xl" => Box::new(T5Config::flan(2048, 5120, 24, 32)),
        "flan-t5-xxl" => Box::new(T5Config::flan(4096, 10_240, 24, 64)),
        "vicuna-13b" => Box::new(LlamaConfig {
            width: 5120,
            depth: 40,
            heads: 40,
            intermediate: 13_824,
            ..LlamaConfig::default()
        }),
        "smollm2-135m" => Box::new(LlamaConfig::smollm2_135m()),
        _ => Box::new(LlamaConfig::default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::LanguageModel;
    use crate::language::published::count;
    use burn::tensor::Device;

    #[test]
    fn every_name_has_the_parameters_that_were_published() {
        let published = [
            125_239_296,
            331_196_416,
            1_315_758_080,
            2_651_596_800,
            6_658_473_984,
            12_853_473_280,
            76_961_152,
            247_577_856,
            783_150_080,
            2_849_757_184,
            11_135_332_352,
            6_738_415_616,
            13_015_864_320,
            134_515_008_usize,
        ];
        assert_eq!(published.len(), LANGUAGE_MODELS.len());
        for (name, want) in LANGUAGE_MODELS.iter().zip(published) {
            let sizes = language_model(&format!("models/{name}")).unwrap();
            assert_eq!(count(LanguageModel::zeros(&*sizes, &Device::flex()).unwrap()), want, "{name}");
        }
    }

    #[test]
    fn a_folder_is_known_by_its_own_name() {
        for place in ["models/eva-vit-g", "https://host/a/eva_vit_g.pth", "eva-vit-g/"] {
            assert_eq!(image_encoder(place).unwrap().width(), 1408, "{place}");
        }
        for name in IMAGE_ENCODERS {
            assert!(image_encoder(name).is_some(), "{name}");
        }
        assert_eq!(image_encoder("hub/clip-vit-large-patch14").unwrap().width(), 1024);
        // The longer name is meant; what was published later is of the same sizes.
        assert_eq!(language_model("flan-t5-xxl").unwrap().width(), 4096);
        assert_eq!(language_model("lmsys/vicuna-7b-v1.5").unwrap().width(), 4096);
        let whole = "models/blip2-flan-t5-xl";
        assert_eq!(image_encoder(whole).unwrap().width(), 1408);
        assert_eq!(language_model(whole).unwrap().width(), 2048);
        assert_eq!(language_model("models/OPT-2.7B").unwrap().width(), 2560);
        assert!(language_model("opt-2.7b/mine").is_none() && image_encoder("mine").is_none());
    }
}
