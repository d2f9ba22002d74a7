//! A trained model as a complete Hugging Face folder.

mod config;
mod safetensors;
mod tokenizer;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ModelError;
use crate::blip2::Blip2;
use crate::vision::ImageEncoder;
use crate::weights::huggingface_name;

/// Largest weight file; a model beyond it is written in shards.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes `model` to the new folder `folder` as `transformers`' `Blip2ForConditionalGeneration` with its
/// processor: configuration, float32 weights, and the tokenizer found in the folder `tokenizer`.
///
/// The folder appears when it is complete: nothing half-written has its name.
///
/// `transformers` knows one epsilon for all norms of the image encoder and uses it for `ln_vision` too; a
/// model trained with another one differs by that much.
///
/// # Errors
/// A folder that exists, an image encoder in CLIP's layout (which the class cannot express), or a disk that
/// is full.
pub fn export_blip2(folder: &Path, model: &mut Blip2, tokenizer: &Path) -> Result<(), ModelError> {
    if fs::symlink_metadata(folder).is_ok() {
        let reason = format!("{} exists: choose another folder or remove it", folder.display());
        return Err(ModelError::input("export folder", reason));
    }
    if matches!(model.encoder(), ImageEncoder::Clip(_)) {
        let reason = "it has CLIP's layout, which `Blip2ForConditionalGeneration` cannot express; train with an \
                      encoder in the EVA layout to export";
        return Err(ModelError::input("image encoder", reason));
    }
    let staging = Staging::create(folder)?;
    write_folder(&staging.path, model, tokenizer)?;
    staging.publish(folder)
}

fn write_folder(folder: &Path, model: &mut Blip2, tokenizer: &Path) -> Result<(), ModelError> {
    tokenizer::copy(tokenizer, folder, model.tokens().image)?;
    for (name, value) in config::files(model)? {
        write_json(&folder.join(name), &value)?;
    }
    safetensors::write(folder, model, huggingface_name, SHARD_BYTES)
}

/// A folder beside the final one, removed unless it is published.
struct Staging {
    path: PathBuf,
    published: bool,
}

impl Staging {
    fn create(folder: &Path) -> Result<Self, ModelError> {
        let Some(name) = folder.file_name() else {
            let reason = format!("{} has no name", folder.display());
            return Err(ModelError::input("export folder", reason));
        };
        let path = folder.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        if path.is_dir() {
            // Left by an export that was killed.
            fs::remove_dir_all(&path).map_err(|e| ModelError::io(&path, e))?;
        }
        fs::create_dir_all(&path).map_err(|e| ModelError::io(&path, e))?;
        Ok(Self { path, published: false })
    }

    fn publish(mut self, folder: &Path) -> Result<(), ModelError> {
        fs::rename(&self.path, folder).map_err(|e| ModelError::io(folder, e))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // The error that brought us here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes a JSON file that is on the disk when this returns.
fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| ModelError::Config { path: path.into(), reason: e.to_string() })?;
    text.push('\n');
    let mut file = fs::File::create(path).map_err(|e| ModelError::io(path, e))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| ModelError::io(path, e))
}
