//! Small stand-ins of published files and folders, in their exact layouts.

mod files;
mod instructblip;
mod sizes;

use std::path::Path;

use blip2_model::blip2::export::{ExportOptions, Precision, Retriever, export_blip2, export_retrieval};
use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::clip::Clip;
use blip2_model::language::LanguageModel;
use blip2_model::objectives::contrast::ContrastModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::{ClipVisionConfig, ClipVit, EncoderSizes, EvaConfig, EvaVit, ImageEncoder};
use blip2_model_files::image_processor::ImageProcessor;
use blip2_model_files::tokenizer::{TokenizerKind, tokenizer_json};
use blip2_model_files::weights::{InitialValues, WeightSource};
use blip2_tensors::device::read_back::floats;
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Value, json};

use files::{Tensors, asset, fill, read_json, tensors_of, write_json, write_pytorch, write_safetensors};

pub(crate) fn features(encoder: &ImageEncoder) -> Vec<f32> {
    let side = encoder.image_size();
    let pixels = Tensor::<1, Int>::arange(0..(3 * side * side) as i64, &Device::flex()).float().sin();
    floats(encoder.forward(pixels.reshape([1, 3, side, side])).unwrap()).unwrap()
}

pub(crate) fn open_encoder(path: &Path) -> ImageEncoder {
    let fit = ImageEncoder::check(path).unwrap();
    let mut encoder = ImageEncoder::open(path, Device::flex()).unwrap();
    let layout = FlatLayout::of(&mut encoder).unwrap();
    assert_eq!((fit.tensors, fit.parameters), (layout.tensors().len(), layout.len()));
    assert_eq!(ImageEncoder::width_of(path).unwrap(), encoder.width());
    encoder
}

fn assert_near(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-4, "{apart}");
}

/// LAVIS's `eva_vit_g.pth`: 40 blocks in half precision, of which the last is not used.
#[test]
fn lavis_eva_vit_g() {
    let sizes = EvaConfig {
        width: 32,
        depth: 40,
        heads: 16,
        intermediate: 24,
        image_size: 8,
        patch_size: 4,
        ..EvaConfig::default()
    };
    let mut whole = EvaVit::new(&sizes, &Device::flex());
    fill(&mut whole, 0.1);
    let mut tensors = tensors_of(&mut whole);
    tensors.insert("norm.weight".into(), (vec![32], vec![1.0; 32]));
    tensors.insert("head.bias".into(), (vec![4], vec![1.0; 4]));
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("eva_vit_g.pth");
    write_pytorch(&file, &tensors, Precision::F16);
    let encoder = open_encoder(&file);
    let EncoderSizes::Eva(read) = ImageEncoder::sizes_of(&file).unwrap() else { panic!("another layout") };
    assert_eq!(read, EvaConfig { depth: 39, ..sizes.clone() });
    // In a folder by itself, and beside a configuration of `transformers`.
    let want = features(&encoder);
    assert_eq!(features(&open_encoder(place.path())), want);
    let config = json!({"model_type": "blip_2_vision_model", "hidden_size": 32, "num_hidden_layers": 39,
        "num_attention_heads": 16, "intermediate_size": 24, "image_size": 8, "patch_size": 4});
    write_json(&place.path().join("config.json"), &config);
    assert_eq!(features(&open_encoder(place.path())), want);
    // The 39 blocks under `transformers`' names give the same.
    let mut kept = EvaVit::new(&read, &Device::flex());
    let layout = FlatLayout::of(&mut kept).unwrap();
    let half = |value: f32| half::f16::from_f32(value).to_f32();
    let flat: Vec<f32> =
        layout.tensors().iter().flat_map(|tensor| tensors[&tensor.name].1.iter().map(|v| half(*v))).collect();
    layout.write(&mut kept, &flat, &Device::flex()).unwrap();
    let key_biases_are_zero = |mut model: EvaVit| {
        let mut tensors = tensors_of(&mut model);
        for (_, (_, bias)) in tensors.iter_mut().filter(|(name, _)| name.ends_with("qkv.bias")) {
            bias[32..64].fill(0.0);
        }
        let flat: Vec<f32> = tensors.into_values().flat_map(|(_, values)| values).collect();
        layout.write(&mut model, &flat, &Device::flex()).unwrap();
        model
    };
    assert_near(&want, &features(&ImageEncoder::Eva(key_biases_are_zero(kept))));
}

