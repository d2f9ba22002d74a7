//! `blip2`: pre-trains, evaluates and exports BLIP-2 from one binary.

mod arguments;
mod commands;
mod config;
mod error;
mod exit;
mod identity;
mod launch;
mod logging;
mod measure;
mod metrics;
mod progress;
mod report;
mod run_folder;
mod session;
mod signals;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use error::CliError;
use exit::Exit;

// The system's allocator hands the pages of a step's buffers back and forth with the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.log);
    // Fails only when a provider is already there, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(arguments.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit().into()
        }
    }
}

fn run(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Quickstart(arguments) => on_runtime(commands::quickstart::run(arguments)),
        Command::Train(arguments) => on_runtime(commands::train::run(arguments)),
        Command::Coordinator(arguments) => on_runtime(commands::coordinator::run(arguments)),
        Command::Worker(arguments) => on_runtime(commands::worker::run(arguments)),
        Command::Status(arguments) => on_runtime(commands::status::run(arguments)),
        Command::Checkpoint(arguments) => on_runtime(commands::checkpoint::run(arguments)),
        Command::Eval(arguments) => on_runtime(commands::eval::run(arguments)),
        Command::Generate(arguments) => on_runtime(commands::generate::run(arguments)),
        Command::Config(arguments) => commands::config::run(arguments),
    }
}

/// Two threads do all input and output; computing has threads of its own.
fn on_runtime(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the I/O threads: {error}")))?;
    runtime.block_on(work)
}
