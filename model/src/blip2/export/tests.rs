//! Exported models read back.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::blip2::PromptTokens;
use crate::blip2::asking::{Asking, QFormerReads};
use crate::language::LanguageModel;
use crate::language::generation::GenerateOptions;
use crate::language::llama::{Llama, LlamaConfig};
use crate::language::opt::{Opt, OptConfig};
use crate::objectives::contrast::ContrastModel;
use crate::objectives::generate::GenerateModel;
use crate::padded::Padded;
use crate::qformer::QFormerConfig;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::{Device, Int, Tensor};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// The quick start's frozen parts around a small Q-Former of arbitrary weights.
fn model(encoder: &str) -> Blip2 {
    let opt = LanguageModel::open(&asset("opt-tiny"), Device::flex()).unwrap();
    model_with(encoder, opt, &asset("opt-tiny"))
}

fn fill(model: &mut impl NamedTensors, scale: f32) {
    let layout = FlatLayout::of(model).unwrap();
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.37).sin() * scale).collect();
    layout.write(model, &flat, &Device::flex()).unwrap();
}

fn small_qformer(encoder: &ImageEncoder) -> QFormerConfig {
    QFormerConfig::new(encoder.width())
        .with_hidden(16)
        .with_layers(2)
        .with_heads(2)
        .with_intermediate(24)
        .with_vocab(40)
        .with_queries(3)
}

fn model_with(encoder: &str, language_model: LanguageModel, tokenizer: &Path) -> Blip2 {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset(encoder), &device).unwrap();
    let qformer = small_qformer(&encoder);
    let mut generate = GenerateModel::new(&qformer, 1e-6, language_model.width(), &device).unwrap();
    fill(&mut generate, 0.3);
    let tokens = PromptTokens::choose(tokenizer, language_model.special_tokens()).unwrap();
    Blip2::from_parts(encoder, generate, language_model, qformer, tokens).unwrap()
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
    let mut read = Blip2::open(&folder, Device::flex()).unwrap();
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
    // The quick start's tokenizer has no token to spare: here its last one marks images.
    let mut tokenizer =
        blip2_model_files::read::read_json(&asset("t5-scenes").join("tokenizer.json")).unwrap();
    let t5 = LanguageModel::open(&asset("t5-scenes"), Device::flex()).unwrap();
    let last = t5.special_tokens().vocab_size - 1;
    let marker = serde_json::json!({"id": last, "content": "<image>", "special": true});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(marker);
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = "tokenizer_config.json";
    fs::copy(asset("t5-scenes").join(settings), place.path().join(settings)).unwrap();
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

/// The same parts around a Q-Former that reads questions.
fn asking_model(language_model: LanguageModel, tokenizer: &Path) -> Blip2 {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset("eva-tiny"), &device).unwrap();
    let qformer = small_qformer(&encoder).with_vocab(4096);
    let width = language_model.width();
    let mut generate = GenerateModel::reading_questions(&qformer, 1e-6, width, &device).unwrap();
    fill(&mut generate, 0.3);
    let tokens = PromptTokens::choose_or_add(tokenizer, language_model.special_tokens()).unwrap();
    let mut language_model = language_model;
    language_model.grow_vocabulary(tokens.image as usize + 1);
    let asking = Asking { prompt: "Q: {} A:".into(), qformer: QFormerReads::Question };
    let model = Blip2::from_parts(encoder, generate, language_model, qformer, tokens).unwrap();
    model.with_asking(asking)
}

