//! Images that a source only names: where they lie, and how their names are made.

use std::io::ErrorKind;

use blip2_store::Location;
use blip2_store::error::StoreError;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use unicode_normalization::UnicodeNormalization;

use crate::corpus::ingest::row::too_many_bytes;
use crate::corpus::ingest::row::{Refusal, RejectReason};
use crate::error::{DatasetError, Result};

/// Longer names are of nothing, bytes: stores refuse them, and a refusal is not to end the job.
const LONGEST_NAME: usize = 1024;
/// Characters of a name in a reason.
const SHOWN: usize = 100;

/// A folder or prefix with images.
#[derive(Debug, Clone)]
pub(super) struct ImageFolder(Location);

impl ImageFolder {
    pub(super) fn open(location: &str) -> Result<Self> {
        let location = if location == "/" { location } else { location.trim_end_matches('/') };
        Ok(Self(Location::parse(location)?))
    }

    /// A folder that was found.
    pub(super) fn of(location: Location) -> Self {
        Self(location)
    }

    /// The folder in which a list lies.
    pub(super) fn beside(list: &Location) -> Self {
        Self(list.folder())
    }

    /// The first of these that exists, as it is written or as other systems write it. Nothing above the
    /// folder is read.
    pub(super) async fn read(&self, names: &[String], limit: u64) -> Result<Result<Bytes, Refusal>> {
        for name in names.iter().flat_map(|name| self.spellings(name)) {
            let found = match self.0.is_local() {
                true => self.read_file(&name, limit).await?,
                false => self.read_object(&name, limit).await?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let upwards = names.iter().any(|name| name.split(['/', '\\']).any(|part| part == ".."));
        let hint = if upwards {
            ", and nothing outside of it is read: name a folder above with --images"
        } else {
            ""
        };
        Ok(Err((RejectReason::MissingImage, format!("{} is not in {}{hint}", shown(names), self.0))))
    }

    /// An image of this machine, which may have any name that its file system knows; `None` if there is none.
    async fn read_file(&self, name: &str, limit: u64) -> Result<Option<Result<Bytes, Refusal>>> {
        let path = std::path::Path::new(&self.0.to_string()).join(name);
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let found = std::fs::metadata(&path)?;
            // Of a pipe or a device nothing is read: it may have no end.
            if !found.is_file() {
                return Ok(None);
            }
            if found.len() > limit {
                return Ok(Some(Err(too_many_bytes(found.len(), limit))));
            }
            std::fs::read(&path).map(|content| Some(Ok(content.into())))
        });
        let read = read.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
        match read {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == ErrorKind::NotFound || is_no_name(error.kind()) => Ok(None),
            Err(error) => {
                Err(StoreError::Failed { location: shown, action: "read", reason: error.to_string() }.into())
            }
        }
    }

    /// An image in a store; `None` if there is none.
    async fn read_object(&self, name: &str, limit: u64) -> Result<Option<Result<Bytes, Refusal>>> {
        let location = self.0.join(name);
        let found = match location.store().get(location.path()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(location.failed("read", &error).into()),
        };
        if found.meta.size > limit {
            return Ok(Some(Err(too_many_bytes(found.meta.size, limit))));
        }
        let content = found.bytes().await.map_err(|error| location.failed("read", &error))?;
        Ok(Some(Ok(content)))
    }

    /// Names below the folder under which an image may lie: as it is written; with Windows' separators; with
    /// accents composed or apart, as other file systems keep them.
    fn spellings(&self, name: &str) -> Vec<String> {
        let name = name.strip_prefix("file://").unwrap_or(name);
        let mut spellings: Vec<String> = Vec::new();
        let mut add = |name: String| {
            if let Some(name) = self.inside(&name)
                && name.len() <= LONGEST_NAME
                && !spellings.contains(&name)
            {
                spellings.push(name);
            }
        };
        for name in [name.to_owned(), name.replace('\\', "/")] {
            add(name.clone());
            if !name.is_ascii() {
                add(name.nfc().collect());
                add(name.nfd().collect());
            }
        }
        spellings
    }

