//! InstructBLIP, whose Q-Former reads what is asked.

use std::path::Path;

use blip2_model::blip2::asking::Asking;
use blip2_model::blip2::export::{ExportOptions, Tokenizers, export_instructblip};
use blip2_model::blip2::{Blip2, PromptTokens, PublishedQFormer};
use blip2_model::language::LanguageModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::weights::WeightSource;
use burn::tensor::Device;

use crate::files::{asset, fill, read_json, tensors_in, write_json, write_safetensors};
use crate::{features, open_encoder, qformer_of};

/// A folder of `InstructBlipForConditionalGeneration` from the small parts.
fn instructblip_folder(folder: &Path) -> Blip2 {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset("eva-tiny"), &device).unwrap();
    let language_model = LanguageModel::open(&asset("opt-tiny"), &device).unwrap();
    let (qformer, width) = (qformer_of(&encoder), language_model.width());
    let mut generate = GenerateModel::reading_questions(&qformer, 1e-6, width, &device).unwrap();
    fill(&mut generate, 0.3);
    let tokens = PromptTokens::choose(&asset("opt-tiny"), language_model.special_tokens()).unwrap();
    let mut model = Blip2::from_parts(encoder, generate, language_model, qformer, tokens).unwrap();
    let tokenizers = Tokenizers { language: &asset("opt-tiny"), qformer: &asset("qformer-tokenizer") };
    export_instructblip(folder, &mut model, tokenizers, &ExportOptions::default()).unwrap();
    model
}

/// `Salesforce/instructblip-*`: the Q-Former has tables and text parts, and its tokenizer a folder of its
/// own.
#[test]
fn salesforce_instructblip() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("instructblip");
    let model = instructblip_folder(&folder);
    // Published ones say neither which token marks images nor how they were asked.
    let path = folder.join("config.json");
    let mut config = read_json(&path);
    let fields = config.as_object_mut().unwrap();
    for added in ["image_token_index", "question_prompt", "qformer_reads"] {
        assert!(fields.remove(added).is_some(), "{added}");
    }
    write_json(&path, &config);
    let weights = folder.join("model.safetensors");
    let tensors = tensors_in(&weights);
    assert_eq!(features(&open_encoder(&folder)), features(model.encoder()));
    let language_model = LanguageModel::open(&folder, Device::flex()).unwrap();
    assert_eq!(language_model.width(), model.language_model().width());
    let published = PublishedQFormer::of_folder(&folder).unwrap().unwrap();
    assert_eq!((published.config.queries, published.config.hidden), (3, 16));
    let source = WeightSource::open_published(&folder).unwrap();
    let name = "Qformer.bert.embeddings.LayerNorm.weight";
    assert_eq!(source.read(name, &[16]).unwrap(), tensors["qformer.embeddings.layernorm.weight"].1);
    let whole = Blip2::open(&folder, Device::flex()).unwrap();
    assert!(whole.reads_questions());
    assert_eq!(whole.asking(), &Asking::published(false));
    assert_eq!(whole.tokens().image, model.tokens().image);
    let missing = "qformer.embeddings.position_embeddings.weight";
    let mut tensors = tensors;
    tensors.remove(missing).unwrap();
    std::fs::remove_file(&weights).unwrap();
    write_safetensors(&weights, &tensors);
    let error = Blip2::open(&folder, Device::flex()).unwrap_err().to_string();
    assert!(error.contains(missing), "{error}");
}
