//! Pictures that a source only names: where they lie, and how their names are made.

use std::error::Error;
use std::io::ErrorKind;

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStoreExt};

use crate::error::{DatasetError, Result};
use crate::ingest::prepare::too_many_bytes;
use crate::ingest::row::{Refusal, RejectReason};
use crate::store::Location;

/// Longer names are of nothing, bytes: stores refuse them, and a refusal is not to end the job.
const LONGEST_NAME: usize = 1024;
/// Characters of a name in a reason.
const SHOWN: usize = 100;

/// A folder or prefix with pictures.
#[derive(Debug, Clone)]
pub(super) struct PictureFolder(Location);

impl PictureFolder {
    pub(super) fn open(location: &str) -> Result<Self> {
        Location::parse(location.trim_end_matches('/')).map(Self)
    }

    /// The first of these that exists. `..` in a name is a name like any other: nothing above the folder is read.
    pub(super) async fn read(&self, names: &[String], limit: u64) -> Result<Result<Bytes, Refusal>> {
        for name in names.iter().filter(|name| name.len() <= LONGEST_NAME) {
            let location = self.0.join(name);
            let found = match location.store().get(location.path()).await {
                Ok(found) => found,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) if is_no_name(&error) => continue,
                Err(error) => return Err(location.failed("read", &error)),
            };
            if found.meta.size > limit {
                return Ok(Err(too_many_bytes(found.meta.size, limit)));
            }
            return found.bytes().await.map(Ok).map_err(|error| location.failed("read", &error));
        }
        Ok(Err((RejectReason::MissingPicture, format!("{} is not in {}", shown(names), self.0))))
    }
}

/// Names on one line, cut where they are long.
fn shown(names: &[String]) -> String {
    let cut = |name: &String| name.escape_debug().take(SHOWN).collect::<String>();
    names.iter().map(cut).collect::<Vec<_>>().join(", ")
}

/// Whether a file system says that nothing can have this name: one with a NUL, too long, or below a file.
fn is_no_name(error: &StoreError) -> bool {
    let causes = std::iter::successors(Some(error as &dyn Error), |error| (*error).source());
    let kinds = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| {
        matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidFilename | ErrorKind::NotADirectory)
    })
}

/// A picture's name made of parts of its row: `{row}`, `{key}` (the row in nine digits), `{shard}` (its first five),
/// `{url_file}` (what follows the last `/` of the URL).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NameTemplate(String);

impl NameTemplate {
    pub(super) fn parse(template: &str) -> Result<Self> {
        let mut rest = template.to_owned();
        for part in ["{row}", "{key}", "{shard}", "{url_file}"] {
            rest = rest.replace(part, "");
        }
        if template.is_empty() || rest.contains(['{', '}']) {
            return Err(DatasetError::Setting(format!(
                "picture name `{template}`: only {{row}}, {{key}}, {{shard}} and {{url_file}} are filled in"
            )));
        }
        Ok(Self(template.to_owned()))
    }

    pub(super) fn fill(&self, row: u64, url: Option<&str>) -> String {
        let key = key_of(row);
        let file = url.unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
        let file = file.rsplit('/').next().unwrap_or_default();
        self.0
            .replace("{row}", &row.to_string())
            .replace("{shard}", &key[..key.len() - 4])
            .replace("{key}", &key)
            .replace("{url_file}", file)
    }
}

/// A row's key where the source has none: nine digits, as img2dataset numbers shards of 10,000 rows.
pub(super) fn key_of(row: u64) -> String {
    format!("{row:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let fill = |template: &str, row, url| NameTemplate::parse(template).unwrap().fill(row, url);
        assert_eq!(fill("{shard}/{key}.jpg", 123_456, None), "00012/000123456.jpg");
        assert_eq!(fill("{url_file}", 1, Some("http://h/a/b.jpg?x=/y#z")), "b.jpg");
        assert_eq!(fill("p{row}", 7, None), "p7");
        for bad in ["", "{name}.jpg", "{row"] {
            assert!(NameTemplate::parse(bad).unwrap_err().to_string().contains("{url_file}"), "{bad}");
        }
    }

    #[tokio::test]
    async fn nothing_above_the_folder_is_read() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("in")).unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        std::fs::write(outer.path().join("in/a"), "12345").unwrap();
        let folder = PictureFolder::open(outer.path().join("in").to_str().unwrap()).unwrap();
        let read = async |names: &[&str], limit| {
            folder
                .read(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), limit)
                .await
                .unwrap()
        };
        assert_eq!(read(&["../secret"], 10).await.unwrap_err().0, RejectReason::MissingPicture);
        assert_eq!(read(&["../secret", "a"], 10).await.unwrap().as_ref(), b"12345");
        assert_eq!(read(&["a"], 4).await.unwrap_err().0, RejectReason::TooManyBytes);
        let long = ["x".repeat(300), "x/".repeat(3000)];
        for name in ["", "a/below-a-file", "a\0b", "\0", "\u{202e}", "..", "/", "in", &long[0], &long[1]] {
            let refused = read(&[name], 10).await.expect_err(name);
            assert_eq!(refused.0, RejectReason::MissingPicture, "{name:?}: {}", refused.1);
        }
    }
}
