//! `stop`: asks whoever leads a run to save and end it, and waits for that.

use std::time::Duration;

use blip2_run::exit::Exit;
use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::print_json;
use super::run_source::{Known, PATIENCE};
use super::run_target::RunTarget;
use crate::error::CliError;
use crate::stored_status::{ending_of, has_ended};

#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    #[command(flatten)]
    run: RunTarget,
    /// Print how the run ended as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a run ended.
struct Ended {
    state: String,
    step: u64,
    checkpoint: String,
    words: String,
}

/// Asks until the run has ended: whoever leads it may change meanwhile.
pub(crate) async fn run(arguments: StopArguments) -> Result<Exit, CliError> {
    let mut source = arguments.run.open().await?;
    let mut asked: Option<Instant> = None;
    loop {
        match source.ask().await? {
            Known::Live(status) if has_ended(&status.state) => {
                let words = ending_of(&status);
                let (state, checkpoint) = (status.state, status.last_checkpoint);
                return tell(&Ended { state, step: status.step, checkpoint, words }, arguments.json);
            }
            Known::Live(status) => {
                // One that has gone by now, or just been fenced off, is followed by another or by the end.
                match source.stop().await {
                    Err(error) if asked.is_none() || error.exit() == Exit::Refused => return Err(error),
                    _ => {}
                }
                if asked.replace(Instant::now()).is_none() {
                    eprintln!("run {} is asked to save and stop, at step {}", status.run_id, status.step);
                }
            }
            Known::Stored(stored) if stored.has_ended() => {
                let words = stored.line();
                let (state, checkpoint) = (stored.state, stored.last_checkpoint);
                return tell(&Ended { state, step: stored.step, checkpoint, words }, arguments.json);
            }
            Known::Stored(stored) => {
                if let Some(refusal) = source.take_refusal() {
                    return Err(refusal);
                }
                if asked.is_none_or(|asked| asked.elapsed() >= PATIENCE) {
                    return Err(CliError::failed(stored.line()));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The last words; a run that failed is no run that was stopped.
fn tell(ended: &Ended, json: bool) -> Result<Exit, CliError> {
    let Ended { state, step, checkpoint, words } = ended;
    if state == "failed" {
        return Err(CliError::failed(words.clone()));
    }
    match json {
        true => print_json(&json!({ "state": state, "step": step, "checkpoint": checkpoint }))?,
        false => eprintln!("{words}"),
    }
    Ok(Exit::Done)
}
