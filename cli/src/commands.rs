//! One module a command.

pub(crate) mod audit;
pub(crate) mod chat;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod coordinator;
pub(crate) mod corpus;
pub(crate) mod curate;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod endpoint;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod leasing;
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod run_source;
pub(crate) mod run_target;
pub(crate) mod share;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod trace;
pub(crate) mod train;
pub(crate) mod worker;

use std::io::Write as _;

use crate::error::CliError;

/// Prints one JSON line on standard output.
///
/// # Errors
/// [`CliError::OutputClosed`] when the reader went away: the end of a command that only shows something, and
/// of no interest to one that does something ([`even_unread`]).
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value)
        .map_err(|error| CliError::failed(format!("the result does not serialise: {error}")))?;
    print_text(&format!("{line}\n"))
}

/// Prints text on standard output.
pub(crate) fn print_text(text: &str) -> Result<(), CliError> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::failed(format!("cannot write to standard output: {error}")),
    })
}

/// Goes on when nobody reads what was printed.
pub(crate) fn even_unread(printed: Result<(), CliError>) -> Result<(), CliError> {
    match printed {
        Err(CliError::OutputClosed) => Ok(()),
        printed => printed,
    }
}
