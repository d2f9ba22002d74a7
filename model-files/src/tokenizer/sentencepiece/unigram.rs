//! SentencePiece tokenizers that choose the likeliest pieces: T5's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pairs::{Piece, SPACE};
use crate::tokenizer::pairs::{ADDED, BYTE, CONTROL, UNKNOWN, added_tokens, vocabulary};

/// How texts become pieces.
#[derive(Debug)]
pub(super) struct Form<'a> {
    /// SentencePiece's table of characters and what they become; empty: they stay.
    pub(super) characters: &'a [u8],
    /// Whether spaces at the ends are removed and those between words made one.
    pub(super) single_spaces: bool,
    /// Id of the token that ends every text.
    pub(super) end: Option<usize>,
    /// Tokens `<extra_id_N>` behind the pieces; the last is number 0.
    pub(super) extra_ids: usize,
}

/// The tokenizer of `pieces`.
///
/// # Errors
/// No pieces, the same one twice, or none for what no other covers.
pub(super) fn tokenizer(pieces: &[Piece<'_>], form: &Form<'_>) -> Result<Value, String> {
    let extra: Vec<String> = (0..form.extra_ids).rev().map(|number| format!("<extra_id_{number}>")).collect();
    let mut tokens: Vec<&str> = pieces.iter().map(|piece| piece.text).collect();
    let mut kinds: Vec<i64> = pieces.iter().map(|piece| piece.kind).collect();
    let mut scores: Vec<f64> = pieces.iter().map(|piece| piece.score).collect();
    if !tokens.iter().any(|token| token.starts_with("<extra_id_")) {
        tokens.extend(extra.iter().map(String::as_str));
        kinds.resize(tokens.len(), CONTROL);
        scores.resize(tokens.len(), 0.0);
    }
    vocabulary(&tokens)?;
    let unknown = kinds.iter().position(|kind| *kind == UNKNOWN);
    let unknown = unknown.ok_or("no piece stands for what no other covers")?;
    let space = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
    let words = match form.single_spaces {
        true => json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]}),
        false => space.clone(),
    };
    let normalizer = match form.characters {
        [] => Value::Null,
        table => json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(table)}),
    };
    let table: Vec<Value> = tokens.iter().zip(scores).map(|(token, score)| json!([token, score])).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&tokens, &kinds, &[UNKNOWN, CONTROL, ADDED]),
        "normalizer": normalizer,
        "pre_tokenizer": words,
        "post_processor": end_token(form.end.and_then(|id| Some((*tokens.get(id)?, id)))),
        "decoder": space,
        "model": {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": table,
            "byte_fallback": kinds.contains(&BYTE),
        },
    }))
}

/// What puts the token `end` behind every text.
fn end_token(end: Option<(&str, usize)>) -> Value {
    let Some((token, id)) = end else { return Value::Null };
    let end = |kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, end(0)],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end(0), {"Sequence": {"id": "B", "type_id": 1}}, end(1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
