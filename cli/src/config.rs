//! The configuration of a run: its sections, how its layers are read, and where every value came from.

mod keys;
mod layers;
mod lines;
mod model_folder;
mod range;
#[cfg(test)]
mod reference;
mod relations;
mod run;
mod schema;
mod setting;
mod show;
mod stages;
mod valid;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use blip2_store::secret_url::without_credentials;
use blip2_worker::WorkerConfig;
use blip2_worker::config::hash::is_hashed;
use serde::Serialize;

pub(crate) use layers::{Layers, Loaded};
pub(crate) use run::{LaunchSection, MetricsSection, RunConfig};
pub(crate) use schema::json_schema;
pub(crate) use show::{settings_as_json, settings_as_text};
pub(crate) use valid::ValidRun;

use crate::error::CliError;

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigArguments {
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one value, for example `--set stage1.steps=1000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Reads all layers: defaults, file (and its bases), environment, `--set`.
pub(crate) fn load(arguments: &ConfigArguments) -> Result<Loaded, CliError> {
    let mut layers = Layers::new()?;
    if let Some(path) = &arguments.config {
        layers.apply_file(path)?;
    }
    layers.apply_environment(std::env::vars())?;
    layers.apply_arguments(&arguments.set)?;
    let loaded = layers.finish()?;
    warn(&loaded.config);
    Ok(loaded)
}

/// Reads presets that are part of the program, each the base of the next, then environment and `--set`.
pub(crate) fn load_presets(named: &[(&str, &str)], set: &[String]) -> Result<Loaded, CliError> {
    let mut layers = Layers::new()?;
    for (name, text) in named {
        layers.apply_text(name.as_ref(), text)?;
    }
    layers.apply_environment(std::env::vars())?;
    layers.apply_arguments(set)?;
    let loaded = layers.finish()?;
    warn(&loaded.config);
    Ok(loaded)
}

fn warn(config: &RunConfig) {
    relations::warnings(config).iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Dotted keys with values that are not the defaults, by key.
pub(crate) fn changed_values(config: &RunConfig) -> Result<Vec<(String, String)>, CliError> {
    let (own, defaults) = (leaves(config)?, leaves(&RunConfig::default())?);
    let changed = own.into_iter().filter(|(key, value)| defaults.get(key) != Some(value));
    Ok(changed.map(|(key, value)| (key, value.to_string())).collect())
}

/// Dotted keys whose values differ between two configurations, those aside that change no result.
pub(crate) fn differing_keys(a: &WorkerConfig, b: &WorkerConfig) -> Result<Vec<String>, CliError> {
    let (left, right) = (leaves(&without_credentials(a))?, leaves(&without_credentials(b))?);
    let differs = |key: &&String| left.get(*key) != right.get(*key);
    let all: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    Ok(all.into_iter().filter(|key| is_hashed(key)).filter(differs).cloned().collect())
}

fn leaves(config: &impl Serialize) -> Result<BTreeMap<String, toml::Value>, CliError> {
    let table = toml::Table::try_from(config)
        .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
    Ok(keys::leaves(&table))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use blip2_worker::config_hash;

    use super::*;

    /// Preset, hash of what a step is a function of, and hashes of the texts that are stored with a run and
    /// sent to workers: runs that were begun go on.
    const PINNED: &str = include_str!("config/pinned.txt");

    #[test]
    fn what_is_hashed_and_stored_of_every_preset_is_what_it_was() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
        let found: String = names
            .iter()
            .map(|name| {
                let mut layers = Layers::new().unwrap();
                layers.apply_file(&folder.join(name)).unwrap();
                let config = layers.finish().unwrap().config;
                let worker = config.worker();
                let texts = [toml::to_string(&config).unwrap(), toml::to_string(&worker).unwrap()];
                let [run, sent] = texts.map(|text| short(&text));
                format!("{name} {} {run} {sent}\n", &config_hash(&worker)[..16])
            })
            .collect();
        assert_eq!(found, PINNED);
    }
}
