//! `models check`: what the models of a configuration are, and whether they fit.

use std::fmt::Write as _;

use blip2_cost::words::thousands;
use blip2_curation::model_check;
use blip2_evaluation::model_folder::PartReport;
use blip2_worker::{ModelCheck, Precision, check_models};
use clap::Args;
use serde_json::json;

use super::get::megabytes;
use crate::commands::{print_json, print_text};
use crate::config::{ConfigArguments, RunConfig, load};
use crate::error::CliError;
use crate::places::chosen_checkpoint;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

/// Something that does not fit.
struct Problem {
    key: String,
    text: String,
}

/// Looks at every part, prints them all, and says all that does not fit.
pub(super) async fn run(arguments: CheckArguments) -> Result<Exit, CliError> {
    let config = load(&arguments.config)?.config;
    let mut problems = Vec::new();
    let check = look(config, &mut problems).await?;
    problems
        .extend(check.problems().map(|(key, text)| Problem { key: key.to_owned(), text: text.to_owned() }));
    match arguments.json {
        true => {
            let listed = problems.iter().map(|Problem { key, text }| json!({ "key": key, "problem": text }));
            print_json(&json!({
                "ok": problems.is_empty(), "parts": check.parts, "trained": check.trained,
                "precision": check.precision, "problems": listed.collect::<Vec<_>>(),
            }))?;
        }
        false => {
            print_text(&text(&check))?;
            for Problem { key, text } in &problems {
                eprintln!("problem: {key}: {text}");
            }
        }
    }
    if problems.is_empty() {
        return Ok(Exit::Done);
    }
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    };
    Err(CliError::config(format!("the models do not fit: {count}, named above")))
}

async fn look(mut config: RunConfig, problems: &mut Vec<Problem>) -> Result<ModelCheck, CliError> {
    let trains = config.trained_stages().next().is_some();
    let models = &config.curation.models;
    let curates = [&models.captioner, &models.clip, &models.itm].iter().any(|place| !place.is_empty());
    if !trains && !curates {
        let nothing = "no stage has steps and curation.models names nothing: no model is asked for";
        return Err(CliError::config(nothing));
    }
    let mut check = ModelCheck::default();
    if trains {
        match chosen_checkpoint(&config.model.init_checkpoint, None).await {
            Ok(chosen) => config.model.init_checkpoint = chosen,
            Err(error) => {
                problems.push(Problem { key: "model.init_checkpoint".into(), text: error.to_string() })
            }
        }
        let named = config.worker();
        let (mut here, errors) = named.with_models_that_are_here().await;
        problems
            .extend(errors.into_iter().map(|error| Problem { key: "model".into(), text: error.to_string() }));
        here.train.device = "cpu".into();
        check = off_the_runtime(move || check_models(&here, &named)).await?;
    }
    if curates {
        let named = config.curation.models;
        let here = match named.with_models_here().await {
            Ok(here) => here,
            Err(error) => {
                problems.push(Problem { key: "curation.models".into(), text: error.to_string() });
                named.clone()
            }
        };
        check.parts.extend(off_the_runtime(move || model_check::check_models(&here, &named)).await?);
    }
    Ok(check)
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CliError::failed(format!("looking at the models: {error}")))
}

/// The report for people.
fn text(check: &ModelCheck) -> String {
    let mut text = String::new();
    for part in &check.parts {
        text += &part_text(part);
    }
    for trained in &check.trained {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "stage {} ({}, {}) trains {} parameters in {} tensors",
            trained.stage,
            trained.name,
            trained.task,
            thousands(trained.parameters as u64),
            trained.tensors
        );
    }
    if let Some(Precision { compute, frozen_dtype }) = check.precision {
        let _ = writeln!(
            text,
            "computes products of what is trained in {compute} (train.compute), frozen models in {frozen_dtype} \
             (model.frozen_dtype)"
        );
    }
    text
}

fn part_text(part: &PartReport) -> String {
    let PartReport { part: name, key, place, kind, files, tensors, elements, parameters, dtypes, .. } = part;
    let mut text = format!("{name}: {key} = {place}\n");
    if !kind.is_empty() {
        let _ = writeln!(text, "  {kind}");
    }
    if let Some(parameters) = parameters {
        let _ = writeln!(text, "  {} parameters, every tensor in its shape", thousands(*parameters as u64));
    }
    if *tensors > 0 {
        let numbers = dtypes.join(", ");
        let _ = writeln!(
            text,
            "  {tensors} tensors of {} numbers in the files, {numbers}",
            thousands(*elements as u64)
        );
    }
    for file in files {
        let _ = writeln!(text, "  {}  {}", file.path.display(), megabytes(file.bytes));
    }
    if let Some(tokenizer) = &part.tokenizer {
        let added = tokenizer.added.as_ref().map_or(String::new(), |added| format!("; adds {added}"));
        let _ = writeln!(
            text,
            "  tokenizer: {} tokens ({}), {}{added}",
            tokenizer.tokens,
            tokenizer.kind,
            tokenizer.file.display()
        );
    }
    text
}
