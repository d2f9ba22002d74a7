//! A path or URL, resolved to an object store and a path inside it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};

use crate::clients::NotAFile;
use crate::error::{Result, StoreError};
use crate::secret_url::{REDACTED, redacted, redacted_text, with_credentials};

/// What precedes the path of a local file when shown.
pub(crate) const LOCAL_BASE: &str = "/";

/// An object or a prefix in a store.
///
/// Plain paths (relative ones against the current folder), `file://`, `s3://`, `gs://`, `az://` and
/// `http(s)://` are understood. Credentials and options come from the store's usual environment variables
/// (`AWS_*`, `GOOGLE_*`, `AZURE_*`), or from a `http(s)://` URL that carries a user or a signature, which is
/// never shown: what is displayed has `REDACTED` in its place. Folders of local paths are created when
/// something is written.
#[derive(Clone)]
pub struct Location {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    /// What precedes the path when shown: `/` or `s3://bucket/`.
    pub(crate) base: String,
    /// What follows it when shown: nothing, or the URL's query.
    pub(crate) query: String,
}

/// An object found by [`Location::list`].
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// Where it is.
    pub location: Location,
    /// Length in bytes.
    pub bytes: u64,
    /// Entity tag, if the store gives one.
    pub etag: Option<String>,
}

impl Location {
    /// The object `relative` below this one; `relative` may hold several segments.
    pub fn join(&self, relative: &str) -> Self {
        let parts = relative.split('/').filter(|part| !part.is_empty());
        // A name as it is, `%` and `#` included; only what no path can have (`..`, control characters) is
        // escaped.
        let path = parts.fold(self.path.clone(), |path, part| match PathPart::parse(part) {
            Ok(part) => path.join(part),
            Err(_) => path.join(part),
        });
        Self { path, ..self.clone() }
    }

    /// The folder it is in; the root of its store if it is in none.
    pub fn folder(&self) -> Self {
        let mut parts: Vec<_> = self.path.parts().collect();
        parts.pop();
        Self { path: parts.into_iter().collect(), ..self.clone() }
    }

    /// The whole location with its credentials, for those who are to read there too; never to be printed or
    /// stored.
    pub fn exposed(&self) -> String {
        let shown = self.to_string();
        with_credentials(&shown).unwrap_or(shown)
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path inside the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last segment; empty at the root of a store.
    pub fn file_name(&self) -> &str {
        self.path.filename().unwrap_or_default()
    }

    /// Whether it is a file of this machine.
    pub fn is_local(&self) -> bool {
        self.base == LOCAL_BASE
    }

    /// Length and entity tag of the object, or `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn head(&self) -> Result<Option<(u64, Option<String>)>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some((meta.size, meta.e_tag))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    /// When the store says that the object was written, in milliseconds since 1970, or `None` if there is
    /// none.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn modified(&self) -> Result<Option<i64>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta.last_modified.timestamp_millis())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    /// The whole object, or `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn read(&self) -> Result<Option<Bytes>> {
        let found = match self.store.get(&self.path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        found.bytes().await.map(Some).map_err(|error| self.failed("read", &error))
    }

    /// Writes the object, replacing what was there.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn put(&self, content: Bytes) -> Result<()> {
        let written = self.store.put(&self.path, PutPayload::from_bytes(content)).await;
        written.map(drop).map_err(|error| self.failed("write", &error))
    }

    /// Removes the object; removing what is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn delete(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", &error)),
        }
    }

    /// The error of an action on this object.
    pub fn failed(&self, action: &'static str, error: &object_store::Error) -> StoreError {
        if let Some(found) = NotAFile::in_error(error) {
            return StoreError::Location { location: self.to_string(), reason: found.to_string() };
        }
        let refused = matches!(
            error,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
        );
        let hint = match refused && self.to_string().contains(REDACTED) {
            true => "; the credentials in the URL are not accepted, or its signature has expired",
            false => "",
        };
        let reason = format!("{}{hint}", redacted_text(&error.to_string()));
        let location = self.to_string();
        match refused {
            true => StoreError::Denied { location, action, reason },
            false => StoreError::Failed { location, action, reason },
        }
    }

    /// What was listed, sorted by path.
    pub(crate) fn objects(&self, mut found: Vec<object_store::ObjectMeta>) -> Vec<StoredObject> {
        found.sort_by(|a, b| a.location.cmp(&b.location));
        let object = |meta: object_store::ObjectMeta| StoredObject {
            location: Self { path: meta.location, ..self.clone() },
            bytes: meta.size,
            etag: meta.e_tag,
        };
        found.into_iter().map(object).collect()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !is_web_address(&self.base) {
            return write!(f, "{}{}{}", self.base, self.path, self.query);
        }
        f.write_str(&self.base)?;
        for character in self.path.as_ref().chars() {
            match character {
                // These would be another address.
                '%' | '#' | '?' | '\\' => write!(f, "%{:02X}", u32::from(character))?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str(&self.query)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// Whether a location is a URL in the sense of the web, in which some characters are escaped.
pub(crate) fn is_web_address(location: &str) -> bool {
    location.starts_with("http://") || location.starts_with("https://")
}

/// A location that cannot be used, and why.
pub(crate) fn refused(location: &str, reason: impl fmt::Display) -> StoreError {
    StoreError::Location { location: redacted(location), reason: redacted_text(&reason.to_string()) }
}
