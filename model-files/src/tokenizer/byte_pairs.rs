//! `vocab.json` with `merges.txt`: OPT's and GPT-2's pairs of bytes, CLIP's pairs within words.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::pairs::start_token;
use super::settings::named_token;
use crate::error::ModelError;
use crate::read::{read_file, read_json};

/// The files' names.
pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

/// OPT's start token, which its tokenizer puts in front of every text.
const OPT_START: &str = "</s>";

/// The end of a word in CLIP's vocabulary.
const WORD_END: &str = "</w>";

/// How CLIP cuts a text into words, from its published tokenizer.
const CLIP_WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Tokens that are special wherever they are, where the settings name none.
const SPECIAL: &[&str] = &["<s>", "<pad>", "</s>", "<unk>", "<|startoftext|>", "<|endoftext|>"];

/// The tokenizer of a folder with both files.
///
/// # Errors
/// Files that are not what their names say.
pub(super) fn tokenizer(folder: &Path, settings: &Value) -> Result<Value, ModelError> {
    let own = identifiers(&folder.join(VOCABULARY))?;
    let merges = merges(&folder.join(MERGES))?;
    let beside = folder.join("added_tokens.json");
    let beside = if beside.is_file() { identifiers(&beside)? } else { BTreeMap::new() };
    let mut vocabulary = own.clone();
    vocabulary.extend(beside.clone());
    let of_clip = own.keys().any(|token| token.ends_with(WORD_END));
    let added = added(&vocabulary, &beside, settings);
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": if of_clip { WORD_END } else { "" },
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": own,
        "merges": merges,
    });
    let frame = if of_clip { clip_frame(&vocabulary, settings) } else { byte_frame(&vocabulary, settings) };
    let Frame { normalizer, words, post_processor } = frame;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": words,
        "post_processor": post_processor,
        "decoder": byte_level(false, true),
        "model": model,
    }))
}

/// What happens around the pairs.
struct Frame {
    normalizer: Value,
    words: Value,
    post_processor: Value,
}

/// OPT's, GPT-2's: every byte is kept.
fn byte_frame(vocabulary: &BTreeMap<String, u64>, settings: &Value) -> Frame {
    let start = named_token(settings, "bos_token").or_else(|| {
        let of_opt = vocabulary.contains_key("<pad>") && vocabulary.contains_key(OPT_START);
        of_opt.then_some(OPT_START)
    });
    let starts = settings["add_bos_token"].as_bool().unwrap_or(start == Some(OPT_START));
    let start = start.filter(|_| starts).and_then(|token| Some((token, *vocabulary.get(token)?)));
    let tokens = start.map(|(token, id)| (token, id as usize));
    Frame {
        normalizer: Value::Null,
        words: byte_level(settings["add_prefix_space"].as_bool().unwrap_or(false), true),
        post_processor: start_token(tokens),
    }
}

/// CLIP's: lower case, and a text between its start and end token.
fn clip_frame(vocabulary: &BTreeMap<String, u64>, settings: &Value) -> Frame {
    let token = |role: &str, otherwise: &'static str| {
        let token = named_token(settings, role).unwrap_or(otherwise).to_string();
        vocabulary.get(&token).map(|id| json!([token, id]))
    };
    let ends = (token("bos_token", "<|startoftext|>"), token("eos_token", "<|endoftext|>"));
    let post_processor = match ends {
        (Some(start), Some(end)) => json!({
            "type": "RobertaProcessing", "sep": end, "cls": start, "trim_offsets": false, "add_prefix_space": false,
        }),
        _ => Value::Null,
    };
    Frame {
        normalizer: json!({"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]}),
        words: json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CLIP_WORDS}, "behavior": "Removed", "invert": true},
            byte_level(false, true),
        ]}),
        post_processor,
    }
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex,
    })
}

/// A table of tokens and ids.
fn identifiers(path: &Path) -> Result<BTreeMap<String, u64>, ModelError> {
    serde_json::from_value(read_json(path)?).map_err(|e| ModelError::Config {
        path: path.into(),
        reason: format!("no table of tokens and ids: {e}"),
    })
}

/// The pairs, one on each line, behind a first line with the version.
fn merges(path: &Path) -> Result<Vec<[String; 2]>, ModelError> {
    let error = |reason: String| ModelError::Config { path: path.into(), reason };
    let text = String::from_utf8(read_file(path)?).map_err(|e| error(format!("not UTF-8: {e}")))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) => pairs.push([left.to_string(), right.trim_end().to_string()]),
            None => return Err(error(format!("line {}: no pair of tokens: {line:?}", number + 1))),
        }
    }
    Ok(pairs)
}

/// The special tokens, those of `added_tokens.json` among them, in the order of their ids.
fn added(vocabulary: &BTreeMap<String, u64>, beside: &BTreeMap<String, u64>, settings: &Value) -> Vec<Value> {
    let roles = ["bos_token", "eos_token", "unk_token", "pad_token"];
    let mut names: Vec<&str> = roles.iter().filter_map(|role| named_token(settings, role)).collect();
    if names.is_empty() {
        names.extend(SPECIAL);
    }
    let more = settings["additional_special_tokens"].as_array().into_iter().flatten();
    names.extend(more.filter_map(|token| token.as_str().or_else(|| token["content"].as_str())));
    let decoded = settings["added_tokens_decoder"].as_object().into_iter().flatten();
    names.extend(decoded.filter_map(|(_, token)| token["content"].as_str()));
    names.extend(beside.keys().map(String::as_str));
    let ids: BTreeMap<u64, &str> =
        names.iter().filter_map(|name| Some((*vocabulary.get(*name)?, *name))).collect();
    ids.iter()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect()
}
