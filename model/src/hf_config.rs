//! `config.json` of Hugging Face folders.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ModelError;
use crate::weights::{SENTENCEPIECE_FILE, gguf_config, gguf_tokenizer, is_gguf, sentencepiece_tokenizer};

/// A folder's `config.json`; its sections are parsed on demand.
#[derive(Debug, Clone)]
pub struct FolderConfig {
    path: PathBuf,
    value: Value,
}

impl FolderConfig {
    /// Reads `folder/config.json`, or what a GGUF file says in its place.
    ///
    /// # Errors
    /// A file that is missing, is not JSON, or names no `model_type`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        if is_gguf(folder) {
            return Ok(Self { path: folder.to_path_buf(), value: gguf_config(folder)? });
        }
        let path = folder.join("config.json");
        let value = read_json(&path)?;
        let config = Self { path, value };
        if config.value.get("model_type").and_then(Value::as_str).is_none() {
            return Err(config.error("no `model_type`: is this a Hugging Face model folder?"));
        }
        Ok(config)
    }

    /// The kind of model, e.g. `blip-2`.
    pub fn model_type(&self) -> &str {
        self.value["model_type"].as_str().unwrap_or_default()
    }

    /// The `model_type` of a section, e.g. that of `text_config`.
    pub fn section_type(&self, section: &str) -> Option<&str> {
        self.value.get(section)?.get("model_type")?.as_str()
    }

    /// Parses the whole file.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        T::deserialize(&self.value).map_err(|e| self.error(e.to_string()))
    }

    /// Parses one section; a missing one has every field at its default.
    pub fn parse_section<T: DeserializeOwned>(&self, section: &str) -> Result<T, ModelError> {
        let empty = Value::Object(serde_json::Map::new());
        let value = self.value.get(section).unwrap_or(&empty);
        T::deserialize(value).map_err(|e| self.error(format!("{section}: {e}")))
    }

    /// Parses a section, or the whole file where there is none.
    pub fn parse_part<T: DeserializeOwned>(&self, section: Option<&str>) -> Result<T, ModelError> {
        match section {
            Some(section) => self.parse_section(section),
            None => self.parse(),
        }
    }

    /// The section that describes the language model and its kind: `text_config` of a BLIP-2 folder, the
    /// whole file of others.
    pub fn language_model(&self) -> (Option<&'static str>, &str) {
        match self.model_type() {
            "blip-2" => (Some("text_config"), self.section_type("text_config").unwrap_or("opt")),
            other => (None, other),
        }
    }

    /// The section that describes the language model, which must be of the kind `model_type`.
    pub fn expect_language_model(&self, model_type: &str) -> Result<Option<&'static str>, ModelError> {
        match self.language_model() {
            (section, found) if found == model_type => Ok(section),
            (_, found) => {
                Err(self.error(format!("the language model is of type `{found}`, `{model_type}` is needed")))
            }
        }
    }

    /// Requires that a field, where it is given, has the only value that is supported.
    pub fn require(&self, section: Option<&str>, field: &str, supported: &Value) -> Result<(), ModelError> {
        let holder = section.map_or(Some(&self.value), |section| self.value.get(section));
        match holder.and_then(|holder| holder.get(field)) {
            Some(found) if !found.is_null() && found != supported => {
                let place = section.map_or_else(|| field.to_string(), |section| format!("{section}.{field}"));
                Err(self.error(format!("{place} = {found} is not supported, only {supported}")))
            }
            _ => Ok(()),
        }
    }

    /// An error about this file.
    pub fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.clone(), reason: reason.into() }
    }
}

/// One token id or several, as `eos_token_id` may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Any of these.
    Many(Vec<u32>),
}

impl TokenIds {
    /// All of them.
    pub fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
        }
    }
}

/// The `tokenizer.json` of a folder, or, in its format, the tokenizer inside a GGUF file or the `tokenizer.model` of a folder
/// that has no `tokenizer.json` (Vicuna's).
///
/// # Errors
/// No tokenizer, or one of a kind that is not supported.
pub fn tokenizer_json(folder: &Path) -> Result<Value, ModelError> {
    if is_gguf(folder) {
        return gguf_tokenizer(folder);
    }
    let pieces = folder.join(SENTENCEPIECE_FILE);
    if has_tokenizer_json(folder) || !pieces.is_file() {
        return read_json(&folder.join(TOKENIZER_JSON));
    }
    // `transformers` puts Llama's start token in front unless the folder says otherwise.
    let settings = read_json(&folder.join("tokenizer_config.json")).unwrap_or_default();
    sentencepiece_tokenizer(&pieces, settings["add_bos_token"].as_bool().unwrap_or(true))
}

const TOKENIZER_JSON: &str = "tokenizer.json";

/// Whether a folder has a tokenizer in the format that [`tokenizer_json`] returns.
pub fn has_tokenizer_json(folder: &Path) -> bool {
    folder.join(TOKENIZER_JSON).is_file()
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = std::fs::read(path).map_err(|e| ModelError::io(path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| ModelError::Config { path: path.into(), reason: format!("not JSON: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<FolderConfig, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        FolderConfig::open(folder.path())
    }

    #[test]
    fn an_unsupported_value_is_named_with_its_place() {
        let config = config(r#"{"model_type": "blip-2", "vision_config": {"hidden_act": "silu"}}"#).unwrap();
        assert_eq!(config.model_type(), "blip-2");
        let error =
            config.require(Some("vision_config"), "hidden_act", &"gelu".into()).unwrap_err().to_string();
        assert!(error.contains("vision_config.hidden_act") && error.contains("silu"), "{error}");
        config.require(Some("text_config"), "hidden_act", &"gelu".into()).unwrap();
    }

    #[test]
    fn sentence_pieces_stand_in_for_a_tokenizer_json() {
        let folder = tempfile::tempdir().unwrap();
        let pieces =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentencepiece/tokenizer.model");
        std::fs::copy(pieces, folder.path().join("tokenizer.model")).unwrap();
        assert!(tokenizer_json(folder.path()).unwrap()["post_processor"].is_object());
        std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"add_bos_token": false}"#).unwrap();
        assert!(tokenizer_json(folder.path()).unwrap()["post_processor"].is_null());
        std::fs::write(folder.path().join("tokenizer.json"), r#"{"model": 1}"#).unwrap();
        assert_eq!(tokenizer_json(folder.path()).unwrap()["model"], 1);
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        assert!(config("{}").unwrap_err().to_string().contains("model_type"));
        assert!(config("{").unwrap_err().to_string().contains("not JSON"));
        let folder = tempfile::tempdir().unwrap();
        assert!(FolderConfig::open(folder.path()).unwrap_err().to_string().contains("config.json"));
    }
}
