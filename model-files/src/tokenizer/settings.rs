//! What a folder says of its tokenizer beside the pieces.

use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::read::read_json;

pub(super) const SETTINGS: &str = "tokenizer_config.json";

/// A folder's `tokenizer_config.json`, with what `special_tokens_map.json` says beside it; empty where it has
/// neither.
///
/// # Errors
/// A file that is there and is no JSON.
pub fn settings(folder: &Path) -> Result<Value, ModelError> {
    let read = |name: &str| -> Result<Value, ModelError> {
        let file = folder.join(name);
        if file.is_file() { read_json(&file) } else { Ok(Value::Null) }
    };
    let mut settings = match read(SETTINGS)? {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    if let Value::Object(special) = read("special_tokens_map.json")? {
        for (name, token) in special {
            settings.entry(name).or_insert(token);
        }
    }
    Ok(Value::Object(settings))
}

/// The text of the token that the settings give a role, e.g. `bos_token`.
pub fn named_token<'a>(settings: &'a Value, role: &str) -> Option<&'a str> {
    settings[role].as_str().or_else(|| settings[role]["content"].as_str())
}
