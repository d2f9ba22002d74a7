//! What all tokenizers that join pairs have in common in the format of the `tokenizers` library.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// How a token is used, with the numbers that SentencePiece and GGUF give it.
pub(super) const NORMAL: i64 = 1;
pub(super) const UNKNOWN: i64 = 2;
pub(super) const CONTROL: i64 = 3;
pub(super) const ADDED: i64 = 4;
pub(super) const BYTE: i64 = 6;

/// The id of each token.
///
/// # Errors
/// The same token twice.
pub(super) fn vocabulary<'a>(tokens: &[&'a str]) -> Result<BTreeMap<&'a str, usize>, String> {
    let ids: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    if ids.len() == tokens.len() { Ok(ids) } else { Err("the tokenizer has the same token twice".into()) }
}

/// The tokens of some kinds, which a text is cut at before anything else; those that a user added are text, the others are
/// special.
pub(super) fn added_tokens(tokens: &[&str], kinds: &[i64], of: &[i64]) -> Vec<Value> {
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

/// What puts the token `start`, where there is one, in front of every text.
pub(super) fn start_token(tokens: &[&str], start: Option<usize>) -> Value {
    let Some((id, token)) = start.and_then(|id| Some((id, *tokens.get(id)?))) else { return Value::Null };
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
