//! A GGUF file's tokenizer as a `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::metadata::Head;
use crate::ModelError;

/// The kinds of token that no text is cut into: control tokens, and those that a user added.
const CONTROL: i64 = 3;
const ADDED: i64 = 4;

/// How Llama 3 cuts a text into words, from its published tokenizer.
const LLAMA3_WORDS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The tokenizer in the format of the `tokenizers` library.
///
/// # Errors
/// A kind of tokenizer, or a way to cut words, that is not supported, named as the file names it.
pub(crate) fn tokenizer(path: &Path) -> Result<Value, ModelError> {
    let head = Head::read(path)?;
    match head.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        other => {
            let found = other.unwrap_or("none");
            return Err(head.file.error(format!("tokenizer `{found}` is not supported, only `gpt2`")));
        }
    }
    let words = pre_tokenizer(&head)?;
    let tokens = head.texts("tokenizer.ggml.tokens");
    let kinds = head.integers("tokenizer.ggml.token_type");
    if tokens.is_empty() || kinds.len() != tokens.len() {
        let reason = format!("{} tokens with {} types", tokens.len(), kinds.len());
        return Err(head.file.error(reason));
    }
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), id.into())).collect();
    if vocabulary.len() != tokens.len() {
        return Err(head.file.error("the tokenizer has the same token twice"));
    }
    let added: Vec<Value> = (tokens.iter().zip(&kinds).enumerate())
        .filter(|(_, (_, kind))| matches!(**kind, CONTROL | ADDED))
        .map(|(id, (token, kind))| added_token(id, token, *kind == CONTROL))
        .collect();
    let (words, ignores_merges) = words;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": words,
        "post_processor": start_token(&head, &tokens),
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": ignores_merges,
            "vocab": vocabulary,
            "merges": head.texts("tokenizer.ggml.merges"),
        },
    }))
}

fn added_token(id: usize, token: &str, special: bool) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}

fn byte_level(cuts_words: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts_words})
}

fn sequence(first: Value, then: Value) -> Value {
    json!({"type": "Sequence", "pretokenizers": [first, then]})
}

/// How texts are cut into words, and whether a word that is a token is taken whole.
fn pre_tokenizer(head: &Head) -> Result<(Value, bool), ModelError> {
    Ok(match head.text("tokenizer.ggml.pre") {
        Some("gpt-2") => (byte_level(true), false),
        Some("smollm") => {
            (sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true)), false)
        }
        Some("llama-bpe") => {
            let split = json!({
                "type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated", "invert": false,
            });
            (sequence(split, byte_level(false)), true)
        }
        other => {
            let found = other.unwrap_or("none");
            let reason = format!(
                "words are cut by `{found}`, which is not supported: use gpt-2, smollm or llama-bpe, or a \
                 folder with a tokenizer.json"
            );
            return Err(head.file.error(reason));
        }
    })
}

/// What puts the start token in front of every text, where the file asks for it.
fn start_token(head: &Head, tokens: &[&str]) -> Value {
    let id = head.integer("tokenizer.ggml.bos_token_id").and_then(|id| usize::try_from(id).ok());
    let token = id.and_then(|id| tokens.get(id));
    match (head.bool("tokenizer.ggml.add_bos_token"), id, token) {
        (Some(true), Some(id), Some(token)) => json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {*token: {"id": token, "ids": [id], "tokens": [token]}},
        }),
        _ => Value::Null,
    }
}
