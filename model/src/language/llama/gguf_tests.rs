//! A GGUF file written here, read back as a language model and a tokenizer.

use std::path::Path;

use burn::tensor::Device;
use half::f16;
use serde_json::json;

use crate::language::LanguageModel;
use crate::language::family::FamilyConfig;
use crate::language::llama::{Llama, LlamaConfig, RopeScaling};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::tokenizer::tokenizer_json;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::train::flat::FlatLayout;

/// The values of a GGUF file's head that the tests write.
enum Entry<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u64).to_le_bytes());
    into.extend(text.as_bytes());
}

fn put(into: &mut Vec<u8>, name: &str, entry: &Entry<'_>) {
    text(into, name);
    let mut typed = |kind: u32, bytes: &[u8]| {
        into.extend(kind.to_le_bytes());
        into.extend(bytes);
    };
    match entry {
        Entry::U32(value) => typed(4, &value.to_le_bytes()),
        Entry::F32(value) => typed(6, &value.to_le_bytes()),
        Entry::Bool(value) => typed(7, &[u8::from(*value)]),
        Entry::Text(value) => {
            typed(8, &[]);
            text(into, value);
        }
        Entry::Texts(values) => {
            typed(9, &8_u32.to_le_bytes());
            into.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| text(into, value));
        }
        Entry::Floats(values) => {
            typed(9, &6_u32.to_le_bytes());
            into.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| into.extend(value.to_le_bytes()));
        }
        Entry::Integers(values) => {
            typed(9, &5_u32.to_le_bytes());
            into.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| into.extend(value.to_le_bytes()));
        }
    }
}

/// Name, shape (slowest dimension first), ggml's type, bytes.
type Tensor = (String, Vec<usize>, u32, Vec<u8>);

