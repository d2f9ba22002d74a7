//! Trained models in the published layouts: folders of `transformers` and of `peft`, and LAVIS's checkpoint
//! files.

mod config;
mod openai;
mod peft;
mod plan;
mod precision;
mod pytorch;
mod retriever;
mod safetensors;
mod staging;
mod tokenizer;

pub use peft::{PeftBase, export_peft};
pub use precision::Precision;
pub use retriever::Retriever;

use std::path::Path;

use crate::blip2::model::Blip2;
use crate::language::LanguageModel;
use crate::vision::{EvaVit, ImageEncoder};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{huggingface_name, instructblip_name, lavis_name};
use blip2_tensors::nn::tensors::NamedTensors;
use openai::WithOpenAiNames;
use plan::{Plan, Target};
use staging::{Staging, write_json};

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// The numbers.
    pub precision: Precision,
    /// Largest weight file; a model beyond it is written in shards.
    pub shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, shard_bytes: 5_000_000_000 }
    }
}

/// Writes `model` to the new folder `folder` as `transformers`' `Blip2ForConditionalGeneration` with its
/// processor: configuration, weights, and the tokenizer found in the folder or GGUF file `tokenizer`.
///
/// The folder appears when it is complete: nothing half-written has its name.
///
/// `transformers` knows one epsilon for all norms of the image encoder and uses it for `ln_vision` too; a
/// model trained with another one differs by that much.
///
/// # Errors
/// A folder that exists, an image encoder in CLIP's layout or a language model whose embeddings are narrower
/// than its layers (which the class cannot express), or a disk that is full.
pub fn export_blip2(
    folder: &Path,
    model: &mut Blip2,
    tokenizer: &Path,
    options: &ExportOptions,
) -> Result<(), ModelError> {
    if model.reads_questions() {
        let reason = "its Q-Former reads questions, which `Blip2ForConditionalGeneration` cannot express";
        return Err(ModelError::input("model", reason));
    }
    let staging = write_generative(folder, model, tokenizer, tokenizer::BLIP2, options)?;
    staging.publish(folder)
}

/// The tokenizers of a model whose Q-Former reads questions.
#[derive(Debug, Clone, Copy)]
pub struct Tokenizers<'a> {
    /// The language model's: a folder or a GGUF file.
    pub language: &'a Path,
    /// The Q-Former's: a folder.
    pub qformer: &'a Path,
}

/// Writes `model`, whose Q-Former reads questions, to the new folder `folder` as `transformers`'
/// `InstructBlipForConditionalGeneration` with its processor. `config.json` says besides how the model was
/// asked in training ([`Asking`](super::asking::Asking)), which `transformers` passes over.
///
/// # Errors
/// As [`export_blip2`], and a Q-Former that reads no questions.
pub fn export_instructblip(
    folder: &Path,
    model: &mut Blip2,
    tokenizers: Tokenizers<'_>,
    options: &ExportOptions,
) -> Result<(), ModelError> {
    if !model.reads_questions() {
        let reason =
            "its Q-Former reads no questions, as that of `InstructBlipForConditionalGeneration` does";
        return Err(ModelError::input("model", reason));
    }
    let staging = write_generative(folder, model, tokenizers.language, tokenizer::INSTRUCTBLIP, options)?;
    tokenizer::copy_beside(tokenizers.qformer, staging.path())?;
    staging.publish(folder)
}

/// Writes what both generative classes have.
fn write_generative(
    folder: &Path,
    model: &mut Blip2,
    tokenizer: &Path,
    processor: &str,
    options: &ExportOptions,
) -> Result<Staging, ModelError> {
    let vision = eva(model.encoder())?.config().clone();
    check_prompt_width(model.language_model())?;
    let staging = Staging::create(folder)?;
    let (tokens, to) = (model.tokens().clone(), staging.path());
    tokenizer::copy(tokenizer, to, tokens.image, &[("bos", tokens.bos), ("pad", tokens.pad)], processor)?;
    for (name, value) in config::of_blip2(model, &vision, options.precision)? {
        write_json(&staging.path().join(name), &value)?;
    }
    let named = if model.reads_questions() { instructblip_name } else { huggingface_name };
    let layout = |name: &str, shape: &[usize]| vec![Target::whole(named(name), shape)];
    let plan = Plan::new(model, &layout, options.precision)?;
    safetensors::write_folder(staging.path(), model, &plan, options.shard_bytes)?;
    Ok(staging)
}

/// How the names begin of what `Blip2ForImageTextRetrieval` has no place for: the captioning head and the
/// temperature.
pub const NOT_IN_RETRIEVAL: &[&str] = &["Qformer.cls.", "temp"];