/// LAVIS's `clip_vit_L.pth`: OpenAI's image tower of 24 layers with one map for queries, keys and values.
#[test]
fn lavis_clip_vit_l() {
    let sizes = ClipVisionConfig {
        width: 32,
        depth: 24,
        heads: 16,
        intermediate: 24,
        image_size: 8,
        patch_size: 4,
        ..Default::default()
    };
    let mut whole = ClipVit::new(&sizes, 24, &Device::flex()).unwrap();
    fill(&mut whole, 0.1);
    let own = tensors_of(&mut whole);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("huggingface");
    std::fs::create_dir(&folder).unwrap();
    let config = json!({"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 24, "image_size": 8, "patch_size": 4});
    write_json(&folder.join("config.json"), &config);
    let named: Tensors =
        own.iter().map(|(name, tensor)| (format!("vision_model.{name}"), tensor.clone())).collect();
    write_safetensors(&folder.join("model.safetensors"), &named);
    let want = features(&open_encoder(&folder));
    let mut openai = Tensors::new();
    let mut put = |name: String, tensor: (Vec<usize>, Vec<f32>)| openai.insert(name, tensor);
    for (from, to) in [
        ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        ("embeddings.patch_embedding.weight", "conv1.weight"),
        ("pre_layrnorm.weight", "ln_pre.weight"),
        ("pre_layrnorm.bias", "ln_pre.bias"),
    ] {
        put(to.into(), own[from].clone());
    }
    for layer in 0..24 {
        let (from, to) = (format!("encoder.layers.{layer}"), format!("transformer.resblocks.{layer}"));
        for kind in ["weight", "bias"] {
            for (part, openai) in [
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("self_attn.out_proj", "attn.out_proj"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ] {
                put(format!("{to}.{openai}.{kind}"), own[&format!("{from}.{part}.{kind}")].clone());
            }
            let maps = ["q_proj", "k_proj", "v_proj"]
                .map(|map| own[&format!("{from}.self_attn.{map}.{kind}")].clone());
            let mut shape = maps[0].0.clone();
            shape[0] *= 3;
            put(
                format!("{to}.attn.in_proj_{kind}"),
                (shape, maps.into_iter().flat_map(|(_, values)| values).collect()),
            );
        }
    }
    put("ln_post.weight".into(), (vec![32], vec![1.0; 32]));
    put("proj".into(), (vec![32, 16], vec![0.5; 512]));
    let file = place.path().join("clip_vit_L.pth");
    write_pytorch(&file, &openai, Precision::F32);
    let EncoderSizes::Clip(read) = ImageEncoder::sizes_of(&file).unwrap() else { panic!("another layout") };
    assert_eq!(read, sizes);
    assert_eq!(features(&open_encoder(&file)), want);
    // Within OpenAI's whole model, beside its text tower.
    let mut clip: Tensors =
        openai.iter().map(|(name, tensor)| (format!("visual.{name}"), tensor.clone())).collect();
    clip.insert("transformer.resblocks.0.ln_1.weight".into(), (vec![4], vec![1.0; 4]));
    let file = place.path().join("whole.safetensors");
    write_safetensors(&file, &clip);
    assert_eq!(features(&open_encoder(&file)), want);
    let half = place.path().join("half.pth");
    write_pytorch(&half, &openai, Precision::F16);
    assert_eq!(open_encoder(&half).width(), 32);
}

#[test]
fn a_file_that_is_no_encoder_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("x.safetensors");
    write_safetensors(&file, &Tensors::from([("a".into(), (vec![1], vec![0.0]))]));
    let error = ImageEncoder::open(&file, Device::flex()).unwrap_err().to_string();
    assert!(error.contains("patch_embed.proj.weight") && error.contains("conv1.weight"), "{error}");
    let absent = ImageEncoder::open(&place.path().join("none"), Device::flex()).unwrap_err().to_string();
    assert!(absent.contains("config.json"), "{absent}");
}

/// `facebook/opt-*`: some are published without `model.` in their names; a tied table may be stored by its
/// other name.
#[test]
fn facebook_opt() {
    let own = asset("opt-tiny");
    let want = LanguageModel::open(&own, Device::flex()).map(|mut model| tensors_of(&mut model)).unwrap();
    let renamed = |rename: &dyn Fn(&str) -> String| {
        let place = tempfile::tempdir().unwrap();
        std::fs::copy(own.join("config.json"), place.path().join("config.json")).unwrap();
        let tensors: Tensors = want.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect();
        write_pytorch(&place.path().join("pytorch_model.bin"), &tensors, Precision::F16);
        let mut model = LanguageModel::open(place.path(), Device::flex()).unwrap();
        assert!(tensors_of(&mut model) == want);
    };
    renamed(&|name| name.replace("model.decoder", "decoder"));
    renamed(&|name| name.replace("model.decoder.embed_tokens", "lm_head"));
    renamed(&|name| format!("module.{name}"));
}

/// `google/flan-t5-*`: `spiece.model` alone, and shards that PyTorch wrote.
#[test]
fn google_flan_t5() {
    let own = asset("t5-scenes");
    let mut model = LanguageModel::open(&own, Device::flex()).unwrap();
    // A table longer than the 400 pieces of the file below.
    model.grow_vocabulary(500);
    let tensors = tensors_of(&mut model);
    let place = tempfile::tempdir().unwrap();
    let mut config = read_json(&own.join("config.json"));
    config["vocab_size"] = model.special_tokens().vocab_size.into();
    write_json(&place.path().join("config.json"), &config);
    let names: Vec<&String> = tensors.keys().collect();
    let mut map = serde_json::Map::new();
    for (number, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("pytorch_model-0000{}-of-00002.bin", number + 1);
        let shard = part.iter().map(|name| ((*name).clone(), tensors[*name].clone())).collect();
        write_pytorch(&place.path().join(&file), &shard, Precision::F32);
        map.extend(part.iter().map(|name| ((*name).clone(), Value::from(file.clone()))));
    }
    write_json(&place.path().join("pytorch_model.bin.index.json"), &json!({"weight_map": map}));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/spiece/spiece.model");
    std::fs::copy(golden, place.path().join("spiece.model")).unwrap();
    let mut read = LanguageModel::open(place.path(), Device::flex()).unwrap();
    assert!(tensors_of(&mut read) == tensors);
    assert_eq!(TokenizerKind::of(place.path()).unwrap().0, TokenizerKind::SentencePiece);
    let tokenizer = tokenizer_json(place.path()).unwrap();
    assert_eq!(tokenizer["model"]["type"], "Unigram");
    let tokens = PromptTokens::choose(place.path(), read.special_tokens()).unwrap();
    assert_eq!(tokens.image, 400, "the first that T5 has beside its pieces");
}

/// A folder of `Blip2ForConditionalGeneration` from the small parts.
fn blip2_folder(folder: &Path) -> Blip2 {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset("eva-tiny"), &device).unwrap();
    let language_model = LanguageModel::open(&asset("opt-tiny"), &device).unwrap();
    let qformer = qformer_of(&encoder);
    let mut generate = GenerateModel::new(&qformer, 1e-6, language_model.width(), &device).unwrap();
    fill(&mut generate, 0.3);
    let tokens = PromptTokens::choose(&asset("opt-tiny"), language_model.special_tokens()).unwrap();
    let mut model = Blip2::from_parts(encoder, generate, language_model, qformer, tokens).unwrap();
    export_blip2(folder, &mut model, &asset("opt-tiny"), &ExportOptions::default()).unwrap();
    model
}

pub(crate) fn qformer_of(encoder: &ImageEncoder) -> QFormerConfig {
    QFormerConfig::new(encoder.width())
        .with_hidden(16)
        .with_layers(2)
        .with_heads(2)
        .with_intermediate(24)
        .with_vocab(40)
        .with_queries(3)
}

fn same_prompts(folder: &Path, model: &Blip2) -> Blip2 {
    let read = Blip2::open(folder, Device::flex()).unwrap();
    let side = model.encoder().image_size();
    let pixels = Tensor::<1, Int>::arange(0..(3 * side * side) as i64, &Device::flex()).float().sin();
    let pixels = pixels.reshape([1, 3, side, side]);
    let prompt = |model: &Blip2| floats(model.soft_prompt(pixels.clone()).unwrap()).unwrap();
    assert_eq!(prompt(&read), prompt(model));
    read
}

/// `Salesforce/blip2-*`: of before there was an image token, and as `transformers` 5 writes it.
#[test]
fn salesforce_blip2() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("blip2");
    let model = blip2_folder(&folder);
    let path = folder.join("config.json");
    let written = read_json(&path);
    let mut older = written.clone();
    older.as_object_mut().unwrap().remove("image_token_index");
    write_json(&path, &older);
    let read = same_prompts(&folder, &model);
    assert_eq!(read.tokens().image, model.tokens().image, "the tokenizer's `<image>`");
    let mut newer = written;
    newer["image_token_id"] = newer["image_token_index"].take();
    for field in ["bos_token_id", "word_embed_proj_dim"] {
        newer["text_config"][field] = Value::Null;
    }
    write_json(&path, &newer);
    let mut image_processor = read_json(&folder.join("preprocessor_config.json"));
    image_processor["image_mean"] = json!([0.5, 0.5, 0.5]);
    std::fs::remove_file(folder.join("preprocessor_config.json")).unwrap();
    let processor = json!({"processor_class": "Blip2Processor", "num_query_tokens": 3, "image_token": "<image>",
        "image_processor": image_processor});
    write_json(&folder.join("processor_config.json"), &processor);
    let mut read = same_prompts(&folder, &model);
    assert_eq!(read.processor().mean, [0.5; 3]);
    // What is read is written again, with its images' numbers.
    let again = place.path().join("again");
    export_blip2(&again, &mut read, &folder, &ExportOptions::default()).unwrap();
    assert_eq!(read_json(&again.join("preprocessor_config.json"))["image_mean"], json!([0.5, 0.5, 0.5]));
    // Each part by itself.
    assert_eq!(features(&open_encoder(&folder)), features(model.encoder()));
    assert_eq!(LanguageModel::open(&folder, Device::flex()).unwrap().model_type(), "opt");
}

