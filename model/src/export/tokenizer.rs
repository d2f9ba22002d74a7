//! The tokenizer's files of an exported folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::staging::write_json;
use crate::ModelError;
use crate::hf_config::{read_json, tokenizer_json};
use crate::weights::is_gguf;

/// Files that a tokenizer may have besides `tokenizer.json` and `tokenizer_config.json`. They name the tokens as
/// they were, so a tokenizer that gets another one goes without.
const OPTIONAL: &[&str] = &["vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"];

/// The published image token.
const IMAGE: &str = "<image>";

/// Copies the tokenizer `from` and names its image token, as `Blip2Processor` asks for it; where no token has the
/// id `image_token`, `<image>` gets it. A GGUF file's tokenizer is given the tokens `named`, by role and id.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    image_token: u32,
    named: &[(&str, u32)],
) -> Result<(), ModelError> {
    let mut tokenizer = tokenizer_json(from)?;
    let (content, is_new) = match content_of(&tokenizer, image_token) {
        Some(content) => (content, false),
        None => (add(&mut tokenizer, from, image_token)?, true),
    };
    let settings = match is_gguf(from) {
        true => gguf_settings(&tokenizer, named),
        false => read_json(&from.join("tokenizer_config.json"))?,
    };
    write(from, to, &tokenizer, is_new || is_gguf(from))?;
    write_settings(to, settings, &content)
}

/// Copies the tokenizer of the folder `from` with the additional token `<image>`, if it has none yet, and returns
/// its id.
pub(super) fn copy_with_image(from: &Path, to: &Path) -> Result<u32, ModelError> {
    let mut tokenizer = tokenizer_json(from)?;
    let existing = tokens(&tokenizer).find(|(content, _)| *content == IMAGE).map(|(_, id)| id);
    let image = match existing {
        Some(id) => id,
        None => first_free(&tokenizer),
    };
    if existing.is_none() {
        add(&mut tokenizer, from, image)?;
    }
    write(from, to, &tokenizer, existing.is_none())?;
    write_settings(to, read_json(&from.join("tokenizer_config.json"))?, IMAGE)?;
    Ok(image)
}

/// The smallest id above those of all tokens.
pub(crate) fn first_free(tokenizer: &Value) -> u32 {
    tokens(tokenizer).map(|(_, id)| id + 1).max().unwrap_or(0)
}

/// All tokens: those of the model and those added to it.
fn tokens(tokenizer: &Value) -> impl Iterator<Item = (&str, u32)> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    // A table of ids, or in a unigram model a list of pieces with their scores.
    let table = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
    let list = tokenizer.pointer("/model/vocab").and_then(Value::as_array);
    let table =
        table.into_iter().flatten().filter_map(move |(content, at)| Some((content.as_str(), id(at)?)));
    let list = list.into_iter().flatten().enumerate();
    let list = list.filter_map(|(at, piece)| Some((piece[0].as_str()?, u32::try_from(at).ok()?)));
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    table
        .chain(list)
        .chain(added.filter_map(move |token| Some((token["content"].as_str()?, id(&token["id"])?))))
}

fn content_of(tokenizer: &Value, id: u32) -> Option<String> {
    tokens(tokenizer).find(|(_, of)| *of == id).map(|(content, _)| content.to_string())
}

/// Adds `<image>` as the token `id`.
fn add(tokenizer: &mut Value, from: &Path, id: u32) -> Result<String, ModelError> {
    let refuse = |reason: String| ModelError::Config { path: from.to_path_buf(), reason };
    // The library numbers added tokens itself, one after the other.
    if id != first_free(tokenizer) {
        let free = first_free(tokenizer);
        return Err(refuse(format!(
            "the image token {id} is no token, and the next one to be added is {free}"
        )));
    }
    let token = json!({
        "id": id, "content": IMAGE, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    let added = tokenizer["added_tokens"].as_array_mut();
    added.ok_or_else(|| refuse("no list `added_tokens`".into()))?.push(token);
    Ok(IMAGE.into())
}

fn gguf_settings(tokenizer: &Value, named: &[(&str, u32)]) -> Value {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    for (role, id) in named {
        if let Some(content) = content_of(tokenizer, *id) {
            settings.insert(format!("{role}_token"), content.into());
        }
    }
    Value::Object(settings)
}

fn write_settings(to: &Path, mut settings: Value, image: &str) -> Result<(), ModelError> {
    settings["processor_class"] = "Blip2Processor".into();
    settings["image_token"] = image.into();
    settings["extra_special_tokens"] = json!({"image_token": image});
    write_json(&to.join("tokenizer_config.json"), &settings)
}

/// The tokenizer itself, byte for byte unless it is `changed`.
fn write(from: &Path, to: &Path, tokenizer: &Value, changed: bool) -> Result<(), ModelError> {
    if changed {
        return write_json(&to.join("tokenizer.json"), tokenizer);
    }
    copy_file(from, to, "tokenizer.json")?;
    for name in OPTIONAL.iter().filter(|name| from.join(name).is_file()) {
        copy_file(from, to, name)?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, name: &str) -> Result<(), ModelError> {
    let target = to.join(name);
    fs::copy(from.join(name), &target).map_err(|e| ModelError::io(from.join(name), e))?;
    fs::File::open(&target).and_then(|file| file.sync_all()).map_err(|e| ModelError::io(&target, e))
}
