//! The tokenizer's files of an exported folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::staging::write_json;
use blip2_model_files::error::ModelError;
use blip2_model_files::formats::is_gguf;
use blip2_model_files::tokenizer::ids::{IMAGE, content_of, first_free, id_of_image};
use blip2_model_files::tokenizer::{BESIDE, QFormerTokenizer, has_tokenizer_json, settings, tokenizer_json};

/// Files that a tokenizer may have besides `tokenizer.json` and `tokenizer_config.json`. They name the tokens
/// as they were, so a tokenizer that gets another one goes without.
const OPTIONAL: &[&str] = &["vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"];

/// The classes of processors.
pub(super) const BLIP2: &str = "Blip2Processor";
pub(super) const INSTRUCTBLIP: &str = "InstructBlipProcessor";

/// Copies the tokenizer `from` for a class of processors, which look for the token `image_token` by the name
/// `<image>`. Where no token has the id, one is added. A GGUF file's tokenizer is given the tokens
/// `named`, by role and id.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    image_token: u32,
    named: &[(&str, u32)],
    processor: &str,
) -> Result<(), ModelError> {
    let mut tokenizer = tokenizer_json(from)?;
    let mut settings = match is_gguf(from) {
        true => gguf_settings(&tokenizer, named),
        false => folder_settings(from)?,
    };
    let present = content_of(&tokenizer, image_token);
    match &present {
        Some(content) if content == IMAGE => {}
        Some(content) => {
            rename(&mut tokenizer, from, content)?;
            replace(&mut settings, content);
        }
        None => add(&mut tokenizer, from, image_token)?,
    }
    write(from, to, &tokenizer, present.as_deref() != Some(IMAGE) || !has_tokenizer_json(from))?;
    write_settings(to, settings, processor)
}

/// Copies the Q-Former's tokenizer of the folder `from` with the additional token `<image>`, if it has none
/// yet, and returns its id.
pub(super) fn copy_with_image(from: &Path, to: &Path) -> Result<u32, ModelError> {
    let opened = QFormerTokenizer::open(from)?;
    let mut tokenizer = opened.value()?;
    let existing = id_of_image(&tokenizer);
    let image = existing.unwrap_or_else(|| first_free(&tokenizer));
    if existing.is_none() {
        add(&mut tokenizer, from, image)?;
    }
    let folder = opened.origin.parent().unwrap_or(from);
    let changed = existing.is_none() || opened.added.is_some() || !has_tokenizer_json(folder);
    write(folder, to, &tokenizer, changed)?;
    write_settings(to, folder_settings(folder)?, BLIP2)?;
    Ok(image)
}

/// Copies the Q-Former's tokenizer of the folder `from` to a folder of its own in `to`, where InstructBLIP's
/// processor looks for it.
pub(super) fn copy_beside(from: &Path, to: &Path) -> Result<(), ModelError> {
    let opened = QFormerTokenizer::open(from)?;
    let folder = opened.origin.parent().unwrap_or(from);
    let to = to.join(BESIDE);
    fs::create_dir(&to).map_err(|e| ModelError::io(&to, e))?;
    write_json(&to.join("tokenizer.json"), &opened.value()?)?;
    write_settings(&to, folder_settings(folder)?, INSTRUCTBLIP)
}

/// What a folder says of its tokenizer; where it says nothing, that it is one by its `tokenizer.json` alone.
fn folder_settings(folder: &Path) -> Result<Value, ModelError> {
    let mut settings = settings(folder)?;
    if settings.get("tokenizer_class").is_none() {
        settings["tokenizer_class"] = "PreTrainedTokenizerFast".into();
    }
    Ok(settings)
}

/// Adds `<image>` as the token `id`.
fn add(tokenizer: &mut Value, from: &Path, id: u32) -> Result<(), ModelError> {
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
    Ok(())
}

/// Calls the token `content`, which has no other meaning, `<image>`.
fn rename(tokenizer: &mut Value, from: &Path, content: &str) -> Result<(), ModelError> {
    if let Some(id) = id_of_image(tokenizer) {
        let reason = format!("`{IMAGE}` is token {id}, which the language model's vocabulary does not have");
        return Err(ModelError::Config { path: from.to_path_buf(), reason });
    }
    if let Some(table) = tokenizer.pointer_mut("/model/vocab").and_then(Value::as_object_mut)
        && let Some(id) = table.remove(content)
    {
        table.insert(IMAGE.into(), id);
    }
    for part in ["/model/vocab", "/added_tokens"] {
        if let Some(part @ Value::Array(_)) = tokenizer.pointer_mut(part) {
            replace(part, content);
        }
    }
    Ok(())
}

/// Puts `<image>` in the place of every text that is `content`.
fn replace(value: &mut Value, content: &str) {
    match value {
        Value::String(text) if text == content => *text = IMAGE.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, content)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, content)),
        _ => {}
    }
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

/// Without a field for the image token: the processor expects it to be more than its name there, and adds
/// `<image>` itself, which is the token that has this name already.
fn write_settings(to: &Path, mut settings: Value, processor: &str) -> Result<(), ModelError> {
    settings["processor_class"] = processor.into();
    if let Some(fields) = settings.as_object_mut() {
        fields.remove("image_token");
        if let Some(Value::Object(special)) = fields.get_mut("extra_special_tokens") {
            special.remove("image_token");
        }
    }
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
