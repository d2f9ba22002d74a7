//! `config show` and `config schema`.

use super::print_text;
use crate::arguments::{ConfigCommand, ConfigCommandArguments};
use crate::config::{json_schema, load, settings_as_json, settings_as_text};
use crate::error::CliError;
use blip2_run::exit::Exit;

/// Prints the configuration or its schema.
pub(crate) fn run(arguments: ConfigCommandArguments) -> Result<Exit, CliError> {
    match arguments.command {
        ConfigCommand::Show { config, json } => {
            let settings = load(&config)?.settings;
            print_text(&if json { settings_as_json(&settings) } else { settings_as_text(&settings) })?;
        }
        ConfigCommand::Schema => print_text(&format!("{:#}\n", json_schema()?))?,
    }
    Ok(Exit::Done)
}
