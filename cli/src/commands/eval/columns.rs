//! What the columns of one's own set are called, as it is typed.

use blip2_dataset::corpus::columns::ColumnNames;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::named_columns::typed_over;

const ROLES: [&str; 6] = ["image", "caption", "captions", "question", "answers", "key"];

#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(super) struct SetColumns {
    /// Name of a column of your own table or Parquet files, for example `question=asked`: of `image`,
    /// `caption`, `captions`, `question`, `answers` or `key`, as below `data.columns`. May be repeated.
    #[arg(long = "column", value_name = "ROLE=NAME", help_heading = None::<&str>)]
    column: Vec<String>,
}

impl SetColumns {
    /// Whether any is named.
    pub(super) fn are_named(&self) -> bool {
        !self.column.is_empty()
    }

    /// The usual names with what was named.
    ///
    /// # Errors
    /// Usage: something else is named.
    pub(super) fn names(&self) -> Result<ColumnNames, CliError> {
        self.over(ColumnNames::default())
    }

    /// Other names with what was named.
    ///
    /// # Errors
    /// As of [`SetColumns::names`].
    pub(super) fn over(&self, names: ColumnNames) -> Result<ColumnNames, CliError> {
        typed_over(&names, &self.column, &ROLES)
    }
}
