//! A GGUF file's Llama under `transformers`' names, shapes and settings.

use std::path::Path;

use serde_json::{Value, json};

use super::metadata::{Head, TensorInfo};
use crate::error::ModelError;
use crate::formats::container::{Container, Place, Stored};
use crate::formats::encoding::Encoding;

/// Names outside and inside the layers: GGUF's, and those of `LlamaForCausalLM`.
const NAMES: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
const LAYER_NAMES: &[(&str, &str)] = &[
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
];

/// Rotations slowed by a table, which no `config.json` can say.
const SCALED_ROTATIONS: &str = "rope_freqs.weight";

/// The fields of `config.json` and the metadata that they are read from, below `llama.`.
const SIZES: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("intermediate_size", "feed_forward_length"),
    ("max_position_embeddings", "context_length"),
];

/// The settings of the file as a `config.json`.
///
/// # Errors
/// Another architecture than Llama, a size that is missing, or rotations that are slowed otherwise than by
/// one factor.
pub(crate) fn config(path: &Path) -> Result<Value, ModelError> {
    let head = Head::read(path)?;
    check(&head)?;
    let mut config = json!({
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": vocabulary(&head)?,
        "tie_word_embeddings": !head.tensors.iter().any(|tensor| tensor.name == "output.weight"),
    });
    for (field, name) in SIZES {
        config[*field] = size(&head, name)?.into();
    }
    if let Some(heads) = head.integer("llama.attention.head_count_kv") {
        config["num_key_value_heads"] = heads.into();
    }
    if let Some(width) = head.integer("llama.attention.key_length") {
        config["head_dim"] = width.into();
    }
    // Epsilons are written in single precision: the shortest text of it is the number that was meant.
    if let Some(epsilon) = head.number("llama.attention.layer_norm_rms_epsilon") {
        config["rms_norm_eps"] = shortest(epsilon).into();
    }
    if let Some(base) = head.number("llama.rope.freq_base") {
        config["rope_theta"] = shortest(base).into();
    }
    if head.text("llama.rope.scaling.type") == Some("linear") {
        let factor = head.number("llama.rope.scaling.factor").map(shortest);
        config["rope_scaling"] = json!({"rope_type": "linear", "factor": factor});
    }
    for token in ["bos", "eos"] {
        let name = format!("tokenizer.ggml.{token}_token_id");
        if let Some(id) = head.integer(&name) {
            config[format!("{token}_token_id")] = id.into();
        }
    }
    if let Some(id) = head.integer("tokenizer.ggml.padding_token_id") {
        config["pad_token_id"] = id.into();
    }
    Ok(config)
}

fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

fn check(head: &Head) -> Result<(), ModelError> {
    match head.text("general.architecture") {
        Some("llama") => {}
        other => {
            let found = other.unwrap_or("none");
            return Err(head.file.error(format!("architecture `{found}` is not supported, only `llama`")));
        }
    }
    let scaling = head.text("llama.rope.scaling.type").filter(|kind| !matches!(*kind, "none" | "linear"));
    if scaling.is_some() || head.tensors.iter().any(|tensor| tensor.name == SCALED_ROTATIONS) {
        let kind = scaling.unwrap_or(SCALED_ROTATIONS);
        let reason = format!(
            "rotations slowed by `{kind}` are not supported, only by `linear`: use the model's folder"
        );
        return Err(head.file.error(reason));
    }
    Ok(())
}

fn size(head: &Head, name: &str) -> Result<i64, ModelError> {
    let name = format!("llama.{name}");
    let value = head.integer(&name).filter(|value| *value > 0);
    value.ok_or_else(|| head.file.error(format!("the metadata has no integer `{name}` above 0")))
}

/// The token table's rows.
fn vocabulary(head: &Head) -> Result<usize, ModelError> {
    let table = head.tensors.iter().find(|tensor| tensor.name == NAMES[0].0);
    let rows = table.and_then(|table| table.shape.first().copied());
    rows.ok_or_else(|| head.file.error(format!("there is no tensor `{}`", NAMES[0].0)))
}

/// The tensors under `LlamaForCausalLM`'s names.
///
/// # Errors
/// A tensor that Llama does not have, or one that ends beyond the file.
pub(crate) fn tensors(path: &Path) -> Result<Container, ModelError> {
    let head = Head::read(path)?;
    check(&head)?;
    let heads = size(&head, "attention.head_count")?;
    let key_heads = head.integer("llama.attention.head_count_kv").unwrap_or(heads);
    let mut container = Container::default();
    for tensor in &head.tensors {
        let name = published(&tensor.name).ok_or_else(|| {
            head.file.error(format!("tensor `{}` is none of a Llama without biases", tensor.name))
        })?;
        let mut stored = stored(&head, tensor)?;
        let heads = match tensor.name.rsplit_once("attn_") {
            Some((_, "q.weight")) => heads,
            Some((_, "k.weight")) => key_heads,
            _ => 0,
        };
        if let (1.., Place::File { file, start }) = (heads, &stored.place) {
            check_heads(&head, tensor, heads as usize)?;
            stored.place = Place::Interleaved { file: file.clone(), start: *start, heads: heads as usize };
        }
        container.add(name, stored);
    }
    Ok(container)
}

fn stored(head: &Head, tensor: &TensorInfo) -> Result<Stored, ModelError> {
    let encoding = encoding(tensor.kind);
    if let Encoding::Other(kind) = &encoding {
        let reason = format!(
            "tensor `{}` is of type {kind}; F32, F16, BF16, Q8_0 and Q4_1 are supported",
            tensor.name
        );
        return Err(head.file.error(reason));
    }
    Stored::in_file(&tensor.name, tensor.shape.clone(), encoding, &head.file, tensor.start, None)
}

fn check_heads(head: &Head, tensor: &TensorInfo, heads: usize) -> Result<(), ModelError> {
    match tensor.shape[..] {
        [rows, _] if rows.is_multiple_of(2 * heads) => Ok(()),
        _ => {
            let (name, shape) = (&tensor.name, &tensor.shape);
            Err(head.file.error(format!("tensor `{name}` of shape {shape:?} is not made of {heads} heads")))
        }
    }
}

/// `transformers`' name of a tensor.
fn published(name: &str) -> Option<String> {
    if let Some((_, published)) = NAMES.iter().find(|(own, _)| *own == name) {
        return Some((*published).to_string());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, published) = LAYER_NAMES.iter().find(|(own, _)| *own == part)?;
    Some(format!("model.layers.{layer}.{published}"))
}

/// ggml's numbers of types.
fn encoding(kind: u32) -> Encoding {
    const OTHERS: &[(u32, &str)] = &[
        (2, "Q4_0"),
        (6, "Q5_0"),
        (7, "Q5_1"),
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (12, "Q4_K"),
        (13, "Q5_K"),
        (14, "Q6_K"),
        (15, "Q8_K"),
    ];
    match kind {
        0 => Encoding::F32,
        1 => Encoding::F16,
        3 => Encoding::Q4_1,
        8 => Encoding::Q8_0,
        30 => Encoding::Bf16,
        other => {
            let known = OTHERS.iter().find(|(number, _)| *number == other).map(|(_, name)| *name);
            Encoding::Other(known.map_or_else(|| format!("ggml {other}"), str::to_string))
        }
    }
}
