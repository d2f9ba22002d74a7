//! What the fields of `config.json` may be: nothing is allocated for sizes that no model has.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Value;

use blip2_tensors::nn::activation::Activation;

/// Most that a width can be.
const WIDTH: u64 = 1 << 16;
/// Most that an inner width can be.
const INNER: u64 = 1 << 20;
/// Most layers.
const DEPTH: u64 = 1 << 10;
/// Most heads.
const HEADS: u64 = 1 << 12;
/// Most rows of a token table.
const TOKENS: u64 = 1 << 24;
/// Most positions.
const POSITIONS: u64 = 1 << 27;
/// Largest side of an image, in pixels.
pub const SIDE: u64 = 1 << 13;

/// Sizes and the most that each can be; none can be 0.
const SIZES: &[(&str, u64)] = &[
    ("hidden_size", WIDTH),
    ("d_model", WIDTH),
    ("d_kv", WIDTH),
    ("head_dim", WIDTH),
    ("word_embed_proj_dim", WIDTH),
    ("projection_dim", WIDTH),
    ("image_text_hidden_size", WIDTH),
    ("encoder_hidden_size", WIDTH),
    ("intermediate_size", INNER),
    ("ffn_dim", INNER),
    ("d_ff", INNER),
    ("num_hidden_layers", DEPTH),
    ("num_layers", DEPTH),
    ("num_decoder_layers", DEPTH),
    ("cross_attention_frequency", DEPTH),
    ("num_attention_heads", HEADS),
    ("num_key_value_heads", HEADS),
    ("num_heads", HEADS),
    ("num_query_tokens", HEADS),
    ("vocab_size", TOKENS),
    ("max_position_embeddings", POSITIONS),
    ("relative_attention_num_buckets", WIDTH),
    ("relative_attention_max_distance", POSITIONS),
    ("image_size", SIDE),
    ("patch_size", SIDE),
];

/// Sizes that may be null, which is as if they were absent.
const NULLABLE: &[&str] =
    &["head_dim", "num_key_value_heads", "num_decoder_layers", "word_embed_proj_dim", "projection_dim"];

/// Small numbers that norms add to what they divide by.
const EPSILONS: &[&str] = &["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"];

/// Probabilities of dropping a value.
const DROPOUTS: &[&str] = &["dropout", "dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"];

/// Single tokens, and those that may be several.
const TOKEN: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "image_token_index",
    "image_token_id",
];

/// Whether or not.
const SWITCHES: &[&str] = &[
    "tie_word_embeddings",
    "do_layer_norm_before",
    "_remove_final_layer_norm",
    "scale_decoder_outputs",
    "use_qformer_text_input",
    "qkv_bias",
];

/// Names of functions.
const FUNCTIONS: &[&str] = &["hidden_act", "dense_act_fn"];

/// Refuses the fields of a section that no model can have; the first, with its name.
pub(super) fn check(section: &Value) -> Result<(), String> {
    let given = |key: &str| section.get(key).filter(|value| !(value.is_null() && may_be_null(key)));
    for (key, most) in SIZES {
        if let Some(value) = given(key) {
            integer(key, value, 1..=*most as i64)?;
        }
    }
    for key in TOKEN {
        // Some of Llama's configurations say by -1 that there is no padding.
        let range = if *key == "pad_token_id" { -1 } else { 0 }..=i64::from(i32::MAX);
        match given(key) {
            None => {}
            Some(Value::Array(several)) if *key == "eos_token_id" => {
                several.iter().try_for_each(|value| integer(key, value, range.clone()))?;
            }
            Some(value) => integer(key, value, range)?,
        }
    }
    for key in EPSILONS {
        number(key, given(key), |value| value > 0.0 && value <= 1.0, "above 0 and at most 1")?;
    }
    for key in DROPOUTS {
        number(key, given(key), |value| (0.0..1.0).contains(&value), "at least 0 and below 1")?;
    }
    number("rope_theta", given("rope_theta"), |value| value > 0.0, "above 0")?;
    for key in SWITCHES {
        if let Some(value) = given(key).filter(|value| !value.is_boolean()) {
            return Err(format!("{key} = {value}: it must be true or false"));
        }
    }
    for key in FUNCTIONS {
        if let Some(value) = given(key)
            && let Err(error) = Activation::deserialize(value)
        {
            return Err(format!("{key} = {value}: {error}"));
        }
    }
    Ok(())
}

fn may_be_null(key: &str) -> bool {
    let size = SIZES.iter().any(|(name, _)| *name == key);
    !size || NULLABLE.contains(&key)
}

fn integer(key: &str, value: &Value, range: RangeInclusive<i64>) -> Result<(), String> {
    match value.as_i64() {
        Some(number) if range.contains(&number) => Ok(()),
        _ => Err(format!(
            "{key} = {value}: it must be a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

fn number(key: &str, value: Option<&Value>, allowed: fn(f64) -> bool, must: &str) -> Result<(), String> {
    match value {
        Some(value) if !value.as_f64().is_some_and(|number| number.is_finite() && allowed(number)) => {
            Err(format!("{key} = {value}: it must be a number {must}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_size_is_a_whole_number_that_a_model_can_have() {
        for (key, most) in SIZES {
            let wrong = [
                json!(0),
                json!(-1),
                json!(1_000_000_000_000_u64),
                json!(1e12),
                json!(7.5),
                json!("8"),
                json!([8]),
                json!(true),
                json!(u64::MAX),
            ];
            for value in wrong {
                let error = check(&json!({*key: value})).unwrap_err();
                assert!(error.contains(key) && error.contains(&value.to_string()), "{error}");
            }
            check(&json!({*key: most})).unwrap();
            assert_eq!(check(&json!({*key: null})).is_ok(), NULLABLE.contains(key), "{key}");
        }
    }

    #[test]
    fn other_fields_are_what_they_are_used_as() {
        for refused in [
            json!({"layer_norm_eps": 0}),
            json!({"layer_norm_eps": "1e-5"}),
            json!({"rms_norm_eps": -1e-6}),
            json!({"layer_norm_epsilon": 1e300}),
            json!({"dropout": 1.0}),
            json!({"dropout_rate": -0.1}),
            json!({"pad_token_id": 1e12}),
            json!({"bos_token_id": "1"}),
            json!({"eos_token_id": -1}),
            json!({"eos_token_id": [1, 5_000_000_000_u64]}),
            json!({"bos_token_id": [1]}),
            json!({"tie_word_embeddings": 1}),
            json!({"hidden_act": 1}),
            json!({"hidden_act": "relu6"}),
            json!({"rope_theta": -1.0}),
        ] {
            let key = refused.as_object().unwrap().keys().next().unwrap().clone();
            assert!(check(&refused).unwrap_err().contains(&key), "{refused}");
        }
        for taken in [
            json!({"pad_token_id": -1, "eos_token_id": [2, 3], "bos_token_id": null, "rope_theta": 1e6}),
            json!({"hidden_act": "gelu_pytorch_tanh", "dropout": 0, "layer_norm_eps": 1e-12, "num_heads": 1}),
            json!({"something_else": -5, "n_positions": "many"}),
        ] {
            check(&taken).unwrap();
        }
    }
}
