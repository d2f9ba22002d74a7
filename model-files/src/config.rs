//! `config.json` of Hugging Face folders.

mod fields;

pub use fields::SIDE;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ModelError;
use crate::formats::gguf;
use crate::read::read_json;

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
        if gguf::is_gguf(folder) {
            return Ok(Self { path: folder.to_path_buf(), value: gguf::config(folder)? });
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
    ///
    /// # Errors
    /// A field that no model can have, or of another type, by its name.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        fields::check(&self.value).map_err(|reason| self.error(reason))?;
        T::deserialize(without_nulls(&self.value)).map_err(|e| self.error(e.to_string()))
    }

    /// Parses one section; a missing one has every field at its default.
    ///
    /// # Errors
    /// As [`FolderConfig::parse`].
    pub fn parse_section<T: DeserializeOwned>(&self, section: &str) -> Result<T, ModelError> {
        let empty = Value::Object(serde_json::Map::new());
        let value = self.value.get(section).filter(|value| !value.is_null()).unwrap_or(&empty);
        fields::check(value).map_err(|reason| self.error(format!("{section}.{reason}")))?;
        T::deserialize(without_nulls(value)).map_err(|e| self.error(format!("{section}: {e}")))
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
            "blip-2" | "instructblip" => {
                (Some("text_config"), self.section_type("text_config").unwrap_or("opt"))
            }
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

    /// Rows of the language model's token table, where the file says them.
    pub fn vocabulary(&self) -> Option<usize> {
        let (section, _) = self.language_model();
        let holder = section.map_or(Some(&self.value), |section| self.value.get(section))?;
        holder.get("vocab_size")?.as_u64()?.try_into().ok()
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

/// The fields that say something: newer `transformers` write null where an older one left a field out.
fn without_nulls(section: &Value) -> Value {
    match section {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        other => other.clone(),
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
    fn a_file_that_is_no_model_is_refused() {
        assert!(config("{}").unwrap_err().to_string().contains("model_type"));
        assert!(config("{").unwrap_err().to_string().contains("not JSON"));
        let folder = tempfile::tempdir().unwrap();
        assert!(FolderConfig::open(folder.path()).unwrap_err().to_string().contains("config.json"));
    }
}