    /// A path below the folder, without `.` and `..`; `None` if it leads out of it. An absolute path of this
    /// machine that is in the folder is meant as such.
    fn inside(&self, name: &str) -> Option<String> {
        let root = self.0.to_string();
        let root = root.trim_end_matches('/');
        let below = name.strip_prefix(root).filter(|rest| self.0.is_local() && rest.starts_with('/'));
        let mut parts: Vec<&str> = Vec::new();
        for part in below.unwrap_or(name).split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        (!parts.is_empty()).then(|| parts.join("/"))
    }
}

/// Names on one line, cut where they are long.
fn shown(names: &[String]) -> String {
    let cut = |name: &String| name.escape_debug().take(SHOWN).collect::<String>();
    names.iter().map(cut).collect::<Vec<_>>().join(", ")
}

/// Whether a file system says that nothing can have this name: one with a NUL, too long, or below a file.
fn is_no_name(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidFilename | ErrorKind::NotADirectory)
}

/// An image's name made of parts of its row: `{row}`, `{key}` (the row in nine digits), `{shard}` (its first
/// five), `{url_file}` (what follows the last `/` of the URL).
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
    async fn names_are_found_as_they_are() {
        let outer = tempfile::tempdir().unwrap();
        let folder = ImageFolder::open(outer.path().to_str().unwrap()).unwrap();
        let read = async |name: &str| folder.read(&[name.to_owned()], 10).await.unwrap().is_ok();
        for name in [
            "plain.jpg",
            "a b.jpg",
            "a%20b.jpg",
            "100%.jpg",
            "a#b.jpg",
            "a#1.jpg",
            "img [1].jpg",
            "\u{fc}n\u{ef}.jpg",
            "e\u{301}.jpg",
            "q?x.jpg",
            "st*r.jpg",
            "a{b}.jpg",
            "a~1.jpg",
            "~x.jpg",
            "你好.jpg",
            "😀.jpg",
            "x%2Fy.jpg",
            "back\\slash.jpg",
            "quote\"'.jpg",
            "a<b>|c^d`.jpg",
            " lead.jpg",
            "trail .jpg",
            "a&b=c+d;e,f!$@().jpg",
            "%2e%2e.jpg",
            "...jpg",
            "x#1",
            "line\nbreak.jpg",
            "in side/a b#.jpg",
        ] {
            let path = outer.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            assert!(read(name).await, "{name:?}");
            assert!(read(path.to_str().unwrap()).await, "{path:?}");
            assert!(
                read(&format!("./{name}")).await && read(&format!("in side/../{name}")).await,
                "{name:?}"
            );
        }
        // The other way to write an accent, and the other separator.
        assert!(read("u\u{308}ni\u{308}.jpg").await && read("\u{e9}.jpg").await);
        assert!(read("in side\\a b#.jpg").await);
        assert!(!read("a b").await && !read("%61%20b.jpg").await);
    }

    #[tokio::test]
    async fn nothing_above_the_folder_is_read() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("in")).unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        std::fs::write(outer.path().join("in/a"), "12345").unwrap();
        let folder = ImageFolder::open(outer.path().join("in").to_str().unwrap()).unwrap();
        let read = async |names: &[&str], limit| {
            folder
                .read(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), limit)
                .await
                .unwrap()
        };
        assert_eq!(read(&["../secret"], 10).await.unwrap_err().0, RejectReason::MissingImage);
        assert_eq!(read(&["../secret", "a"], 10).await.unwrap().as_ref(), b"12345");
        assert_eq!(read(&["a"], 4).await.unwrap_err().0, RejectReason::TooManyBytes);
        let long = ["x".repeat(300), "x/".repeat(3000)];
        for name in ["", "a/below-a-file", "a\0b", "\0", "\u{202e}", "..", "/", "in", &long[0], &long[1]] {
            let refused = read(&[name], 10).await.expect_err(name);
            assert_eq!(refused.0, RejectReason::MissingImage, "{name:?}: {}", refused.1);
        }
    }
}