/// `Salesforce/blip2-itm-vit-g` as an image encoder.
#[test]
fn salesforce_blip2_itm() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("itm");
    let mut encoder = ImageEncoder::open(&asset("eva-tiny"), Device::flex()).unwrap();
    let qformer = qformer_of(&encoder);
    let mut contrast = ContrastModel::new(&qformer, 8, 1e-6, &Device::flex()).unwrap();
    fill(&mut contrast, 0.3);
    let processor = ImageProcessor::blip2(encoder.image_size());
    let want = features(&encoder);
    let model = Retriever {
        encoder: &mut encoder,
        contrast: &mut contrast,
        qformer: &qformer,
        processor: &processor,
    };
    export_retrieval(&folder, model, &asset("qformer-tokenizer"), &ExportOptions::default()).unwrap();
    assert_eq!(features(&open_encoder(&folder)), want);
}

/// `openai/clip-vit-large-patch14`: the whole model, as a ranker and as an encoder; newer files leave out
/// `vision_model.`.
#[test]
fn openai_clip() {
    let own = asset("clip-tiny");
    Clip::open(&own, &Device::flex()).unwrap();
    let mut encoder = open_encoder(&own);
    let want = features(&encoder);
    let place = tempfile::tempdir().unwrap();
    let mut config = read_json(&own.join("config.json"))["vision_config"].clone();
    config["model_type"] = "clip_vision_model".into();
    write_json(&place.path().join("config.json"), &config);
    write_safetensors(&place.path().join("model.safetensors"), &tensors_of(&mut encoder));
    assert_eq!(features(&open_encoder(place.path())), want);
}

