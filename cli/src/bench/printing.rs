//! What a bench found, as it is printed.

use blip2_run::exit::Exit;
use serde::Serialize;

use crate::commands::{print_json, print_text};
use crate::error::CliError;

/// Measures on a thread that may be busy for long, and prints what it found: one JSON line, or `text` of it.
pub(super) async fn measure_and_print<R: Serialize + Send + 'static>(
    json: bool,
    measure: impl FnOnce() -> Result<R, CliError> + Send + 'static,
    text: fn(&R) -> String,
) -> Result<Exit, CliError> {
    let report = tokio::task::spawn_blocking(measure)
        .await
        .map_err(|error| CliError::failed(format!("the measuring thread failed: {error}")))??;
    print_report(json, &report, text)
}

/// Prints what was found.
pub(super) fn print_report<R: Serialize>(
    json: bool,
    report: &R,
    text: fn(&R) -> String,
) -> Result<Exit, CliError> {
    match json {
        true => print_json(report)?,
        false => print_text(&text(report))?,
    }
    Ok(Exit::Done)
}
