//! `blip2`: pre-trains, evaluates and exports BLIP-2 from one binary.
//!
//! The binary is [`run`]. Besides it, the readers of what a user or a store hands in are here to be tested on
//! their own: [`check_command_line`], [`check_configuration`], [`check_run_file`], [`check_token`].

// First, because its macros hold in the modules below it.
#[macro_use]
mod unbreakable;
mod work_page;

mod again;
mod arguments;
mod audit;
mod bench;
mod command_line;
mod commands;
mod config;
mod decoding;
mod environment;
mod error;
mod examples;

mod figures;
mod freed_pages;
mod gone;
mod identity;
mod kubeflow;
mod launch;
mod left_out;
mod live_page;
mod logging;
mod measured;
mod metrics;
mod named_columns;
mod otlp;
mod places;
mod progress;
mod report;
mod row_looks;
mod run_folder;
mod session;
mod signals;
mod standby;
mod stored_status;
mod tls;
mod token;
mod toolkit;
mod typed_numbers;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use blip2_run::exit::Exit;
use blip2_run::layout;
use blip2_tensors::device::failure;

use arguments::Command;
use clap::Parser as _;
use error::CliError;

/// How long calls that block may take to end when the command has.
const WIND_DOWN: Duration = Duration::from_secs(1);

/// Does what the command line asks for; the exit code says how it ended.
pub fn run() -> ExitCode {
    toolkit::beside_the_program();
    let arguments = command_line::typed();
    logging::start(arguments.log, arguments.command.is_unattended());
    // One that cannot be raised is as high as it was.
    if let Err(error) = blip2_proto::transport::raise_descriptor_limit() {
        tracing::debug!(%error, "the limit of open files is not raised");
    }
    if arguments.command.trains() {
        freed_pages::keep();
    }
    blip2_tensors::device::keep_kernels(blip2_store::fetch::cache_folder().join("kernels"));
    // Fails only when a provider is already there, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    failure::watch_panics();
    match unless_the_card_fails(arguments.command) {
        Ok(exit) => exit.into(),
        // Who reads the output has seen enough.
        Err(CliError::OutputClosed) => Exit::Done.into(),
        Err(error) => {
            eprintln!("error: {}", blip2_store::secret_url::redacted_text(&error.to_string()));
            error.exit().into()
        }
    }
}

/// Does what a command says; that a card failed under it is an error like any other, not a panic.
fn unless_the_card_fails(command: Command) -> Result<Exit, CliError> {
    catch_unwind(AssertUnwindSafe(|| dispatch(command))).unwrap_or_else(|panic| {
        let said =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        match failure::behind(said.unwrap_or_default()) {
            Some(failure) => {
                let message = format!("the device: {failure}; {}", failure.trouble.remedy());
                Err(CliError::Reported { exit: Exit::CardFailed, message })
            }
            None => resume_unwind(panic),
        }
    })
}

/// Whether this can be typed after `blip2`.
///
/// # Errors
/// The message for the user.
pub fn check_command_line(words: &[String]) -> Result<(), String> {
    let all = std::iter::once("blip2").chain(words.iter().map(String::as_str));
    arguments::Arguments::try_parse_from(all).map(drop).map_err(|error| error.to_string())
}

/// Whether this is the text of a configuration file that lies on the defaults and fits together.
///
/// # Errors
/// The message for the user, which names key and line.
pub fn check_configuration(text: &str) -> Result<(), String> {
    let mut layers = config::Layers::new().map_err(|error| error.to_string())?;
    layers.apply_text(Path::new(layout::CONFIGURATION), text).map_err(|error| error.to_string())?;
    let loaded = layers.finish().map_err(|error| error.to_string())?;
    check(loaded.config)
}

/// Whether these are the bytes of a stored run's `run.toml`.
///
/// # Errors
/// The message for the user.
pub fn check_run_file(bytes: &[u8]) -> Result<(), String> {
    check(run_folder::parse_stored(layout::CONFIGURATION, bytes).map_err(|error| error.to_string())?)
}

/// Whether these are the bytes of a token file.
///
/// # Errors
/// The message for the user.
pub fn check_token(bytes: &[u8]) -> Result<(), String> {
    token::token_of(Path::new("token"), bytes).map(drop).map_err(|error| error.to_string())
}

fn check(config: config::RunConfig) -> Result<(), String> {
    config.validate().map(drop).map_err(|error| error.to_string())
}

fn dispatch(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Quickstart(arguments) => on_runtime(commands::quickstart::run(arguments)),
        Command::Train(arguments) => on_runtime(commands::train::run(arguments)),
        Command::Coordinator(arguments) => on_runtime(commands::coordinator::run(arguments)),
        Command::Worker(arguments) => on_runtime(commands::worker::run(arguments)),
        Command::Plan(arguments) => commands::plan::run(&arguments),
        Command::Doctor(arguments) => on_runtime(commands::doctor::run(*arguments)),
        Command::Status(arguments) => on_runtime(commands::status::run(arguments)),
        Command::Stop(arguments) => on_runtime(commands::stop::run(arguments)),
        Command::Trace(arguments) => on_runtime(commands::trace::run(arguments)),
        Command::Checkpoint(arguments) => on_runtime(commands::checkpoint::run(arguments)),
        Command::Report(arguments) => on_runtime(commands::report::run(arguments)),
        Command::Audit(arguments) => on_runtime(commands::audit::run(arguments)),
        Command::Eval(arguments) => on_runtime(commands::eval::run(arguments)),
        Command::Generate(arguments) => on_runtime(commands::generate::run(arguments)),
        Command::Corpus(arguments) => on_runtime(commands::corpus::run(arguments)),
        Command::Curate(arguments) => on_runtime(commands::curate::run(*arguments)),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Models(arguments) => on_runtime(commands::models::run(arguments)),
        Command::Chat(arguments) => on_runtime(commands::chat::run(arguments)),
        Command::Bench(arguments) => on_runtime(bench::run(arguments)),
        Command::Config(arguments) => commands::config::run(arguments),
        Command::Completions(arguments) => commands::completions::complete(&arguments, command_line::whole()),
        Command::Man(arguments) => commands::completions::write_pages(&arguments, command_line::whole()),
    }
}

/// Two threads do all input and output; computing has threads of its own.
fn on_runtime(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the I/O threads: {error}")))?;
    let ended = runtime.block_on(work);
    // What still computes computes for nobody: a command that was ended at once must not wait for it.
    runtime.shutdown_timeout(WIND_DOWN);
    ended
}