struct Zeros;

impl InitialValues for Zeros {
    fn normal(&mut self, _: &str, count: usize) -> Vec<f32> {
        vec![0.25; count]
    }
    fn uniform(&mut self, _: &str, count: usize) -> Vec<f32> {
        vec![0.25; count]
    }
}

/// `bert-base-uncased`: norms' gamma and beta, in the file of safetensors and in PyTorch's; a body without
/// its head.
#[test]
fn bert_base_uncased() {
    let own = asset("bert-tiny");
    let qformer = QFormerConfig::new(4)
        .with_hidden(128)
        .with_layers(4)
        .with_heads(4)
        .with_intermediate(512)
        .with_vocab(1793)
        .with_max_positions(64);
    let started = |path: &Path| {
        let bert = WeightSource::open_bert(path).unwrap();
        let mut model = ContrastModel::new(&qformer, 8, 1e-5, &Device::flex()).unwrap();
        model.initialise(0.07, &mut Zeros, Some(&bert), &Device::flex()).unwrap();
        tensors_of(&mut model)
    };
    let want = started(&own);
    let table = &want["Qformer.bert.embeddings.word_embeddings.weight"].1;
    assert!(table[1792 * 128..].iter().all(|value| *value == 0.25 * 0.02), "the row of `[DEC]` is new");
    let source = WeightSource::open_bert(&own).unwrap();
    let published: Tensors = source
        .tensors()
        .filter(|tensor| !tensor.name.contains("position_ids"))
        .map(|tensor| {
            let values = source.read(&tensor.name, &tensor.shape).unwrap();
            let name = tensor
                .name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
            (name, (tensor.shape, values))
        })
        .collect();
    assert!(published.keys().any(|name| name.ends_with("LayerNorm.gamma")));
    let place = tempfile::tempdir().unwrap();
    let bin = place.path().join("pytorch_model.bin");
    write_pytorch(&bin, &published, Precision::F32);
    assert!(started(place.path()) == want && started(&bin) == want);
    std::fs::remove_file(bin).unwrap();
    let body: Tensors = published
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("bert.")?.to_string(), tensor.clone())))
        .collect();
    write_safetensors(&place.path().join("model.safetensors"), &body);
    let headless = started(place.path());
    let head = "Qformer.cls.predictions.transform.dense.weight";
    assert!(headless[head].1.iter().all(|value| *value == 0.25 * 0.02));
    let layer = "Qformer.bert.encoder.layer.3.output.LayerNorm.weight";
    assert_eq!(headless[layer], want[layer]);
}
