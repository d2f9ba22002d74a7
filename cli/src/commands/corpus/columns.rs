//! Names of columns on the command line.

use blip2_dataset::corpus::columns::{ColumnNames, HashOf};
use clap::Args;

use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct ColumnArguments {
    /// Name of a column, for example `image=photo`; an empty name switches an optional one off (`sha256=`);
    /// `sha256_of=stored` or `download` says whose hash is recorded. May be repeated.
    #[arg(long = "column", value_name = "ROLE=NAME")]
    column: Vec<String>,
}

impl ColumnArguments {
    /// The defaults with what was named.
    pub(crate) fn names(&self) -> Result<ColumnNames, CliError> {
        let mut names = ColumnNames::default();
        for named in &self.column {
            let (role, name) = named.split_once('=').unwrap_or((named, ""));
            let place = match role {
                "image" => &mut names.image,
                "caption" => &mut names.caption,
                "captions" => &mut names.captions,
                "key" => &mut names.key,
                "status" => &mut names.status,
                "sha256" => &mut names.sha256,
                "sha256_of" => {
                    names.sha256_of = match name {
                        "auto" => HashOf::Auto,
                        "stored" => HashOf::Stored,
                        "download" => HashOf::Download,
                        _ => {
                            let text = format!("--column {named}: one of auto, stored, download");
                            return Err(CliError::usage(text));
                        }
                    };
                    continue;
                }
                "url" => &mut names.url,
                _ => {
                    return Err(CliError::usage(format!(
                        "--column {named}: one of image, caption, captions, key, status, sha256, url, then `=` and the \
                         column's name; or sha256_of=stored or download"
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
    fn columns_are_named_and_switched_off() {
        let names = |column: &[&str]| {
            ColumnArguments { column: column.iter().map(|text| (*text).to_owned()).collect() }.names()
        };
        let found = names(&["image=photo", "sha256="]).unwrap();
        assert_eq!((found.image.as_str(), found.sha256.as_str(), found.key.as_str()), ("photo", "", "key"));
        assert_eq!(names(&["sha256_of=download"]).unwrap().sha256_of, HashOf::Download);
        assert!(names(&["sha256_of=other"]).unwrap_err().to_string().contains("auto, stored, download"));
        assert!(names(&["picture=photo"]).unwrap_err().to_string().contains("one of image"));
    }
}
