//! Tokenizers of pairs of pieces.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::tokenizer::pairs::{ADDED, BYTE, CONTROL, NORMAL, UNKNOWN, added_tokens, start_token, vocabulary};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// A token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a str,
    /// Pairs whose sum has a higher score are joined first.
    pub(crate) score: f64,
    pub(crate) kind: i64,
}

/// The tokenizer of `pieces`, which puts the token `start` in front of every text.
///
/// A text gets a space in front, as Llama's does; what no piece covers becomes bytes, where there are pieces
/// for them.
///
/// # Errors
/// No pieces, or the same one twice.
pub(crate) fn from_pieces(pieces: &[Piece<'_>], start: Option<usize>) -> Result<Value, String> {
    if pieces.is_empty() {
        return Err("the tokenizer has 0 pieces".into());
    }
    let tokens: Vec<&str> = pieces.iter().map(|piece| piece.text).collect();
    let kinds: Vec<i64> = pieces.iter().map(|piece| piece.kind).collect();
    let vocabulary = vocabulary(&tokens)?;
    let unknown = pieces.iter().find(|piece| piece.kind == UNKNOWN).map(|piece| piece.text);
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&tokens, &kinds, &[UNKNOWN, CONTROL, ADDED]),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null,
        "post_processor": start_token(start.and_then(|id| Some((*tokens.get(id)?, id)))),
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
            "merges": merges(pieces, &vocabulary),
            "vocab": vocabulary,
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
