//! Sizes that no model has, in the configurations of the small ones.

use blip2_model::clip::Clip;
use blip2_model::language::LanguageModel;
use blip2_model::vision::ImageEncoder;
use burn::tensor::Device;
use serde_json::json;

use crate::files::{asset, read_json, write_json};

/// Every family's sizes are looked at before anything is made of them.
#[test]
fn sizes_that_no_model_has_are_refused_by_name() {
    let families: [(&str, &[&str], &[&str]); 5] = [
        (
            "eva-tiny",
            &[""],
            &[
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
                "image_size",
                "patch_size",
            ],
        ),
        (
            "clip-tiny",
            &["vision_config"],
            &["hidden_size", "num_hidden_layers", "num_attention_heads", "image_size"],
        ),
        (
            "clip-tiny",
            &["text_config"],
            &["hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size"],
        ),
        (
            "opt-tiny",
            &[""],
            &[
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "ffn_dim",
                "vocab_size",
                "max_position_embeddings",
                "word_embed_proj_dim",
            ],
        ),
        (
            "t5-scenes",
            &[""],
            &[
                "d_model",
                "d_kv",
                "d_ff",
                "num_layers",
                "num_decoder_layers",
                "num_heads",
                "vocab_size",
                "relative_attention_num_buckets",
            ],
        ),
    ];
    let place = tempfile::tempdir().unwrap();
    for (name, sections, keys) in families {
        let own = read_json(&asset(name).join("config.json"));
        std::fs::copy(asset(name).join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
        for key in keys {
            for value in
                [json!(1_000_000_000_000_u64), json!(0), json!(-1), json!(1.5), json!("128"), json!([1])]
            {
                let mut config = own.clone();
                match sections[0] {
                    "" => config[*key] = value.clone(),
                    section => config[section][*key] = value.clone(),
                }
                write_json(&place.path().join("config.json"), &config);
                let error = match name {
                    "eva-tiny" => ImageEncoder::open(place.path(), Device::flex()).map(drop),
                    "clip-tiny" => Clip::open(place.path(), &Device::flex()).map(drop),
                    _ => LanguageModel::open(place.path(), Device::flex()).map(drop),
                };
                let error = error.unwrap_err().to_string();
                let place = match sections[0] {
                    "" => format!("{key} = {value}"),
                    section => format!("{section}.{key} = {value}"),
                };
                assert!(error.contains("config.json") && error.contains(&place), "{error}");
            }
        }
        // Possible by themselves, but not those of the weights: nothing is allocated for them.
        for (key, value) in [("hidden_size", 49152), ("d_model", 49152), ("vocab_size", 1 << 24)] {
            let mut config = own.clone();
            let holder = if sections[0].is_empty() { &mut config } else { &mut config[sections[0]] };
            if holder.get(key).is_none() {
                continue;
            }
            holder[key] = value.into();
            write_json(&place.path().join("config.json"), &config);
            let error = match name {
                "eva-tiny" => ImageEncoder::open(place.path(), Device::flex()).map(drop),
                "clip-tiny" => Clip::open(place.path(), &Device::flex()).map(drop),
                _ => LanguageModel::open(place.path(), Device::flex()).map(drop),
            };
            assert!(error.unwrap_err().to_string().contains("has shape"), "{name} {key}");
        }
    }
}
