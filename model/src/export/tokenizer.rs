//! The tokenizer's files of an exported folder.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::write_json;
use crate::ModelError;
use crate::hf_config::read_json;

/// Files that a tokenizer may have besides `tokenizer.json` and `tokenizer_config.json`.
const OPTIONAL: &[&str] = &["vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"];

/// Copies the tokenizer of the folder `from` and names its image token, as `Blip2Processor` asks for it.
pub(super) fn copy(from: &Path, to: &Path, image_token: u32) -> Result<(), ModelError> {
    let path = from.join("tokenizer.json");
    let tokenizer = read_json(&path)?;
    let content = content_of(&tokenizer, image_token).ok_or_else(|| ModelError::Config {
        path: path.clone(),
        reason: format!("the image token {image_token} is not one of `added_tokens`"),
    })?;
    copy_file(from, to, "tokenizer.json")?;
    for name in OPTIONAL.iter().filter(|name| from.join(name).is_file()) {
        copy_file(from, to, name)?;
    }
    let mut settings = read_json(&from.join("tokenizer_config.json"))?;
    settings["processor_class"] = "Blip2Processor".into();
    settings["image_token"] = content.clone().into();
    settings["extra_special_tokens"] = json!({"image_token": content});
    write_json(&to.join("tokenizer_config.json"), &settings)
}

fn content_of(tokenizer: &Value, id: u32) -> Option<String> {
    let token = tokenizer["added_tokens"].as_array()?.iter().find(|token| token["id"] == id)?;
    token["content"].as_str().map(str::to_string)
}

fn copy_file(from: &Path, to: &Path, name: &str) -> Result<(), ModelError> {
    let target = to.join(name);
    fs::copy(from.join(name), &target).map_err(|e| ModelError::io(from.join(name), e))?;
    fs::File::open(&target).and_then(|file| file.sync_all()).map_err(|e| ModelError::io(&target, e))
}
