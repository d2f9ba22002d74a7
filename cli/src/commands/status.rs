//! `status`: what a run's coordinator says of it, and its store when none answers.

mod curves;
mod screen;
mod text;

use std::time::Duration;

use blip2_run::exit::Exit;
use clap::Args;
use tokio::time::Instant;

use super::run_source::{Known, PATIENCE, Source};
use super::run_target::RunTarget;
use super::{print_json, print_text};
use crate::error::CliError;
use crate::progress::status_json;
use crate::stored_status::{ending_of, has_ended};
use screen::Screen;
use text::live_text;

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    run: RunTarget,
    /// Show again every second until the run ends: in place and with curves on a terminal, else a line
    /// whenever there is news.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

const ASK_EVERY: Duration = Duration::from_secs(1);
/// Asks once, or every second until the run has ended.
pub(crate) async fn run(arguments: StatusArguments) -> Result<Exit, CliError> {
    let mut source = arguments.run.open().await?;
    if arguments.watch {
        return watch(&mut source, arguments.json).await;
    }
    let known = source.ask().await?;
    match arguments.json {
        true => print_json(&known_json(&known))?,
        false => print_text(&known_text(&known))?,
    }
    Ok(Exit::Done)
}

/// Shows the run until it has ended, and says how.
async fn watch(source: &mut Source, json: bool) -> Result<Exit, CliError> {
    let mut screen = Screen::new();
    let mut heard = Instant::now();
    loop {
        let known = source.ask().await?;
        if json {
            print_json(&known_json(&known))?;
        } else {
            if screen.wants_earlier_steps() {
                screen.show_earlier(&source.earlier_steps().await);
            }
            screen.show(&known)?;
        }
        let end = match &known {
            Known::Live(status) => has_ended(&status.state).then(|| ending_of(status)),
            Known::Stored(stored) => stored.has_ended().then(|| stored.line()),
        };
        if let Some(end) = end {
            if !json {
                print_text(&format!("{end}\n"))?;
            }
            return Ok(Exit::Done);
        }
        match known {
            Known::Live(_) => heard = Instant::now(),
            Known::Stored(_) if heard.elapsed() >= PATIENCE => {
                let seconds = PATIENCE.as_secs();
                return Err(CliError::failed(format!(
                    "no coordinator of this run has answered for {seconds} s, and the run has not ended"
                )));
            }
            Known::Stored(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn known_json(known: &Known) -> serde_json::Value {
    match known {
        Known::Live(status) => status_json(status),
        // It always serialises: numbers and strings.
        Known::Stored(stored) => serde_json::to_value(stored).unwrap_or_default(),
    }
}

fn known_text(known: &Known) -> String {
    match known {
        Known::Live(status) => live_text(status),
        Known::Stored(stored) => {
            let held_out = stored.held_out_line().map_or(String::new(), |line| format!("  {line}\n"));
            format!("{}\n{held_out}", stored.line())
        }
    }
}
