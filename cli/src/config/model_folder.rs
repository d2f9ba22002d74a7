//! `model.folder`: one BLIP-2 folder in the place of the parts that nothing else is said of.
//!
//! The key is no part of a run's configuration: what is pinned, hashed and sent to workers names each part's
//! place.

use schemars::JsonSchema;
use toml::Value;

/// The key.
pub(super) const KEY: &str = "model.folder";
/// The parts of a whole folder: encoder, language model, the Q-Former's tokenizer where it has one, the
/// Q-Former itself.
pub(super) const PARTS: [&str; 4] =
    ["model.image_encoder", "model.language_model", "model.qformer_tokenizer", "model.init_checkpoint"];

/// Its declaration.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a declaration alone: no run has the key")]
pub(super) struct ModelFolder {
    /// A whole BLIP-2 folder (or URL) that serves as `image_encoder`, `language_model`, `qformer_tokenizer`
    /// and `init_checkpoint` wherever these are empty; a run stores what each of them became.
    folder: String,
}

/// Its default.
pub(super) fn default() -> Value {
    Value::String(String::new())
}

#[cfg(test)]
mod tests {
    use super::super::Layers;

    #[test]
    fn one_folder_serves_what_is_not_named() {
        let mut layers = Layers::new().unwrap();
        let set =
            ["model.folder=models/blip2-opt-2.7b", "model.qformer_tokenizer=models/bert"].map(str::to_owned);
        layers.apply_arguments(&set).unwrap();
        let loaded = layers.finish().unwrap();
        let model = &loaded.config.model;
        for part in [&model.image_encoder, &model.language_model, &model.init_checkpoint] {
            assert_eq!(part, "models/blip2-opt-2.7b");
        }
        assert_eq!((model.qformer_tokenizer.as_str(), model.qformer_init.as_str()), ("models/bert", ""));
        let shown = loaded.settings.iter().find(|setting| setting.key == "model.image_encoder").unwrap();
        assert_eq!(shown.origin.to_string(), "--set");
        let plain = Layers::new().unwrap().finish().unwrap().config;
        assert_eq!(plain.model.image_encoder, "");
    }
}
