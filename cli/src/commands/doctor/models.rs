//! Whether the models that a run names are there and fit.

use blip2_doctor::check::{Check, Finding};
use blip2_store::fetch::{is_url, model_exists};
use blip2_worker::check_models;

use crate::config::RunConfig;
use crate::places::chosen_checkpoint;

const MODELS: Check = Check {
    name: "models",
    asks: "are the models that the stages need there, and do they fit?",
    remedy: "blip2 models check says it part by part; blip2 models list and models get fetch the published ones",
};
#[cfg(test)]
pub(super) const CHECKS: &[&Check] = &[&MODELS];

/// Looks at shapes and headers; no weights are read, and nothing is fetched: of models at URLs only whether
/// they are there.
pub(super) async fn examine(config: &RunConfig) -> Finding {
    if config.trained_stages().next().is_none() {
        return MODELS.red("no stage has steps: no model is asked for");
    }
    let mut config = config.clone();
    match chosen_checkpoint(&config.model.init_checkpoint, None).await {
        Ok(chosen) => config.model.init_checkpoint = chosen,
        Err(error) => return MODELS.red(format!("model.init_checkpoint: {error}")),
    }
    let model = &config.model;
    let places = [
        &model.image_encoder,
        &model.language_model,
        &model.qformer_init,
        &model.qformer_tokenizer,
        &model.init_checkpoint,
    ];
    let elsewhere: Vec<&String> = places.into_iter().filter(|place| is_url(place)).collect();
    for place in &elsewhere {
        if let Err(error) = model_exists(place).await {
            return MODELS.red(error.to_string());
        }
    }
    if !elsewhere.is_empty() {
        let words = format!(
            "{} at URLs, which are there; whether they fit is seen when they are fetched",
            elsewhere.len()
        );
        return MODELS.yellow(words);
    }
    let mut named = config.worker();
    // Of the models alone; the device has a check of its own.
    named.train.device = "cpu".into();
    let checked = tokio::task::spawn_blocking(move || check_models(&named, &named)).await;
    match checked {
        Err(error) => MODELS.red(error.to_string()),
        Ok(checked) => match checked.problems().next() {
            Some((key, problem)) => MODELS.red(format!("{key}: {problem}")),
            None => MODELS.green(format!("{} parts, every tensor in its shape", checked.parts.len())),
        },
    }
}
