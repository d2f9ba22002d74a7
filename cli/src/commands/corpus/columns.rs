//! Names of columns on the command line.

use blip2_dataset::corpus::columns::ColumnNames;
use clap::Args;

use crate::error::CliError;
use crate::named_columns::typed_over;

const ROLES: [&str; 8] = ["image", "caption", "captions", "key", "status", "sha256", "sha256_of", "url"];

#[derive(Debug, Args)]
pub(crate) struct ColumnArguments {
    /// Name of a column, for example `image=photo`; an empty name switches an optional one off (`sha256=`);
    /// `sha256_of=stored` or `download` says whose hash is recorded. May be repeated.
    #[arg(long = "column", value_name = "ROLE=NAME")]
    column: Vec<String>,
}

impl ColumnArguments {
    /// The defaults with what was named.
    ///
    /// # Errors
    /// Usage: something else is named.
    pub(crate) fn names(&self) -> Result<ColumnNames, CliError> {
        typed_over(&ColumnNames::default(), &self.column, &ROLES)
    }
}
