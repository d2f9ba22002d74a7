//! Exported models read back.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::blip2::PromptTokens;
use crate::generate::GenerateOptions;
use crate::language_model::LanguageModel;
use crate::llama::{Llama, LlamaConfig};
use crate::qformer::QFormerConfig;
use crate::stage2::Stage2Model;
use crate::tensors::{FlatLayout, NamedTensors};
use burn::tensor::{Device, Int, Tensor};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// The quick start's frozen parts around a small Q-Former of arbitrary weights.
fn model(encoder: &str) -> Blip2 {
    let opt = LanguageModel::open(&asset("opt-tiny"), &Device::flex()).unwrap();
    model_with(encoder, opt, &asset("opt-tiny"))
}

fn fill(model: &mut impl NamedTensors, scale: f32) {
    let layout = FlatLayout::of(model).unwrap();
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.37).sin() * scale).collect();
    layout.write(model, &flat, &Device::flex()).unwrap();
}

fn model_with(encoder: &str, language_model: LanguageModel, tokenizer: &Path) -> Blip2 {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset(encoder), &device).unwrap();
    let qformer = QFormerConfig::new(encoder.width())
        .with_hidden(16)
        .with_layers(2)
        .with_heads(2)
        .with_intermediate(24)
        .with_vocab(40)
        .with_queries(3);
    let mut stage2 = Stage2Model::new(&qformer, 1e-6, language_model.width(), &device).unwrap();
    fill(&mut stage2, 0.3);
    let tokens = PromptTokens::choose(tokenizer, language_model.special_tokens()).unwrap();
    Blip2::from_parts(encoder, stage2, language_model, qformer, tokens).unwrap()
}

fn pixels(model: &Blip2) -> Tensor<4> {
    let side = model.encoder().image_size();
    let count = (2 * 3 * side * side) as i64;
    Tensor::<1, Int>::arange(0..count, &Device::flex()).float().sin().reshape([2, 3, side, side])
}

fn reads_back_to_the_bit(mut model: Blip2, tokenizer: &Path) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    export_blip2(&folder, &mut model, tokenizer, &ExportOptions::default()).unwrap();
    let mut read = Blip2::open(&folder, &Device::flex()).unwrap();
    assert_eq!(read.qformer_config(), model.qformer_config());
    assert_eq!(read.tokens(), model.tokens());
    let layout = FlatLayout::of(&mut model).unwrap();
    assert_eq!(FlatLayout::of(&mut read).unwrap(), layout);
    let (want, got) = (layout.read(&mut model).unwrap(), layout.read(&mut read).unwrap());
    assert!(want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()));
    let options =
        GenerateOptions { max_new_tokens: 5, eos: model.tokens().eos.clone(), ..Default::default() };
    let prompts = [Vec::new(), vec![model.tokens().bos, 40, 50]];
    let captions = model.generate(pixels(&model), &prompts, &options).unwrap();
    assert_eq!(read.generate(pixels(&model), &prompts, &options).unwrap(), captions);
}

#[test]
fn an_exported_model_reads_back_to_the_bit() {
    reads_back_to_the_bit(model("eva-tiny"), &asset("opt-tiny"));
}

#[test]
fn an_exported_encoder_decoder_reads_back_to_the_bit() {
    // The quick start's tokenizer has no token to spare: here its last one marks pictures.
    let mut tokenizer = crate::hf_config::read_json(&asset("t5-tiny").join("tokenizer.json")).unwrap();
    let marker = serde_json::json!({"id": 4095, "content": "<image>", "special": true});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(marker);
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = "tokenizer_config.json";
    fs::copy(asset("t5-tiny").join(settings), place.path().join(settings)).unwrap();
    let t5 = LanguageModel::open(&asset("t5-tiny"), &Device::flex()).unwrap();
    reads_back_to_the_bit(model_with("eva-tiny", t5, place.path()), place.path());
}

#[test]
fn an_exported_llama_reads_back_to_the_bit() {
    let config = LlamaConfig {
        width: 16,
        depth: 2,
        heads: 4,
        key_heads: Some(2),
        intermediate: 24,
        vocab_size: 4096,
        ..LlamaConfig::default()
    };
    let mut llama = Llama::new(&config, &Device::flex()).unwrap();
    fill(&mut llama, 0.4);
    let model = model_with("eva-tiny", llama.into(), &asset("opt-tiny"));
    reads_back_to_the_bit(model, &asset("opt-tiny"));
}

#[test]
fn the_folder_has_what_a_processor_needs() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    export_blip2(&folder, &mut model("eva-tiny"), &asset("opt-tiny"), &ExportOptions::default()).unwrap();
    let json = |name: &str| crate::hf_config::read_json(&folder.join(name)).unwrap();
    let tokenizer = json("tokenizer.json");
    let marker = &json("tokenizer_config.json")["extra_special_tokens"]["image_token"];
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let id = &added.iter().find(|token| token["content"] == *marker).unwrap()["id"];
    let config = json("config.json");
    assert_eq!(config["image_token_index"], *id);
    assert_eq!(config["text_config"]["eos_token_id"], tokenizer["model"]["vocab"]["Ċ"]);
    assert_eq!(json("generation_config.json")["eos_token_id"], config["text_config"]["eos_token_id"]);
    assert_eq!(json("preprocessor_config.json")["size"]["height"], config["vision_config"]["image_size"]);
    assert_eq!(json("processor_config.json")["num_query_tokens"], config["num_query_tokens"]);
}

#[test]
fn a_failed_export_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let error = export_blip2(&folder, &mut model("eva-tiny"), &asset("eva-tiny"), &ExportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    let error = export_blip2(&folder, &mut model("clip-tiny"), &asset("opt-tiny"), &ExportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("CLIP's layout"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    fs::create_dir(&folder).unwrap();
    let error = export_blip2(&folder, &mut model("eva-tiny"), &asset("opt-tiny"), &ExportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("exists"), "{error}");
}
