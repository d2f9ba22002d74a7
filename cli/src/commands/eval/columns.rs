//! What the columns of one's own set are called, as it is typed.

use blip2_dataset::corpus::columns::ColumnNames;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

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
    pub(super) fn over(&self, mut names: ColumnNames) -> Result<ColumnNames, CliError> {
        for named in &self.column {
            let (role, name) = named.split_once('=').unwrap_or((named, ""));
            let place = match role {
                "image" => &mut names.image,
                "caption" => &mut names.caption,
                "captions" => &mut names.captions,
                "question" => &mut names.question,
                "answers" => &mut names.answers,
                "key" => &mut names.key,
                _ => {
                    return Err(CliError::usage(format!(
                        "--column {named}: one of image, caption, captions, question, answers, key, then `=` and the \
                         column's name"
                    )));
                }
            };
            name.clone_into(place);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_over_others() {
        let typed = |column: &[&str]| SetColumns { column: column.iter().copied().map(Into::into).collect() };
        let of_run = ColumnNames { question: "q".into(), answers: "a".into(), ..ColumnNames::default() };
        let names = typed(&["question=asked", "captions="]).over(of_run).unwrap();
        assert_eq!(
            (names.question.as_str(), names.answers.as_str(), names.captions.as_str()),
            ("asked", "a", "")
        );
        assert_eq!(typed(&[]).names().unwrap(), ColumnNames::default());
        let error = typed(&["picture=x"]).names().unwrap_err().to_string();
        assert!(error.contains("--column picture=x: one of image"), "{error}");
    }
}
