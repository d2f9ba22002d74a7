//! The Q-Former's tokenizer: BERT's, with the token that starts a caption.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::content::{TokenizerKind, tokenizer_content, tokenizer_json};
use super::ids::{IMAGE, first_free};
use crate::error::ModelError;

/// The token that starts a caption in the captioning loss.
pub const DECODER_START: &str = "[DEC]";

/// Tokens without which a vocabulary is not BERT's.
const FRAME: [&str; 2] = ["[CLS]", "[SEP]"];

/// Where InstructBLIP's folders keep the Q-Former's tokenizer beside the language model's.
pub const BESIDE: &str = "qformer_tokenizer";

/// The Q-Former's tokenizer of a folder.
#[derive(Debug, Clone)]
pub struct QFormerTokenizer {
    /// The folder or file that it was read from.
    pub origin: PathBuf,
    /// The content of a `tokenizer.json`.
    pub content: Vec<u8>,
    /// The id of `[DEC]`, where it was not among the folder's tokens and was added behind them, as LAVIS does
    /// with BERT's.
    pub added: Option<u32>,
}

impl QFormerTokenizer {
    /// Reads a folder's tokenizer. BERT's has no `[DEC]`: it becomes the token behind the last. `<image>`,
    /// which exported folders have for `transformers`, is left out where it is the last: the Q-Former's
    /// tables have no row for it.
    ///
    /// # Errors
    /// No tokenizer, or one that has no `[DEC]` and is not BERT's.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let beside = path.join(BESIDE);
        let path = if beside.is_dir() { beside.as_path() } else { path };
        let (_, origin) = TokenizerKind::of(path)?;
        let mut tokenizer = tokenizer_json(path)?;
        let shortened = leave_out_image(&mut tokenizer);
        if has(&tokenizer, DECODER_START) {
            let content =
                if shortened { tokenizer.to_string().into_bytes() } else { tokenizer_content(path)? };
            return Ok(Self { origin, content, added: None });
        }
        if let Some(missing) = FRAME.iter().find(|token| !has(&tokenizer, token)) {
            let reason = format!(
                "neither {DECODER_START} nor {missing} is among its tokens: the Q-Former reads BERT's, e.g. that of \
                 bert-base-uncased"
            );
            return Err(ModelError::Config { path: origin, reason });
        }
        let id = first_free(&tokenizer);
        let token = json!({
            "id": id, "content": DECODER_START, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        match &mut tokenizer["added_tokens"] {
            Value::Array(added) => added.push(token),
            absent => *absent = json!([token]),
        }
        Ok(Self { origin, content: tokenizer.to_string().into_bytes(), added: Some(id) })
    }

    /// The content, parsed.
    pub fn value(&self) -> Result<Value, ModelError> {
        serde_json::from_slice(&self.content)
            .map_err(|e| ModelError::Config { path: self.origin.clone(), reason: format!("not JSON: {e}") })
    }
}

fn has(tokenizer: &Value, token: &str) -> bool {
    let mut added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    added.any(|added| added["content"] == token)
        || tokenizer.pointer("/model/vocab").is_some_and(|vocabulary| vocabulary.get(token).is_some())
}

/// Takes `<image>` out of the added tokens, if no token is behind it.
fn leave_out_image(tokenizer: &mut Value) -> bool {
    let last = first_free(tokenizer).checked_sub(1);
    let Some(Value::Array(added)) = tokenizer.get_mut("added_tokens") else { return false };
    let before = added.len();
    added.retain(|token| !(token["content"] == IMAGE && token["id"].as_u64() == last.map(u64::from)));
    added.len() < before
}
