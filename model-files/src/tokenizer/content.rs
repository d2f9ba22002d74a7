//! The content of `tokenizer.json`, or what stands for it in other files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::settings::settings;
use super::{byte_pairs, gguf, sentencepiece, word_pieces};
use crate::config::FolderConfig;
use crate::error::ModelError;
use crate::formats::is_gguf;
use crate::read::{read_file, read_json};

pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";

/// Names of SentencePiece's file: T5's, and Llama's.
const SENTENCEPIECE: &[&str] = &["spiece.model", "tokenizer.model"];

/// Tokens beside the pieces that T5 has where its settings do not say.
const T5_EXTRA_IDS: u64 = 100;

/// What a folder's tokenizer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// `tokenizer.json`.
    Json,
    /// `spiece.model` or `tokenizer.model`: SentencePiece's pairs (Llama's, Vicuna's) or its unigrams (T5's).
    SentencePiece,
    /// `vocab.json` and `merges.txt`: pairs of bytes (OPT's, GPT-2's) or of words' letters (CLIP's).
    BytePairs,
    /// `vocab.txt`: BERT's pieces of words.
    WordPieces,
    /// Inside a GGUF file.
    Gguf,
}

impl TokenizerKind {
    /// The kind and the file of the tokenizer in a folder, or of a file; where there are several, the first
    /// of those above is read.
    ///
    /// # Errors
    /// No tokenizer.
    pub fn of(path: &Path) -> Result<(Self, PathBuf), ModelError> {
        if is_gguf(path) {
            return Ok((Self::Gguf, path.to_path_buf()));
        }
        if path.is_file() {
            return Ok((Self::Json, path.to_path_buf()));
        }
        let there = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
        if let Some(file) = there(TOKENIZER_JSON) {
            return Ok((Self::Json, file));
        }
        if let Some(file) = SENTENCEPIECE.iter().find_map(|name| there(name)) {
            return Ok((Self::SentencePiece, file));
        }
        if let (Some(file), Some(_)) = (there(byte_pairs::VOCABULARY), there(byte_pairs::MERGES)) {
            return Ok((Self::BytePairs, file));
        }
        if let Some(file) = there(word_pieces::FILE) {
            return Ok((Self::WordPieces, file));
        }
        let reason = "no tokenizer: none of tokenizer.json, spiece.model, tokenizer.model, vocab.json with merges.txt, and \
                      vocab.txt is there";
        Err(ModelError::Config { path: path.into(), reason: reason.into() })
    }
}

/// The content of a folder's `tokenizer.json`, byte for byte, or what stands for it in the folder's other
/// files or in a GGUF file.
///
/// # Errors
/// No tokenizer, or one of a kind that is not supported.
pub fn tokenizer_content(path: &Path) -> Result<Vec<u8>, ModelError> {
    match TokenizerKind::of(path)? {
        (TokenizerKind::Json, file) => read_file(&file),
        _ => Ok(tokenizer_json(path)?.to_string().into_bytes()),
    }
}

/// [`tokenizer_content`], parsed.
///
/// # Errors
/// As [`tokenizer_content`]; what is not JSON.
pub fn tokenizer_json(path: &Path) -> Result<Value, ModelError> {
    let (kind, file) = TokenizerKind::of(path)?;
    match kind {
        TokenizerKind::Json => read_json(&file),
        TokenizerKind::Gguf => gguf::tokenizer(path),
        TokenizerKind::SentencePiece => sentencepiece::tokenizer(&file, &sentencepiece_settings(path)?),
        TokenizerKind::BytePairs => byte_pairs::tokenizer(path, &settings(path)?),
        TokenizerKind::WordPieces => word_pieces::tokenizer(&file, &settings(path)?),
    }
}

/// Whether a folder has its tokenizer as a `tokenizer.json`.
pub fn has_tokenizer_json(folder: &Path) -> bool {
    folder.join(TOKENIZER_JSON).is_file()
}

fn sentencepiece_settings(folder: &Path) -> Result<sentencepiece::Settings, ModelError> {
    let settings = settings(folder)?;
    let vocabulary = FolderConfig::open(folder).ok().and_then(|config| config.vocabulary());
    Ok(sentencepiece::Settings {
        // `transformers` puts Llama's start token in front unless the folder says otherwise.
        starts: settings["add_bos_token"].as_bool().unwrap_or(true),
        extra_ids: settings["extra_ids"].as_u64().unwrap_or(T5_EXTRA_IDS) as usize,
        vocabulary,
    })
}
