//! What all tokenizers that join pairs have in common in the format of the `tokenizers` library.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// How a token is used, with the numbers that SentencePiece and GGUF give it.
pub(crate) const NORMAL: i64 = 1;
pub(crate) const UNKNOWN: i64 = 2;
pub(crate) const CONTROL: i64 = 3;
pub(crate) const ADDED: i64 = 4;
pub(crate) const BYTE: i64 = 6;

/// The id of each token.
///
/// # Errors
/// The same token twice.
pub(crate) fn vocabulary<'a>(tokens: &[&'a str]) -> Result<BTreeMap<&'a str, usize>, String> {
    let ids: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    if ids.len() == tokens.len() { Ok(ids) } else { Err("the tokenizer has the same token twice".into()) }
}

/// The tokens of some kinds, which a text is cut at before anything else; those that a user added are text,
/// the others are special.
pub(crate) fn added_tokens(tokens: &[&str], kinds: &[i64], of: &[i64]) -> Vec<Value> {
    let all = tokens.iter().zip(kinds).enumerate();
    all.filter(|(_, (_, kind))| of.contains(kind))
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != ADDED,
            })
        })
        .collect()
}

/// What puts the token `start`, where there is one, in front of every text: its text and its id.
pub(crate) fn start_token(start: Option<(&str, usize)>) -> Value {
    let Some((token, id)) = start else { return Value::Null };
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
