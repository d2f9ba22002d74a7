//! `checkpoint import`: published weights become the first checkpoint of a new run.

use blip2_dataset::quarantine::QuarantineList;
use blip2_run::catalogue::Catalogue;
use blip2_run::commit::{CheckpointRecord, ShardRecord};
use blip2_run::exit::Exit;
use blip2_store::secret_url::redacted;
use blip2_worker::import::import;
use clap::Args;
use serde_json::json;

use super::print_json;
use crate::again::of_this_program;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::places::typed_model;
use crate::run_folder::{Purpose, RunFolder};

/// Published weights become the first checkpoint of a new run.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Folder or URL of the run to make: its configuration is that of `--config`, with this root.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The weights: a folder of `Blip2ForConditionalGeneration` (stage 2) or `Blip2ForImageTextRetrieval`
    /// (stage 1), or LAVIS's file (.pth or .safetensors) of either stage. Paths and URLs.
    #[arg(long, value_name = "FOLDER_OR_FILE")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The command that trains the run from its imported weights.
fn train_command(arguments: &ImportArguments) -> String {
    let ImportArguments { run, config, .. } = arguments;
    let mut words = vec!["train".to_owned()];
    if let Some(file) = &config.config {
        words.extend(["--config".to_owned(), file.display().to_string()]);
    }
    words.extend(config.set.iter().flat_map(|value| ["--set".to_owned(), value.clone()]));
    words.extend(["--set".to_owned(), format!("run.root={run}"), "--resume".to_owned()]);
    of_this_program(words)
}

/// Reads and compares the weights, then makes the run.
pub(crate) async fn run(arguments: &ImportArguments) -> Result<Exit, CliError> {
    let mut config = load(&arguments.config)?.config;
    config.run.root.clone_from(&arguments.run);
    let worker = config.worker().with_models_here().await?;
    let from = typed_model("--from", &arguments.from).await?;
    let worker = worker.validate()?;
    let imported = tokio::task::spawn_blocking(move || import(&worker, &from))
        .await
        .map_err(|error| CliError::failed(format!("the import thread failed: {error}")))??;
    // Only now: weights that do not fit leave no run behind.
    let folder = RunFolder::open(config, false, Purpose::Import).await?;
    let part = ShardRecord::of(&imported.part, &imported.content);
    let record = CheckpointRecord {
        run_id: folder.config.run.id.clone(),
        config_hash: folder.config_hash.clone(),
        manifest_hash: folder.manifest_hash.clone(),
        parts: vec![part.clone()],
        ..CheckpointRecord::new(&folder.config.schedule(), 0, 0)
    };
    let catalogue = Catalogue::new(&folder.root);
    catalogue.folder(&record.name).join(&part.name).put(imported.content).await?;
    let record = catalogue.write_commit(&record, &QuarantineList::default()).await?;
    if arguments.json {
        print_json(&json!({
            "run": redacted(&arguments.run), "name": record.name, "stage": imported.stage.number, "digest": imported.digest,
            "begun_anew": imported.begun_anew,
        }))?;
    } else {
        eprintln!(
            "checkpoint {} of {} holds the weights of stage {} ({}); train from them with {}",
            record.name,
            redacted(&arguments.run),
            imported.stage.number,
            imported.stage.name(),
            train_command(arguments)
        );
        if !imported.begun_anew.is_empty() {
            eprintln!("not in the weights, so begun anew: {}", imported.begun_anew.join(", "));
        }
    }
    Ok(Exit::Done)
}
