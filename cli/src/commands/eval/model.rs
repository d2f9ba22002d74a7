//! The model of an evaluation: an exported folder, a checkpoint of a run that is exported first, or one that
//! answers as it was trained to.

use std::path::{Path, PathBuf};

use blip2_store::secret_url::redacted;
use blip2_tensors::device::DeviceName;
use blip2_worker::config::stage::NumberedStage;
use blip2_worker::evaluate::{Evaluator, Measure};
use blip2_worker::export::{ExportOptions, Layout, export};
use blip2_worker::{Answerer, NamedState, WorkerConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::commands::checkpoint::{Target, read_state};
use crate::error::CliError;
use crate::places::{typed_location, typed_model};
use crate::run_folder::stored_configuration;

/// What tells an exported model from a run.
const EXPORT_FILE: &str = "config.json";

/// A folder with a model.
pub(super) struct ModelFolder {
    pub(super) path: PathBuf,
    /// BLAKE3 of its files.
    pub(super) digest: String,
    /// Goes away with it, if it was made for this.
    _made: Option<TempDir>,
}

/// Whether it is an exported model.
pub(super) async fn is_export(named: &str) -> Result<bool, CliError> {
    Ok(typed_location(named)?.join(EXPORT_FILE).head().await?.is_some())
}

impl ModelFolder {
    /// The folder of an exported model, or the newest checkpoint of a run in `layout`, in a folder for the
    /// time being.
    pub(super) async fn open(named: &str, layout: Layout) -> Result<Self, CliError> {
        let (path, made) = match is_export(named).await? {
            true => {
                let folder = typed_model("--model", named).await?;
                check_class(named, &folder, layout)?;
                (folder, None)
            }
            false => {
                let made = exported(named, layout).await?;
                (made.path().join(NAME), Some(made))
            }
        };
        let hashed = path.clone();
        let digest = tokio::task::spawn_blocking(move || digest(&hashed)).await;
        let digest =
            digest.map_err(|error| CliError::failed(format!("the hashing thread failed: {error}")))?;
        let digest = digest.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        Ok(Self { path, digest, _made: made })
    }
}

/// A folder of the other class is said to be one, before anything of it is opened.
fn check_class(named: &str, folder: &Path, layout: Layout) -> Result<(), CliError> {
    let config = std::fs::read(folder.join(EXPORT_FILE)).ok();
    let config = config.and_then(|text| serde_json::from_slice::<Value>(&text).ok()).unwrap_or_default();
    // The Q-Former of the class that compares reads texts; that of the class that writes has none.
    let compares = config["qformer_config"]["use_qformer_text_input"] == true;
    let named = redacted(named);
    match (layout, compares) {
        (Layout::Retrieval, false) => Err(CliError::usage(format!(
            "--model {named}: this exported model has no heads that compare images with texts; name the run it came from, \
             or a folder that was exported with --layout retrieval"
        ))),
        (Layout::HuggingFace, true) if config["model_type"] == "blip-2" => Err(CliError::usage(format!(
            "--model {named}: this exported model compares images with texts and writes none; name the run it came from, \
             or a folder that was exported with --layout huggingface"
        ))),
        _ => Ok(()),
    }
}

/// What answers the questions of a set.
pub(super) enum AnsweringModel {
    /// A folder, which says itself who reads the question.
    Folder(ModelFolder),
    /// A checkpoint whose Q-Former reads it too.
    Checkpoint(Box<Checkpoint>),
}

/// A checkpoint of a stage, read.
pub(super) struct Checkpoint {
    config: WorkerConfig,
    stage: NumberedStage,
    state: NamedState,
    /// BLAKE3 of what it was committed as.
    digest: String,
}

impl AnsweringModel {
    /// A run's newest checkpoint that answers or writes, or the folder of an exported model.
    pub(super) async fn open(named: &str) -> Result<Self, CliError> {
        let layout = Layout::HuggingFace;
        if is_export(named).await? {
            return Ok(Self::Folder(ModelFolder::open(named, layout).await?));
        }
        let target = Target::resolve(named).await?;
        let config = stored_configuration(&target.root).await?.worker().with_models_here().await?;
        let (record, stage) = target.record_of_stage(&config, WRITES, is_answering).await?;
        if stage.settings.task.measure() != Measure::Answers {
            return Ok(Self::Folder(ModelFolder::open(named, layout).await?));
        }
        let state = read_state(&target.root, &record).await?;
        eprintln!("checkpoint {} of {} answers", record.name, redacted(named));
        let committed = serde_json::to_vec(&record)
            .map_err(|error| CliError::failed(format!("{}: {error}", record.name)))?;
        let digest = blake3::hash(&committed).to_hex().to_string();
        Ok(Self::Checkpoint(Box::new(Checkpoint { config, stage, state, digest })))
    }

    /// BLAKE3 of what it is.
    pub(super) fn digest(&self) -> &str {
        match self {
            Self::Folder(folder) => &folder.digest,
            Self::Checkpoint(checkpoint) => &checkpoint.digest,
        }
    }
}

impl Checkpoint {
    /// Opens it to answer `batch` questions at a time on `device`, of images of `side` pixels or its own.
    pub(super) fn answerer(
        self,
        device: DeviceName,
        side: Option<usize>,
        batch: usize,
    ) -> Result<Answerer, CliError> {
        let Self { mut config, mut stage, state, .. } = self;
        config.train.device = device.to_string();
        stage.settings.image_size = side.unwrap_or(stage.settings.image_size);
        Ok(Evaluator::open(&config)?.answerer(&stage, &state, batch)?)
    }
}

/// Whether a run's newest checkpoint that writes at all was trained to answer questions.
pub(super) async fn answers_questions(named: &str) -> Result<bool, CliError> {
    let target = Target::resolve(named).await?;
    let config = stored_configuration(&target.root).await?.worker();
    let (_, stage) = target.record_of_stage(&config, WRITES, is_answering).await?;
    Ok(stage.settings.task.measure() == Measure::Answers)
}

/// Stages that write, as an error calls them.
const WRITES: &str = "a stage that writes texts";

fn is_answering(stage: &NumberedStage) -> bool {
    let task = &stage.settings.task;
    task.measure() == Measure::Answers || task.layouts().contains(&Layout::HuggingFace)
}

/// Name of the exported folder.
const NAME: &str = "model";

async fn exported(named: &str, layout: Layout) -> Result<TempDir, CliError> {
    let target = Target::resolve(named).await?;
    let config = stored_configuration(&target.root).await?.worker().with_models_here().await?;
    let what = match layout {
        Layout::Retrieval => "a stage with contrastive heads",
        _ => WRITES,
    };
    let has_layout = |stage: &NumberedStage| stage.settings.task.layouts().contains(&layout);
    let (record, stage) = target.record_of_stage(&config, what, has_layout).await?;
    let state = read_state(&target.root, &record).await?;
    eprintln!("checkpoint {} of {} is exported to be evaluated", record.name, redacted(named));
    let made =
        TempDir::new().map_err(|error| CliError::failed(format!("a folder for the model: {error}")))?;
    let out = made.path().join(NAME);
    let options = ExportOptions::default();
    let write = move || export(&config, &stage, &state, layout, &options, &out);
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|error| CliError::failed(format!("the export thread failed: {error}")))??;
    Ok(made)
}

