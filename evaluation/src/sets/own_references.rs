//! What is right, in tables of one's own and in Parquet files: no image is looked for.

use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;

use super::captioned::{self, CaptionedImage};
use super::{own_rows, questioned};
use crate::answer_files::questions::Question;
use crate::job_error::Result;

/// Whether a file is a table of one's own or a Parquet file, by its name.
pub fn is_own(path: &str) -> bool {
    own_rows::is_table(path) || path.ends_with(".parquet")
}

/// The images of a file with their captions, in columns that are called as usual or as `columns` says.
///
/// # Errors
/// A file that cannot be read or is of another form.
pub async fn captions(source: &str, columns: &ColumnNames) -> Result<Vec<CaptionedImage>> {
    match own_rows::is_table(source) {
        true => Ok(captioned::of_table(Path::new(source), columns)?),
        false => {
            let sources = [source.to_owned()];
            let set = captioned::of_parquet(&sources, columns, 0).await?;
            Ok(set.items.into_iter().map(|item| item.row).collect())
        }
    }
}

/// The questions of a file with their answers, likewise.
///
/// # Errors
/// A file that cannot be read or is of another form.
pub async fn questions(source: &str, columns: &ColumnNames) -> Result<Vec<Question>> {
    match own_rows::is_table(source) {
        true => Ok(questioned::of_rows(Path::new(source), columns)?),
        false => {
            let set = questioned::of_parquet(&[source.to_owned()], columns, 0).await?;
            Ok(set.items.into_iter().map(|item| item.row).collect())
        }
    }
}