fn write(path: &Path, entries: &[(&str, Entry<'_>)], tensors: &[Tensor]) {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    entries.iter().for_each(|(name, entry)| put(&mut bytes, name, entry));
    let mut start = 0_u64;
    for (name, shape, kind, data) in tensors {
        text(&mut bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        start += (data.len() as u64).next_multiple_of(32);
    }
    for (_, _, _, data) in tensors {
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
    }
    std::fs::write(path, bytes).unwrap();
}

fn sizes() -> LlamaConfig {
    LlamaConfig {
        width: 32,
        depth: 2,
        heads: 4,
        key_heads: Some(2),
        intermediate: 64,
        vocab_size: 6,
        max_position_embeddings: 24,
        rms_norm_eps: 1e-5,
        rope_theta: 50_000.0,
        tie_word_embeddings: true,
        pad_token_id: Some(2),
        ..LlamaConfig::default()
    }
}

fn entries() -> Vec<(&'static str, Entry<'static>)> {
    vec![
        ("general.architecture", Entry::Text("llama")),
        ("llama.embedding_length", Entry::U32(32)),
        ("llama.block_count", Entry::U32(2)),
        ("llama.attention.head_count", Entry::U32(4)),
        ("llama.attention.head_count_kv", Entry::U32(2)),
        ("llama.feed_forward_length", Entry::U32(64)),
        ("llama.context_length", Entry::U32(24)),
        ("llama.attention.layer_norm_rms_epsilon", Entry::F32(1e-5)),
        ("llama.rope.freq_base", Entry::F32(50_000.0)),
        ("tokenizer.ggml.model", Entry::Text("gpt2")),
        ("tokenizer.ggml.pre", Entry::Text("smollm")),
        ("tokenizer.ggml.tokens", Entry::Texts(vec!["<s>", "a", "</s>", "b", "ab", "1"])),
        ("tokenizer.ggml.token_type", Entry::Integers(vec![3, 1, 3, 1, 1, 1])),
        ("tokenizer.ggml.merges", Entry::Texts(vec!["a b"])),
        ("tokenizer.ggml.bos_token_id", Entry::U32(1)),
        ("tokenizer.ggml.eos_token_id", Entry::U32(2)),
        ("tokenizer.ggml.padding_token_id", Entry::U32(2)),
        ("tokenizer.ggml.add_bos_token", Entry::Bool(false)),
    ]
}

/// GGUF's name of a tensor of ours.
fn own_name(name: &str) -> String {
    let parts = [
        ("llm_model.model.embed_tokens.", "token_embd."),
        ("llm_model.model.norm.", "output_norm."),
        ("llm_model.model.layers.", "blk."),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("q_proj", "q"),
        ("k_proj", "k"),
        ("v_proj", "v"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.", "ffn_"),
        ("gate_proj", "gate"),
        ("up_proj", "up"),
        ("down_proj", "down"),
    ];
    parts.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to))
}

/// llama.cpp's order of a query's or key's rows: the two halves of each head alternate.
fn interleaved(values: &[f32], columns: usize, heads: usize) -> Vec<f32> {
    let width = values.len() / columns / heads;
    let mut into = Vec::new();
    for head in values.chunks(width * columns) {
        for row in 0..width {
            let from = (row % 2) * (width / 2) + row / 2;
            into.extend(&head[from * columns..][..columns]);
        }
    }
    into
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A model with arbitrary weights and the tensors of its file.
fn model() -> (Llama, FlatLayout, Vec<f32>, Vec<Tensor>) {
    let device = Device::flex();
    let mut model = Llama::new(&sizes(), &device).unwrap();
    let names = FlatLayout::of(&mut model).unwrap();
    let shapes = names.tensors().iter().map(|t| (format!("llm_model.{}", t.name), t.shape.clone())).collect();
    let layout = FlatLayout::new(shapes);
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.61).sin() * 0.4).collect();
    names.write(&mut model, &flat, &device).unwrap();
    let tensors = (layout.tensors().iter())
        .map(|tensor| {
            let values = &flat[tensor.range()];
            let values = match tensor.name.rsplit_once("self_attn.") {
                Some((_, "q_proj.weight")) => interleaved(values, 32, 4),
                Some((_, "k_proj.weight")) => interleaved(values, 32, 2),
                _ => values.to_vec(),
            };
            (own_name(&tensor.name), tensor.shape.clone(), 0, f32_bytes(&values))
        })
        .collect();
    (model, layout, flat, tensors)
}

fn with_file<T>(entries: &[(&str, Entry<'_>)], tensors: &[Tensor], run: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write(&path, entries, tensors);
    run(&path)
}

#[test]
fn a_file_is_a_language_model() {
    let (_, _, flat, tensors) = model();
    with_file(&entries(), &tensors, |path| {
        let config = LlamaConfig::read(&FolderConfig::open(path).unwrap()).unwrap();
        assert_eq!(config, sizes());
        let mut read = LanguageModel::open(path, Device::flex()).unwrap();
        let layout = FlatLayout::of(&mut read).unwrap();
        assert_eq!(layout.read(&mut read).unwrap(), flat);
    });
}

#[test]
fn quantised_blocks_become_numbers() {
    let (.., mut tensors) = model();
    let table = tensors.iter_mut().find(|tensor| tensor.0 == "token_embd.weight").unwrap();
    let mut row = f16::from_f32(0.5).to_le_bytes().to_vec();
    row.extend((0..32).map(|i| i as u8));
    (table.2, table.3) = (8, row.repeat(6));
    with_file(&entries(), &tensors, |path| {
        let source = WeightSource::open_huggingface(path).unwrap();
        let values = source.read("llm_model.model.embed_tokens.weight", &[6, 32]).unwrap();
        assert_eq!(values[32..64], (0..32).map(|i| 0.5 * i as f32).collect::<Vec<_>>());
    });
    for (kind, name) in [(2, "Q4_0"), (14, "Q6_K"), (99, "ggml 99")] {
        tensors.last_mut().unwrap().2 = kind;
        let error = with_file(&entries(), &tensors, |path| WeightSource::open_huggingface(path).unwrap_err());
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let (.., tensors) = model();
    let mut other = entries();
    other[0].1 = Entry::Text("gemma");
    let error = with_file(&other, &tensors, |path| FolderConfig::open(path).unwrap_err().to_string());
    assert!(error.contains("`gemma`"), "{error}");
    let mut scaled = entries();
    scaled.push(("llama.rope.scaling.type", Entry::Text("yarn")));
    let error = with_file(&scaled, &tensors, |path| FolderConfig::open(path).unwrap_err().to_string());
    assert!(error.contains("`yarn`"), "{error}");
    scaled.pop();
    scaled.push(("llama.rope.scaling.type", Entry::Text("linear")));
    scaled.push(("llama.rope.scaling.factor", Entry::F32(4.0)));
    let config =
        with_file(&scaled, &tensors, |path| LlamaConfig::read(&FolderConfig::open(path).unwrap()).unwrap());
    assert_eq!(config.rope_scaling, Some(RopeScaling::Linear { factor: 4.0 }));
    let mut missing = entries();
    missing.remove(2);
    let error = with_file(&missing, &tensors, |path| FolderConfig::open(path).unwrap_err().to_string());
    assert!(error.contains("`llama.block_count`"), "{error}");
    let mut biased = tensors;
    biased.push(("blk.0.attn_q.bias".into(), vec![32], 0, vec![0; 128]));
    let error = with_file(&entries(), &biased, |path| WeightSource::open_huggingface(path).unwrap_err());
    assert!(error.to_string().contains("`blk.0.attn_q.bias`"), "{error}");
    let mut words = entries();
    words[10].1 = Entry::Text("qwen2");
    let error = with_file(&words, &[], |path| tokenizer_json(path).unwrap_err().to_string());
    assert!(error.contains("`qwen2`"), "{error}");
}

#[test]
fn the_tokenizer_is_inside() {
    let read = with_file(&entries(), &[], |path| tokenizer_json(path).unwrap());
    assert_eq!(read["model"]["vocab"]["ab"], 4);
    assert_eq!(read["model"]["merges"], json!(["a b"]));
    let special: Vec<_> = (read["added_tokens"].as_array().unwrap().iter())
        .map(|token| (token["id"].as_u64().unwrap(), token["special"].as_bool().unwrap()))
        .collect();
    assert_eq!(special, [(0, true), (2, true)]);
    assert_eq!(read["pre_tokenizer"]["pretokenizers"][0]["individual_digits"], true);
    assert!(read["post_processor"].is_null());
    let mut starting = entries();
    starting[17].1 = Entry::Bool(true);
    starting[14].1 = Entry::U32(0);
    let read = with_file(&starting, &[], |path| tokenizer_json(path).unwrap());
    assert_eq!(read["post_processor"]["special_tokens"]["<s>"]["ids"], json!([0]));
}

/// Vicuna's kind of tokenizer.
fn pieces() -> Vec<(&'static str, Entry<'static>)> {
    let tokens = vec!["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "<0x0A>", "\u{2581}a", "ab"];
    vec![
        ("tokenizer.ggml.model", Entry::Text("llama")),
        ("tokenizer.ggml.tokens", Entry::Texts(tokens)),
        ("tokenizer.ggml.scores", Entry::Floats(vec![0.0, 0.0, 0.0, -3.0, -4.0, -5.0, 0.0, -2.0, -1.0])),
        ("tokenizer.ggml.token_type", Entry::Integers(vec![2, 3, 3, 1, 1, 1, 6, 1, 1])),
        ("tokenizer.ggml.bos_token_id", Entry::U32(1)),
    ]
}

#[test]
fn sentence_pieces_are_joined_by_their_scores() {
    let read = with_file(&pieces(), &[], |path| tokenizer_json(path).unwrap());
    let tokenizer: tokenizers::Tokenizer = serde_json::from_value(read).unwrap();
    let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids("ab a\n"), [1, 3, 8, 7, 6]);
    assert_eq!(tokenizer.decode(&ids("ab a\n"), true).unwrap(), "ab a\n");
}

#[test]
fn sentence_pieces_that_cannot_be_are_refused() {
    let error = |name: &'static str, entry: Entry<'static>| {
        let mut entries = pieces();
        entries.retain(|(other, _)| *other != name);
        entries.push((name, entry));
        with_file(&entries, &[], |path| tokenizer_json(path).unwrap_err().to_string())
    };
    let short = error("tokenizer.ggml.scores", Entry::Floats(vec![0.0]));
    assert!(short.contains("9 tokens with 1 scores"), "{short}");
    let prefix = error("tokenizer.ggml.add_space_prefix", Entry::Bool(false));
    assert!(prefix.contains("add_space_prefix"), "{prefix}");
    let kind = error("tokenizer.ggml.model", Entry::Text("bert"));
    assert!(kind.contains("`bert`") && kind.contains("`llama`"), "{kind}");
}
