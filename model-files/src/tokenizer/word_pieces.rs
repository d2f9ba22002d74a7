//! BERT's `vocab.txt`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::settings::named_token;
use crate::error::ModelError;
use crate::read::read_file;

/// The file's name.
pub(super) const FILE: &str = "vocab.txt";

/// The special tokens, by their role in the settings.
const SPECIAL: &[(&str, &str)] = &[
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// The tokenizer of the pieces in `file`, one on each line.
///
/// # Errors
/// A file that is no text, or lacks a token that frames texts.
pub(super) fn tokenizer(file: &Path, settings: &Value) -> Result<Value, ModelError> {
    let error = |reason: String| ModelError::Config { path: file.into(), reason };
    let text = String::from_utf8(read_file(file)?).map_err(|e| error(format!("not UTF-8: {e}")))?;
    let mut vocabulary: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, token) in text.lines().enumerate() {
        vocabulary.insert(token, id);
    }
    let token = |role: usize| named_token(settings, SPECIAL[role].0).unwrap_or(SPECIAL[role].1);
    let needed = |role: usize| match vocabulary.get(token(role)) {
        Some(id) => Ok((token(role), *id)),
        None => Err(error(format!("no token `{}`: is this BERT's vocabulary?", token(role)))),
    };
    let (unknown, (start, start_id), (end, end_id)) = (needed(1)?.0, needed(2)?, needed(3)?);
    let special = (0..SPECIAL.len()).filter_map(|role| Some((*vocabulary.get(token(role))?, token(role))));
    let special: BTreeMap<usize, &str> = special.collect();
    let added: Vec<Value> = (special.iter())
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let part = |id: &str, kind: u8| json!({"SpecialToken": {"id": id, "type_id": kind}});
    let text_of = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let named = |token: &str, id: usize| json!({"id": token, "ids": [id], "tokens": [token]});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings["tokenize_chinese_chars"].as_bool().unwrap_or(true),
            "strip_accents": settings["strip_accents"].as_bool(),
            "lowercase": settings["do_lower_case"].as_bool().unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [part(start, 0), text_of("A", 0), part(end, 0)],
            "pair": [part(start, 0), text_of("A", 0), part(end, 0), text_of("B", 1), part(end, 1)],
            "special_tokens": {start: named(start, start_id), end: named(end, end_id)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}