/// BLAKE3 of the names and contents of a folder's files.
fn digest(folder: &Path) -> std::io::Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut all = blake3::Hasher::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut hash = blake3::Hasher::new();
        hash.update_reader(std::fs::File::open(&path)?)?;
        all.update(&(name.len() as u64).to_le_bytes());
        all.update(name.as_bytes());
        all.update(hash.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_other_class_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (reads_text, layout, word) in [
            (false, Layout::Retrieval, "--layout retrieval"),
            (true, Layout::HuggingFace, "--layout huggingface"),
        ] {
            let config = serde_json::json!({"model_type": "blip-2",
                "qformer_config": {"use_qformer_text_input": reads_text}});
            std::fs::write(folder.path().join(EXPORT_FILE), config.to_string()).unwrap();
            let error = check_class("export", folder.path(), layout).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.exit(), blip2_run::exit::Exit::Usage);
            let other = if reads_text { Layout::Retrieval } else { Layout::HuggingFace };
            check_class("export", folder.path(), other).unwrap();
        }
    }

    #[test]
    fn a_models_digest_is_that_of_names_and_contents() {
        let made = |name: &str, content: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), "{}").unwrap();
            std::fs::write(folder.path().join(name), content).unwrap();
            digest(folder.path()).unwrap()
        };
        assert_eq!(made("a", "x"), made("a", "x"));
        assert_ne!(made("a", "x"), made("b", "x"));
        assert_ne!(made("a", "x"), made("a", "y"));
    }
}
