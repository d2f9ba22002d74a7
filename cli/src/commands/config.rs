//! `config show` and `config schema`.

use blip2_run::exit::Exit;
use clap::Args;
use clap::Subcommand;

use super::print_text;
use crate::config::ConfigArguments;
use crate::config::{json_schema, load, settings_as_json, settings_as_text};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct ConfigCommandArguments {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every value with its origin.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of configuration files.
    Schema,
}

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
