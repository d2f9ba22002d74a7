//! The JSON files of an exported folder.

use serde_json::{Value, json};

use super::precision::Precision;
use super::retriever::Retriever;
use super::tokenizer::{BLIP2, INSTRUCTBLIP};
use crate::blip2::config::QFormerSection;
use crate::blip2::model::Blip2;
use crate::vision::EvaConfig;
use blip2_model_files::config::TokenIds;
use blip2_model_files::error::ModelError;

/// File names and contents.
type Files = Vec<(&'static str, Value)>;

/// The files of `Blip2ForConditionalGeneration`, or of `InstructBlipForConditionalGeneration` where the
/// Q-Former reads questions.
pub(super) fn of_blip2(model: &Blip2, vision: &EvaConfig, precision: Precision) -> Result<Files, ModelError> {
    let (mut config, processor) = match model.reads_questions() {
        true => (instructblip_config(model, vision)?, INSTRUCTBLIP),
        false => (model_config(model, vision)?, BLIP2),
    };
    config["dtype"] = precision.torch().into();
    let queries = model.qformer_config().queries;
    Ok(vec![
        ("config.json", config),
        ("generation_config.json", generation_config(model)),
        ("preprocessor_config.json", model.processor().to_json()),
        ("processor_config.json", processor_config(processor, queries)),
    ])
}

/// The files of `Blip2ForImageTextRetrieval`, whose processor marks images by the token `image`.
pub(super) fn of_retriever(
    model: &Retriever<'_>,
    vision: &EvaConfig,
    image: u32,
    precision: Precision,
) -> Result<Files, ModelError> {
    let queries = model.qformer.queries;
    let mut qformer = to_value(&QFormerSection::from(model.qformer))?;
    qformer["use_qformer_text_input"] = true.into();
    let config = json!({
        "architectures": ["Blip2ForImageTextRetrieval"],
        "model_type": "blip-2",
        "dtype": precision.torch(),
        "num_query_tokens": queries,
        "image_token_index": image,
        "image_text_hidden_size": model.contrast.embed_dim(),
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "vision_config": vision_config(vision)?,
        "qformer_config": qformer,
        "text_config": {"model_type": "opt"},
    });
    Ok(vec![
        ("config.json", config),
        ("preprocessor_config.json", model.processor.to_json()),
        ("processor_config.json", processor_config(BLIP2, queries)),
    ])
}

/// `config.json` of `InstructBlipForConditionalGeneration`, and how the model was asked in training.
fn instructblip_config(model: &Blip2, vision: &EvaConfig) -> Result<Value, ModelError> {
    let mut config = model_config(model, vision)?;
    config["architectures"] = json!(["InstructBlipForConditionalGeneration"]);
    config["model_type"] = "instructblip".into();
    config["vision_config"]["model_type"] = "instructblip_vision_model".into();
    config["qformer_config"]["model_type"] = "instructblip_qformer".into();
    if let Some(fields) = config.as_object_mut() {
        fields.remove("image_text_hidden_size");
        if let Value::Object(said) = to_value(model.asking())? {
            fields.extend(said);
        }
    }
    if let Some(fields) = config["qformer_config"].as_object_mut() {
        fields.remove("use_qformer_text_input");
    }
    Ok(config)
}

fn model_config(model: &Blip2, vision: &EvaConfig) -> Result<Value, ModelError> {
    let qformer = to_value(&QFormerSection::from(model.qformer_config()))?;
    let text = text_config(model)?;
    let decoder_only = !model.language_model().is_encoder_decoder();
    Ok(json!({
        "architectures": ["Blip2ForConditionalGeneration"],
        "model_type": "blip-2",
        "num_query_tokens": model.qformer_config().queries,
        "image_token_index": model.tokens().image,
        "image_text_hidden_size": 256,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "use_decoder_only_language_model": decoder_only,
        "is_encoder_decoder": !decoder_only,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "vision_config": vision_config(vision)?,
        "qformer_config": qformer,
        "text_config": text,
    }))
}

fn vision_config(vision: &EvaConfig) -> Result<Value, ModelError> {
    let mut section = to_value(vision)?;
    section["model_type"] = "blip_2_vision_model".into();
    section["hidden_act"] = "gelu".into();
    section["qkv_bias"] = true.into();
    section["attention_dropout"] = 0.0.into();
    section["initializer_range"] = 1e-10.into();
    Ok(section)
}

fn text_config(model: &Blip2) -> Result<Value, ModelError> {
    let mut section = model.language_model().section()?;
    section["model_type"] = model.language_model().model_type().into();
    section["use_cache"] = true.into();
    // `generate` takes the language model's own end token, so it must be the one that ends captions.
    section["eos_token_id"] = to_value(&end_tokens(model))?;
    Ok(section)
}

fn generation_config(model: &Blip2) -> Value {
    let tokens = model.tokens();
    let mut config = json!({
        "bos_token_id": tokens.bos,
        "pad_token_id": tokens.pad,
        "eos_token_id": end_tokens(model),
    });
    if let Some(start) = model.language_model().decoder_start() {
        config["decoder_start_token_id"] = start.into();
    }
    config
}

fn processor_config(class: &str, queries: usize) -> Value {
    json!({"processor_class": class, "num_query_tokens": queries})
}

fn end_tokens(model: &Blip2) -> TokenIds {
    match model.tokens().eos.as_slice() {
        [one] => TokenIds::One(*one),
        several => TokenIds::Many(several.to_vec()),
    }
}

fn to_value(section: &impl serde::Serialize) -> Result<Value, ModelError> {
    serde_json::to_value(section).map_err(|e| ModelError::input("configuration", e.to_string()))
}
