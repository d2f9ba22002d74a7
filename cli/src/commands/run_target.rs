//! The run that a command asks about, as it is named on the command line.

use std::path::PathBuf;

use clap::Args;

use super::run_source::Source;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::tls::TlsArguments;

#[derive(Debug, Args)]
pub(crate) struct RunTarget {
    /// A run (folder or URL), or the address of one of its coordinators, for example
    /// `http://127.0.0.1:7100`.
    #[arg(value_name = "RUN_OR_ADDRESS")]
    pub(crate) target: String,
    /// File with the run token, for a coordinator that was started with one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArguments,
}

impl RunTarget {
    /// Who is asked.
    ///
    /// # Errors
    /// The run is not there, the token cannot be read, or the TLS files do not fit.
    pub(super) async fn open(self) -> Result<Source, CliError> {
        let environment = load(&ConfigArguments::default())?.config;
        let tls = self.tls.over(environment.tls);
        Source::open(&self.target, tls, self.token_file.as_deref()).await
    }
}
