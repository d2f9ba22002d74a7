//! SentencePiece tokenizers of pairs (Llama's and Vicuna's) in the format of the `tokenizers` library.

mod file;

pub(crate) use file::{FILE, tokenizer};

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// How a piece is used, with the numbers that SentencePiece and GGUF give it.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const ADDED: i64 = 4;
const BYTE: i64 = 6;

/// A token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// Pairs whose sum has a higher score are joined first.
    pub(super) score: f64,
    pub(super) kind: i64,
}

/// The tokenizer of `pieces`, which puts the token `start` in front of every text.
///
/// A text gets a space in front, as Llama's does; what no piece covers becomes bytes, where there are pieces for them.
///
/// # Errors
/// No pieces, or the same one twice.
pub(super) fn from_pieces(pieces: &[Piece<'_>], start: Option<usize>) -> Result<Value, String> {
    let vocabulary: BTreeMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.text, id)).collect();
    if pieces.is_empty() || vocabulary.len() != pieces.len() {
        return Err(format!(
            "the tokenizer has {} pieces, {} of them different",
            pieces.len(),
            vocabulary.len()
        ));
    }
    let unknown = pieces.iter().find(|piece| piece.kind == UNKNOWN).map(|piece| piece.text);
    let added: Vec<Value> = (pieces.iter().enumerate())
        .filter(|(_, piece)| matches!(piece.kind, UNKNOWN | CONTROL | ADDED))
        .map(|(id, piece)| added_token(id, piece.text, piece.kind != ADDED))
        .collect();
    let ids: Map<String, Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.text.into(), id.into())).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null,
        "post_processor": start.and_then(|id| Some(start_token(id, pieces.get(id)?.text))),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": pieces.iter().any(|piece| piece.kind == BYTE),
            "ignore_merges": false,
            "vocab": ids,
            "merges": merges(pieces, &vocabulary),
        },
    }))
}

/// The pairs of pieces that make another, those of the highest score first.
fn merges<'a>(pieces: &[Piece<'a>], vocabulary: &BTreeMap<&str, usize>) -> Vec<[&'a str; 2]> {
    let is_part = |text: &str| vocabulary.get(text).is_some_and(|id| pieces[*id].kind == NORMAL);
    let mut joined: Vec<&Piece<'_>> = pieces.iter().filter(|piece| piece.kind == NORMAL).collect();
    joined.sort_by(|a, b| b.score.total_cmp(&a.score));
    let pairs = joined.into_iter().flat_map(|piece| {
        let cuts = piece.text.char_indices().skip(1);
        cuts.map(|(at, _)| piece.text.split_at(at)).filter(|(left, right)| is_part(left) && is_part(right))
    });
    pairs.map(|(left, right)| [left, right]).collect()
}

/// A token that a text is cut at before anything else.
pub(super) fn added_token(id: usize, token: &str, special: bool) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}

/// What puts a token in front of every text.
pub(super) fn start_token(id: usize, token: &str) -> Value {
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
