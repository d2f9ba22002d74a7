//! `coordinator`: the run's coordinator alone.

use serde_json::json;
use tokio::net::TcpListener;

use super::print_json;
use crate::arguments::CoordinatorArguments;
use crate::config::load;
use crate::error::CliError;
use crate::exit::Exit;
use crate::progress::Audience;
use crate::run_folder::RunFolder;
use crate::session::Session;
use crate::signals::Signals;
use crate::token::read_token;

/// Coordinates a run whose workers are started elsewhere.
pub(crate) async fn run(arguments: CoordinatorArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    let token = read_token(arguments.token_file.as_deref())?;
    if arguments.token_file.is_none() && !arguments.listen.ip().is_loopback() {
        return Err(CliError::usage(format!(
            "--listen {}: other machines could join this run; give it a token with --token-file FILE",
            arguments.listen
        )));
    }
    let config = load(&arguments.config)?.config;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| CliError::failed(format!("cannot listen on {}: {error}", arguments.listen)))?;
    let address = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
    let folder = RunFolder::open(config, arguments.resume).await?;
    let session = Session::prepare(folder, token).await?;
    print_json(&json!({ "listening": address.to_string() }))?;

    let forced = signals.forced();
    let finished = tokio::select! {
        finished = session.run(listener, signals.graceful(), Audience::detect(arguments.json)) => finished?,
        () = forced.cancelled() => {
            return Err(CliError::failed("ended at once by a second signal; the last checkpoint holds"));
        }
    };
    if arguments.json {
        print_json(&json!({
            "checkpoint": finished.checkpoint,
            "steps": finished.status.step,
            "seconds": finished.seconds,
        }))?;
    }
    Ok(Exit::Done)
}
