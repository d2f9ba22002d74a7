//! Reads of an object that must still be the one that was pinned.

use std::ops::Range;

use bytes::Bytes;
use object_store::{GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, coalesce_ranges};

use crate::error::{Result, StoreError};
use crate::location::Location;

/// An object by its length and entity tag: a read of another object in its place is an error that names it.
///
/// Stores that know conditional reads are asked to refuse (`If-Match`); of the others the answer's length and
/// tag are compared.
#[derive(Debug, Clone)]
pub struct PinnedObject {
    location: Location,
    bytes: u64,
    /// As the store gives it now, in quotes.
    tag: Option<String>,
}

impl PinnedObject {
    /// The object as it is found now.
    pub fn found(location: Location, bytes: u64, tag: Option<String>) -> Self {
        // Listings of some stores leave out the quotes.
        let quoted = |tag: String| if tag.ends_with('"') { tag } else { format!("\"{tag}\"") };
        Self { location, bytes, tag: tag.map(quoted) }
    }

    /// Looks the object up and compares it with what was pinned.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`], [`StoreError::Failed`].
    pub async fn look_up(location: Location, bytes: u64, tag: Option<&str>) -> Result<Self> {
        let name = location.to_string();
        let Some((length, found)) = location.head().await? else {
            return Err(StoreError::NotFound { location: name });
        };
        let changed = |reason: String| Err(StoreError::Changed { file: name, reason });
        if length != bytes {
            return changed(format!("{length} bytes instead of {bytes}"));
        }
        if let (Some(pinned), Some(found)) = (tag, found.as_deref())
            && !tags_agree(pinned, found, location.is_local())
        {
            return changed(format!("its entity tag is {found} instead of {pinned}"));
        }
        Ok(Self::found(location, length, found))
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entity tag, if the store gives one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// One range of its bytes. [`PinnedObject::failed`] explains the error.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, object_store::Error> {
        let wanted = range.end - range.start;
        // A weak tag never matches in a conditional request.
        let strong = self.tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: strong, ..GetOptions::default() };
        let answer = self.location.store().get_opts(self.location.path(), options).await?;
        if answer.meta.size != self.bytes {
            return Err(self.replaced(format!("{} bytes instead of {}", answer.meta.size, self.bytes)));
        }
        if let (Some(pinned), Some(found)) = (self.tag.as_deref(), answer.meta.e_tag.as_deref())
            && !tags_agree(pinned, found, false)
        {
            return Err(self.replaced(format!("its entity tag is {found} instead of {pinned}")));
        }
        let content = answer.bytes().await?;
        if content.len() as u64 != wanted {
            let reason = format!("{} bytes came of {wanted}", content.len());
            return Err(object_store::Error::Generic { store: "pinned object", source: reason.into() });
        }
        Ok(content)
    }

    /// Several ranges, neighbours in one request.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, object_store::Error> {
        coalesce_ranges(ranges, |range| self.read(range), OBJECT_STORE_COALESCE_DEFAULT).await
    }

    /// A failed read, in words; `None` for the store's own failures.
    pub fn changed(&self, error: &object_store::Error) -> Option<StoreError> {
        let file = self.location.to_string();
        match error {
            object_store::Error::Precondition { source, .. } if source.is::<Replaced>() => {
                Some(StoreError::Changed { file, reason: source.to_string() })
            }
            object_store::Error::Precondition { .. } => {
                let reason = "it no longer has the pinned entity tag".to_owned();
                Some(StoreError::Changed { file, reason })
            }
            object_store::Error::NotFound { .. } => Some(StoreError::NotFound { location: file }),
            _ => None,
        }
    }

    /// A failed read, in words.
    pub fn failed(&self, error: &object_store::Error) -> StoreError {
        self.changed(error).unwrap_or_else(|| self.location.failed("read", error))
    }

    fn replaced(&self, reason: String) -> object_store::Error {
        object_store::Error::Precondition {
            path: self.location.to_string(),
            source: Box::new(Replaced(reason)),
        }
    }
}

/// The answer was another object's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Replaced(String);

/// Whether two entity tags stand for one content. Quotes are no part of a tag. A local file's tag is its
/// inode, its time of change and its length: copies of a corpus on several machines have inodes of their own,
/// so that local files are compared without.
fn tags_agree(pinned: &str, found: &str, local: bool) -> bool {
    let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_owned();
    let (pinned, found) = (bare(pinned), bare(found));
    if local && let (Some((_, pinned)), Some((_, found))) = (pinned.split_once('-'), found.split_once('-')) {
        return pinned == found;
    }
    pinned == found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_stores_write_them() {
        assert!(tags_agree("\"abc\"", "abc", false) && tags_agree("W/\"abc\"", "\"abc\"", false));
        assert!(!tags_agree("\"abc\"", "\"abd\"", false));
        assert!(
            tags_agree("\"1a-5-9\"", "\"2b-5-9\"", true) && !tags_agree("\"1a-5-9\"", "\"2b-5-9\"", false)
        );
        assert!(!tags_agree("\"1a-5-9\"", "\"1a-6-9\"", true));
    }

    #[tokio::test]
    async fn another_object_in_its_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, b"0123456789").unwrap();
        let location = Location::parse(path.to_str().unwrap()).unwrap();
        let (bytes, tag) = location.head().await.unwrap().unwrap();
        let object = PinnedObject::look_up(location.clone(), bytes, tag.as_deref()).await.unwrap();
        let ranges = object.read_ranges(&[1..3, 8..10]).await.unwrap();
        assert_eq!(ranges, [&b"12"[..], b"89"]);

        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let error = object.read(0..4).await.unwrap_err();
        let text = object.failed(&error).to_string();
        assert!(text.contains("a.bin") && text.contains("changed"), "{text}");
        let error = PinnedObject::look_up(location.clone(), bytes, tag.as_deref()).await.unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }), "{error}");

        std::fs::write(&path, b"longer than it was").unwrap();
        let error = PinnedObject::look_up(location, bytes, None).await.unwrap_err();
        assert!(error.to_string().contains("18 bytes instead of 10"), "{error}");
    }
}