#[test]
fn a_model_that_reads_questions_reads_back_to_the_bit_as_instructblip() {
    let device = Device::flex();
    let llama = LlamaConfig {
        width: 16,
        depth: 2,
        heads: 4,
        key_heads: Some(2),
        intermediate: 24,
        vocab_size: 4096,
        ..LlamaConfig::default()
    };
    let mut llama = Llama::new(&llama, &device).unwrap();
    fill(&mut llama, 0.4);
    let open = |name: &str| LanguageModel::open(&asset(name), &device).unwrap();
    for (language, tokenizer) in
        [(open("opt-tiny"), "opt-tiny"), (open("t5-scenes"), "t5-scenes"), (llama.into(), "opt-tiny")]
    {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("model");
        let tokenizers = Tokenizers { language: &asset(tokenizer), qformer: &asset("qformer-tokenizer") };
        let mut model = asking_model(language, tokenizers.language);
        let options = ExportOptions { shard_bytes: 400_000, ..ExportOptions::default() };
        let error = export_blip2(&folder, &mut model, tokenizers.language, &options).unwrap_err();
        assert!(error.to_string().contains("reads questions"), "{error}");
        export_instructblip(&folder, &mut model, tokenizers, &options).unwrap();
        let mut read = Blip2::open(&folder, &device).unwrap();
        assert_eq!((read.asking(), read.tokens()), (model.asking(), model.tokens()));
        assert_eq!(read.qformer_config(), model.qformer_config());
        let layout = FlatLayout::of(&mut model).unwrap();
        assert_eq!(FlatLayout::of(&mut read).unwrap(), layout);
        let (want, got) = (layout.read(&mut model).unwrap(), layout.read(&mut read).unwrap());
        assert!(want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()));
        let options =
            GenerateOptions { max_new_tokens: 5, eos: model.tokens().eos.clone(), ..Default::default() };
        let written = |model: &Blip2, ids: &[i32]| {
            let features = model.encoder().forward(pixels(model)).unwrap();
            let soft = model.soft_prompt_asked(features, Padded { ids, mask: &[1; 8] }).unwrap();
            let prompts = [vec![40, 50], vec![model.tokens().bos, 40]];
            let written = model.generate_from(soft.clone(), &prompts, &options, &|_| false).unwrap();
            (floats(soft).unwrap(), written)
        };
        let asked = written(&model, &[2, 7, 9, 3, 2, 8, 30, 3]);
        assert_eq!(written(&read, &[2, 7, 9, 3, 2, 8, 30, 3]), asked);
        assert_ne!(written(&read, &[2, 7, 11, 3, 2, 8, 30, 3]).0, asked.0, "another question");
        let source = WeightSource::open_huggingface(&folder).unwrap();
        for table in ["word_embeddings.weight", "position_embeddings.weight", "layernorm.bias"] {
            assert!(source.names().any(|name| name == format!("qformer.embeddings.{table}")), "{table}");
        }
        assert!(folder.join("qformer_tokenizer/tokenizer.json").is_file());
        let json = |name: &str| blip2_model_files::read::read_json(&folder.join(name)).unwrap();
        assert_eq!(json("processor_config.json")["processor_class"], "InstructBlipProcessor");
        assert_eq!(json("config.json")["architectures"][0], "InstructBlipForConditionalGeneration");
        assert!(folder.join("model.safetensors.index.json").is_file(), "in shards");
    }
}

#[test]
fn a_prompt_without_a_place_for_the_question_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let tokenizers = Tokenizers { language: &asset("opt-tiny"), qformer: &asset("qformer-tokenizer") };
    let opt = LanguageModel::open(&asset("opt-tiny"), Device::flex()).unwrap();
    let model = asking_model(opt, tokenizers.language);
    let asking = Asking { prompt: "Answer:".into(), ..model.asking().clone() };
    let mut model = model.with_asking(asking);
    export_instructblip(&folder, &mut model, tokenizers, &ExportOptions::default()).unwrap();
    let error = Blip2::open(&folder, Device::flex()).unwrap_err().to_string();
    assert!(error.contains("question_prompt"), "{error}");
}

