//! A GGUF file's tokenizer as a `tokenizer.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::pairs::{ADDED, CONTROL, added_tokens, start_token, vocabulary};
use super::sentencepiece::{Piece, from_pieces};
use crate::error::ModelError;
use crate::formats::gguf::Head;

/// How Llama 3 cuts a text into words, from its published tokenizer.
const LLAMA3_WORDS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The tokenizer in the format of the `tokenizers` library.
///
/// # Errors
/// A kind of tokenizer, or a way to cut words, that is not supported, named as the file names it.
pub(super) fn tokenizer(path: &Path) -> Result<Value, ModelError> {
    let head = Head::read(path)?;
    let tokens = head.texts("tokenizer.ggml.tokens");
    let kinds = head.integers("tokenizer.ggml.token_type");
    if tokens.is_empty() || kinds.len() != tokens.len() {
        let reason = format!("{} tokens with {} types", tokens.len(), kinds.len());
        return Err(head.file.error(reason));
    }
    match head.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level_pairs(&head, &tokens, &kinds),
        Some("llama") => sentence_pieces(&head, &tokens, &kinds),
        other => {
            let found = other.unwrap_or("none");
            Err(head.file.error(format!("tokenizer `{found}` is not supported, only `gpt2` and `llama`")))
        }
    }
}

/// Llama's first tokenizer, Vicuna's.
fn sentence_pieces(head: &Head, tokens: &[&str], kinds: &[i64]) -> Result<Value, ModelError> {
    let scores = head.numbers("tokenizer.ggml.scores");
    if scores.len() != tokens.len() {
        return Err(head.file.error(format!("{} tokens with {} scores", tokens.len(), scores.len())));
    }
    if head.bool("tokenizer.ggml.add_space_prefix") == Some(false) {
        let reason =
            "tokenizer.ggml.add_space_prefix = false is not supported: use a folder with a tokenizer.json";
        return Err(head.file.error(reason));
    }
    let pieces: Vec<Piece<'_>> = (tokens.iter().zip(scores).zip(kinds))
        .map(|((text, score), kind)| Piece { text, score, kind: *kind })
        .collect();
    from_pieces(&pieces, start_id(head, true)).map_err(|reason| head.file.error(reason))
}

/// The tokenizer of GPT-2 and those after it.
fn byte_level_pairs(head: &Head, tokens: &[&str], kinds: &[i64]) -> Result<Value, ModelError> {
    let (words, ignores_merges) = pre_tokenizer(head)?;
    let vocabulary = vocabulary(tokens).map_err(|reason| head.file.error(reason))?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens, kinds, &[CONTROL, ADDED]),
        "normalizer": null,
        "pre_tokenizer": words,
        "post_processor": start_token(start_id(head, false).and_then(|id| Some((*tokens.get(id)?, id)))),
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

/// The start token's id, where the file asks for it in front of every text or, without a word of it, where
/// `otherwise`.
fn start_id(head: &Head, otherwise: bool) -> Option<usize> {
    let wanted = head.bool("tokenizer.ggml.add_bos_token").unwrap_or(otherwise);
    let id = head.integer("tokenizer.ggml.bos_token_id").filter(|_| wanted)?;
    usize::try_from(id).ok()
}