/// Writes a model of the contrast task to the new folder `folder` as `transformers`'
/// `Blip2ForImageTextRetrieval` with its processor and the Q-Former's tokenizer from the folder `tokenizer`.
///
/// The class has no place for the captioning head and the temperature, which only training uses: LAVIS's
/// layout keeps them ([`export_lavis`]).
///
/// # Errors
/// As [`export_blip2`].
pub fn export_retrieval(
    folder: &Path,
    mut model: Retriever<'_>,
    tokenizer: &Path,
    options: &ExportOptions,
) -> Result<(), ModelError> {
    let vision = eva(model.encoder)?.config().clone();
    let staging = Staging::create(folder)?;
    let image = tokenizer::copy_with_image(tokenizer, staging.path())?;
    for (name, value) in config::of_retriever(&model, &vision, image, options.precision)? {
        write_json(&staging.path().join(name), &value)?;
    }
    let layout = |name: &str, shape: &[usize]| match NOT_IN_RETRIEVAL
        .iter()
        .any(|dropped| name.starts_with(dropped))
    {
        true => Vec::new(),
        false => vec![Target::whole(huggingface_name(name), shape)],
    };
    let plan = Plan::new(&mut model, &layout, options.precision)?;
    safetensors::write_folder(staging.path(), &mut model, &plan, options.shard_bytes)?;
    staging.publish(folder)
}

/// Writes tensors under LAVIS's names to the new file `file`, which ends in `.pth` (as `torch.save` writes
/// it: `{"model": …}`) or `.safetensors`. LAVIS stores what a stage trains; the frozen parts are its own
/// files.
///
/// `family` is the prefix of the language model, after which the projection is called, where there is one.
///
/// # Errors
/// A file that exists or ends otherwise, or a disk that is full.
pub fn export_lavis(
    file: &Path,
    model: &mut impl NamedTensors,
    family: Option<&str>,
    precision: Precision,
) -> Result<(), ModelError> {
    let named = |name: &str| family.map_or_else(|| name.to_string(), |family| lavis_name(name, family));
    let layout = |name: &str, shape: &[usize]| lavis_targets(&named(name), shape);
    let mut model = WithOpenAiNames(model);
    let plan = Plan::new(&mut model, &layout, precision)?;
    let staging = Staging::beside(file)?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("pth") => pytorch::write(staging.path(), &mut model, &plan)?,
        Some("safetensors") => safetensors::write_file(staging.path(), &mut model, &plan)?,
        _ => {
            let reason =
                format!("{}: LAVIS's layout is a file: name it .pth or .safetensors", file.display());
            return Err(ModelError::input("export file", reason));
        }
    }
    staging.publish(file)
}

/// A tensor as LAVIS stores it: a fused bias is two, around a key bias of zeros that is left out, and the
/// temperature is a number.
fn lavis_targets(name: &str, shape: &[usize]) -> Vec<Target> {
    match (name.strip_suffix("attn.qkv.bias"), shape) {
        (Some(stem), [length]) => {
            let third = length / 3;
            let part = |part: &str, start| Target {
                name: format!("{stem}attn.{part}_bias"),
                shape: vec![third],
                range: start..start + third,
            };
            vec![part("q", 0), part("v", 2 * third)]
        }
        _ if name == "temp" => vec![Target { name: name.into(), shape: Vec::new(), range: 0..1 }],
        _ => vec![Target::whole(name.into(), shape)],
    }
}

/// `transformers` projects the queries to the width of the language model's layers, whatever its embeddings
/// have.
fn check_prompt_width(model: &LanguageModel) -> Result<(), ModelError> {
    let (narrow, wide) = (model.width(), model.layer_width());
    if narrow == wide {
        return Ok(());
    }
    let reason = format!(
        "its embeddings are {narrow} wide and its layers {wide} (OPT-350M), which `transformers`' BLIP-2 cannot \
         express; export with `--layout lavis`, or train with another OPT"
    );
    Err(ModelError::input("language model", reason))
}

fn eva(encoder: &ImageEncoder) -> Result<&EvaVit, ModelError> {
    match encoder {
        ImageEncoder::Eva(encoder) => Ok(encoder),
        ImageEncoder::Clip(_) => {
            let reason = "it has CLIP's layout, which `transformers`' BLIP-2 cannot express; export with `--layout \
                          lavis`, or train with an encoder in the EVA layout";
            Err(ModelError::input("image encoder", reason))
        }
    }
}

#[cfg(test)]
mod tests;