#[test]
fn the_folder_has_what_a_processor_needs() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    export_blip2(&folder, &mut model("eva-tiny"), &asset("opt-tiny"), &ExportOptions::default()).unwrap();
    let json = |name: &str| blip2_model_files::read::read_json(&folder.join(name)).unwrap();
    let tokenizer = json("tokenizer.json");
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let id = &added.iter().find(|token| token["content"] == "<image>").unwrap()["id"];
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
    let narrow = OptConfig {
        width: 8,
        embed_width: Some(4),
        pre_norm: false,
        depth: 1,
        heads: 2,
        vocab_size: 4096,
        ..Default::default()
    };
    let narrow = Opt::new(&narrow, &Device::flex()).unwrap();
    let mut narrow = model_with("eva-tiny", narrow.into(), &asset("opt-tiny"));
    let error = export_blip2(&folder, &mut narrow, &asset("opt-tiny"), &ExportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("4 wide") && error.contains("lavis"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    fs::create_dir(&folder).unwrap();
    let error = export_blip2(&folder, &mut model("eva-tiny"), &asset("opt-tiny"), &ExportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("exists"), "{error}");
}

fn contrast_for(encoder: &ImageEncoder) -> (ContrastModel, QFormerConfig) {
    let qformer = small_qformer(encoder);
    let mut contrast = ContrastModel::new(&qformer, 8, 1e-6, &Device::flex()).unwrap();
    fill(&mut contrast, 0.3);
    (contrast, qformer)
}

fn processor_for(encoder: &ImageEncoder) -> ImageProcessor {
    ImageProcessor::blip2(encoder.image_size())
}

/// Every tensor's values by name, as the source has them.
fn read_as(layout: &FlatLayout, source: &WeightSource) -> Vec<(String, Vec<u32>)> {
    let read = |name: &str, shape: &[usize]| source.read(name, shape).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    (layout.tensors().iter())
        .filter(|tensor| source.contains(&tensor.name))
        .map(|tensor| (tensor.name.clone(), bits(read(&tensor.name, &tensor.shape))))
        .collect()
}

fn values_of(model: &mut impl NamedTensors) -> (FlatLayout, Vec<(String, Vec<u32>)>) {
    let layout = FlatLayout::of(model).unwrap();
    let flat = layout.read(model).unwrap();
    let bits = |tensor: &blip2_tensors::train::flat::FlatTensor| {
        flat[tensor.range()].iter().map(|v| v.to_bits()).collect()
    };
    let values = layout.tensors().iter().map(|tensor| (tensor.name.clone(), bits(tensor))).collect();
    (layout, values)
}

#[test]
fn a_retrieval_folder_holds_every_tensor_but_those_of_training() {
    let mut encoder = ImageEncoder::open(&asset("eva-tiny"), Device::flex()).unwrap();
    let (mut contrast, qformer) = contrast_for(&encoder);
    let processor = processor_for(&encoder);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let model = Retriever {
        encoder: &mut encoder,
        contrast: &mut contrast,
        qformer: &qformer,
        processor: &processor,
    };
    export_retrieval(&folder, model, &asset("qformer-tokenizer"), &ExportOptions::default()).unwrap();
    let mut model = Retriever {
        encoder: &mut encoder,
        contrast: &mut contrast,
        qformer: &qformer,
        processor: &processor,
    };
    let (layout, mut want) = values_of(&mut model);
    let source = WeightSource::open_published(&folder).unwrap();
    assert!(!source.is_lavis());
    want.retain(|(name, _)| !NOT_IN_RETRIEVAL.iter().any(|dropped| name.starts_with(dropped)));
    assert!(read_as(&layout, &source) == want);
    let names: Vec<String> = layout.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    source.check_unused(&names, &[]).unwrap();
    let config = blip2_model_files::read::read_json(&folder.join("config.json")).unwrap();
    let tokenizer = blip2_model_files::read::read_json(&folder.join("tokenizer.json")).unwrap();
    let image = tokenizer["added_tokens"].as_array().unwrap().iter().find(|t| t["content"] == "<image>");
    assert_eq!(image.unwrap()["id"], config["image_token_index"]);
    assert_eq!(config["qformer_config"]["use_qformer_text_input"], true);
    assert_eq!(config["image_text_hidden_size"], 8);
}

#[test]
fn lavis_files_read_back_to_the_bit_but_for_the_key_bias() {
    let mut encoder = ImageEncoder::open(&asset("eva-tiny"), Device::flex()).unwrap();
    let ImageEncoder::Eva(eva) = &mut encoder else { panic!("eva-tiny has another layout") };
    fill(eva, 0.2);
    let (mut contrast, qformer) = contrast_for(&encoder);
    let processor = processor_for(&encoder);
    let mut model = Retriever {
        encoder: &mut encoder,
        contrast: &mut contrast,
        qformer: &qformer,
        processor: &processor,
    };
    let (layout, mut want) = values_of(&mut model);
    for (_, bias) in want.iter_mut().filter(|(name, _)| name.ends_with("attn.qkv.bias")) {
        let third = bias.len() / 3;
        bias[third..2 * third].fill(0);
    }
    let place = tempfile::tempdir().unwrap();
    for name in ["a.pth", "a.safetensors"] {
        let file = place.path().join(name);
        export_lavis(&file, &mut model, Some("opt_model"), Precision::F32).unwrap();
        let source = WeightSource::open_published(&file).unwrap();
        assert!(source.is_lavis());
        assert!(read_as(&layout, &source) == want, "{name}");
        assert_eq!(source.shape("temp"), Some(&[][..]));
        assert!(source.names().any(|name| name == "visual_encoder.blocks.0.attn.q_bias"));
        let error =
            export_lavis(&file, &mut model, Some("opt_model"), Precision::F32).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
    }
    let error = export_lavis(&place.path().join("a.bin"), &mut model, Some("opt_model"), Precision::F32);
    assert!(error.unwrap_err().to_string().contains(".pth or .safetensors"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing half-written");
}

#[test]
fn rounded_weights_read_back_to_the_bit_when_written_again() {
    let place = tempfile::tempdir().unwrap();
    let options = ExportOptions { precision: Precision::Bf16, shard_bytes: 60_000 };
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    export_blip2(&first, &mut model("eva-tiny"), &asset("opt-tiny"), &options).unwrap();
    let mut read = Blip2::open(&first, Device::flex()).unwrap();
    export_blip2(&second, &mut read, &first, &options).unwrap();
    let config = blip2_model_files::read::read_json(&first.join("config.json")).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
    let mut names: Vec<_> = fs::read_dir(&first).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(names.len() > 8, "several shards: {names:?}");
    for name in names {
        let (a, b) = (fs::read(first.join(&name)).unwrap(), fs::read(second.join(&name)).unwrap());
        assert!(a == b, "{name:?} differs");
    }
}

#[test]
fn a_tokenizer_without_a_spare_token_gets_one() {
    let (tokenizer, device) = (asset("t5-scenes"), Device::flex());
    let mut t5 = LanguageModel::open(&tokenizer, &device).unwrap();
    let before = t5.special_tokens().vocab_size;
    assert!(PromptTokens::choose(&tokenizer, t5.special_tokens()).is_err());
    let tokens = PromptTokens::choose_or_add(&tokenizer, t5.special_tokens()).unwrap();
    assert_eq!(tokens.image as usize, before);
    t5.grow_vocabulary(tokens.image as usize + 1);
    assert_eq!(t5.special_tokens().vocab_size, (before + 1).next_multiple_of(64));
    let encoder = ImageEncoder::open(&asset("eva-tiny"), &device).unwrap();
    let qformer = QFormerConfig::new(encoder.width()).with_hidden(16).with_layers(2).with_heads(2);
    let qformer = qformer.with_intermediate(24).with_vocab(40).with_queries(3);
    let mut generate = GenerateModel::new(&qformer, 1e-6, t5.width(), &device).unwrap();
    fill(&mut generate, 0.3);
    let model = Blip2::from_parts(encoder, generate, t5, qformer, tokens).unwrap();
    reads_back_to_the_bit(model, &tokenizer);
}
