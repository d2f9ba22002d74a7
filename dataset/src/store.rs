//! Locations: a path or URL, resolved to an object store and a path inside it.

mod around;
mod braces;
mod connect;
mod credentials;
mod exclusive;
mod expand;
mod listing;
mod local_walk;
#[cfg(test)]
mod names;
mod pinned;
mod regular;
mod signed;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::{Path, PathPart};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::error::{DatasetError, Result};
use crate::secret_url::{
    REDACTED, has_credentials, redacted, redacted_text, remember_credentials, with_credentials,
};

pub(crate) use connect::{Access, Bearer};
pub(crate) use pinned::PinnedObject;
pub(crate) use regular::NotAFile;
use regular::RegularFiles;

/// What precedes the path of a local file when shown.
const LOCAL_BASE: &str = "/";

/// An object or a prefix in a store.
///
/// Plain paths (relative ones against the current folder), `file://`, `s3://`, `gs://`, `az://` and `http(s)://` are
/// understood. Credentials and options come from the store's usual environment variables (`AWS_*`, `GOOGLE_*`,
/// `AZURE_*`), or from a `http(s)://` URL that carries a user or a signature, which is never shown: what is displayed has
/// `REDACTED` in its place. Folders of local paths are created when something is written.
#[derive(Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// What precedes the path when shown: `/` or `s3://bucket/`.
    base: String,
    /// What follows it when shown: nothing, or the URL's query.
    query: String,
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

/// Stores by scheme and host, so that many files of one bucket share one client.
#[derive(Debug, Default)]
pub(crate) struct StorePool {
    stores: BTreeMap<String, Arc<dyn ObjectStore>>,
}

impl Location {
    /// Resolves a path or URL; nothing is read.
    ///
    /// # Errors
    /// [`DatasetError::Location`] for an unknown scheme, a malformed URL or missing store options.
    pub fn parse(location: &str) -> Result<Self> {
        StorePool::default().parse(location)
    }

    /// The object `relative` below this one; `relative` may hold several segments.
    pub fn join(&self, relative: &str) -> Self {
        let parts = relative.split('/').filter(|part| !part.is_empty());
        // A name as it is, `%` and `#` included; only what no path can have (`..`, control characters) is escaped.
        let path = parts.fold(self.path.clone(), |path, part| match PathPart::parse(part) {
            Ok(part) => path.join(part),
            Err(_) => path.join(part),
        });
        Self { path, ..self.clone() }
    }

    /// The folder it is in; the root of its store if it is in none.
    pub(crate) fn folder(&self) -> Self {
        let mut parts: Vec<_> = self.path.parts().collect();
        parts.pop();
        Self { path: parts.into_iter().collect(), ..self.clone() }
    }

    /// The whole location with its credentials, for those who are to read there too; never to be printed or stored.
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
    pub(crate) fn is_local(&self) -> bool {
        self.base == LOCAL_BASE
    }

    /// Length and entity tag of the object, or `None` if there is none.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn head(&self) -> Result<Option<(u64, Option<String>)>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some((meta.size, meta.e_tag))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    /// The whole object, or `None` if there is none.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn read(&self) -> Result<Option<Bytes>> {
        let found = match self.store.get(&self.path).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        found.bytes().await.map(Some).map_err(|error| self.failed("read", &error))
    }

    /// All objects below this prefix, sorted by path.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn list(&self) -> Result<Vec<StoredObject>> {
        Ok(self.objects(self.listed().await?))
    }

    /// The objects directly in this folder whose names match `pattern` (`*`: any run of characters), sorted by path.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn list_matching(&self, pattern: &str) -> Result<Vec<StoredObject>> {
        let found = self.listed_directly().await?.objects;
        let matching = |meta: &object_store::ObjectMeta| {
            meta.location.filename().is_some_and(|name| wildcard_matches(pattern, name))
        };
        Ok(self.objects(found.into_iter().filter(matching).collect()))
    }

    /// Writes the object, replacing what was there.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn put(&self, content: Bytes) -> Result<()> {
        let written = self.store.put(&self.path, PutPayload::from_bytes(content)).await;
        written.map(drop).map_err(|error| self.failed("write", &error))
    }

    /// Removes the object; removing what is not there is no error.
    ///
    /// # Errors
    /// [`DatasetError::Store`].
    pub async fn delete(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", &error)),
        }
    }

    /// The error of an action on this object.
    pub(crate) fn failed(&self, action: &'static str, error: &StoreError) -> DatasetError {
        if let Some(found) = NotAFile::in_error(error) {
            return DatasetError::Location { location: self.to_string(), reason: found.to_string() };
        }
        let refused =
            matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. });
        let hint = match refused && self.to_string().contains(REDACTED) {
            true => "; the credentials in the URL are not accepted, or its signature has expired",
            false => "",
        };
        let reason = format!("{}{hint}", redacted_text(&error.to_string()));
        let location = self.to_string();
        match refused {
            true => DatasetError::Denied { location, action, reason },
            false => DatasetError::Store { location, action, reason },
        }
    }

    fn objects(&self, mut found: Vec<object_store::ObjectMeta>) -> Vec<StoredObject> {
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

/// Creates the object unless it exists: `Ok(false)` when it does. At most one of several writers gets `Ok(true)`.
///
/// Over a network the answer to a write that was done can be lost; the try after it then finds the object, and the writer
/// gets `Ok(false)` or an error for what is its own. Whoever must know reads the object back, whose content names its
/// writer.
///
/// # Errors
/// [`DatasetError::Store`].
pub async fn put_create(location: &Location, content: Bytes) -> Result<bool> {
    let options = PutOptions::from(PutMode::Create);
    match location.store.put_opts(&location.path, PutPayload::from_bytes(content.clone()), options).await {
        Ok(_) => Ok(true),
        Err(StoreError::AlreadyExists { .. }) => Ok(false),
        Err(error) if location.is_local() && exclusive::needs_other_way(&error) => {
            exclusive::create(location, content).await
        }
        Err(error) => Err(location.failed("write", &error)),
    }
}

impl StorePool {
    /// [`Location::parse`], reusing the client of an earlier location of the same bucket.
    pub(crate) fn parse(&mut self, location: &str) -> Result<Location> {
        match location.split_once("://") {
            None => self.local(location, std::path::Path::new(location)),
            Some(("file", _)) => {
                let path = Url::parse(location).ok().and_then(|url| url.to_file_path().ok());
                let path = path.ok_or_else(|| refused(location, "not a file:///absolute/path"))?;
                self.local(location, &path)
            }
            Some(_) => self.remote(location),
        }
    }

    fn local(&mut self, location: &str, path: &std::path::Path) -> Result<Location> {
        if location.is_empty() {
            return Err(refused(location, "it is empty"));
        }
        let absolute = absolute_path(path).map_err(|error| refused(location, error))?;
        let path = Path::from_absolute_path(absolute).map_err(|error| refused(location, error))?;
        let open = || Arc::new(RegularFiles::store()) as Arc<dyn ObjectStore>;
        let store = Arc::clone(self.stores.entry("file://".to_owned()).or_insert_with(open));
        Ok(Location { store, path, base: LOCAL_BASE.to_owned(), query: String::new() })
    }

    fn remote(&mut self, location: &str) -> Result<Location> {
        self.remote_as(location, &Access::default())
    }

    /// A location whose store is asked in the way of `access`.
    pub(crate) fn remote_as(&mut self, location: &str, access: &Access) -> Result<Location> {
        let whole = with_credentials(location).ok_or_else(|| {
            let reason =
                "its credentials are not stored; name the URL with them again, as in the run's configuration";
            refused(location, reason)
        })?;
        remember_credentials(&whole);
        let place = if is_web_address(&whole) { Place::of_url(&whole)? } else { Place::of_bucket(&whole)? };
        let Place { url, path, base, query } = place;
        // The key is held for as long as the pool is: it does not spell out what it stands for.
        let key = blake3::hash(format!("{base}{query}{}", access.key()).as_bytes()).to_hex().to_string();
        let store = match self.stores.get(&key) {
            Some(store) => Arc::clone(store),
            None => {
                let store = connect::connect(&url, access).map_err(|error| refused(location, error))?;
                self.stores.insert(key, Arc::clone(&store));
                store
            }
        };
        let shown = redacted(&format!("{base}{query}"));
        let (base, query) = match shown.split_once('?') {
            Some((base, query)) => (base.to_owned(), format!("?{query}")),
            None => (shown, String::new()),
        };
        Ok(Location { store, path, base, query })
    }
}

/// A remote location in parts, with its credentials.
struct Place {
    /// What the store's client is made of.
    url: Url,
    path: Path,
    /// What precedes the path.
    base: String,
    /// What follows it: nothing, or `?` and the URL's query.
    query: String,
}

impl Place {
    fn of_url(whole: &str) -> Result<Self> {
        let url = Url::parse(whole).map_err(|error| refused(whole, error))?;
        connect::check(&url).map_err(|reason| refused(whole, reason))?;
        let (_, path) = connect::scheme(&url).map_err(|error| refused(whole, error))?;
        // What the store's own parser cut off the front of the path belongs to the base: `https://host/bucket/`.
        let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let cut = segments.len().saturating_sub(path.parts().count());
        let bucket: String = segments[..cut].iter().map(|segment| format!("{segment}/")).collect();
        let base = format!("{}/{bucket}", &url[..url::Position::BeforePath]);
        let query = url.query().filter(|query| !query.is_empty());
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        Ok(Self { url, path, base, query })
    }

    /// An object of a bucket, whose key is what is written: it is no part of a URL, and `%`, `#` and `?` are characters.
    fn of_bucket(whole: &str) -> Result<Self> {
        let host = whole.find("://").map_or(0, |at| at + 3);
        let (bucket, key) = whole[host..].split_once('/').unwrap_or((&whole[host..], ""));
        let base = format!("{}{bucket}/", &whole[..host]);
        let parsed = |text: &str| Url::parse(text).map_err(|error| refused(whole, error));
        let checked = |url: &Url| connect::check(url).map_err(|reason| refused(whole, reason));
        if has_credentials(whole) {
            // No key looks like that: a signature that was put in the wrong place.
            checked(&parsed(whole)?)?;
        }
        let url = parsed(&base)?;
        checked(&url)?;
        connect::scheme(&url).map_err(|error| refused(whole, error))?;
        let path = Path::parse(key).map_err(|error| refused(whole, error))?;
        Ok(Self { url, path, base, query: String::new() })
    }
}

/// Whether a location is a URL in the sense of the web, in which some characters are escaped.
fn is_web_address(location: &str) -> bool {
    location.starts_with("http://") || location.starts_with("https://")
}

fn refused(location: &str, reason: impl fmt::Display) -> DatasetError {
    DatasetError::Location { location: redacted(location), reason: redacted_text(&reason.to_string()) }
}

/// Absolute and without `..`, which object paths do not know; `..` is resolved through the file system.
fn absolute_path(path: &std::path::Path) -> std::io::Result<std::path::PathBuf> {
    let absolute = std::path::absolute(path)?;
    let components: Vec<_> = absolute.components().collect();
    let Some(last_up) = components.iter().rposition(|part| *part == std::path::Component::ParentDir) else {
        return Ok(absolute);
    };
    let upper: std::path::PathBuf = components[..=last_up].iter().collect();
    let rest: std::path::PathBuf = components[last_up + 1..].iter().collect();
    Ok(upper.canonicalize()?.join(rest))
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(start) => rest = &rest[start + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("train-*.parquet", "train-00000.parquet", true),
            ("train-*.parquet", "train-.parquet", true),
            ("train-*.parquet", "test-00000.parquet", false),
            ("*", "anything", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(wildcard_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn remote_locations_keep_their_url() {
        let location = Location::parse("http://127.0.0.1:9/a/b.parquet").unwrap();
        assert_eq!(location.to_string(), "http://127.0.0.1:9/a/b.parquet");
        assert_eq!(location.path().as_ref(), "a/b.parquet");
        assert_eq!(location.join("c/d").to_string(), "http://127.0.0.1:9/a/b.parquet/c/d");
        for url in ["s3://bucket/x/y.parquet", "gs://bucket/x", "https://example.com/x"] {
            let location = Location::parse(url);
            assert!(location.as_ref().is_ok_and(|location| location.to_string() == url), "{location:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for location in ["", "ftp://host/x", "file://host/x", "s3:///no-bucket"] {
            let error = Location::parse(location).unwrap_err();
            assert!(matches!(error, DatasetError::Location { .. }), "{location}: {error}");
            assert!(error.is_bad_input());
        }
    }

    #[tokio::test]
    async fn local_objects_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a folder/ünï#1/100%");
        let root = Location::parse(odd.to_str().unwrap()).unwrap();
        let object = root.join("deep/x.bin");
        assert!(object.read().await.unwrap().is_none());
        assert!(object.head().await.unwrap().is_none());
        assert!(put_create(&object, Bytes::from_static(b"one")).await.unwrap());
        assert!(!put_create(&object, Bytes::from_static(b"two")).await.unwrap());
        assert_eq!(object.read().await.unwrap().unwrap().as_ref(), b"one");
        assert_eq!(std::fs::read(odd.join("deep/x.bin")).unwrap(), b"one");
        object.put(Bytes::from_static(b"three")).await.unwrap();
        assert_eq!(object.head().await.unwrap().unwrap().0, 5);
        let listed = root.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location.to_string(), object.to_string());
        assert_eq!(listed[0].bytes, 5);
        object.delete().await.unwrap();
        object.delete().await.unwrap();
        assert!(root.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_of_many_creators_wins() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().join("epoch").to_str().unwrap()).unwrap();
        let attempts = (0..8u8).map(|i| put_create(&location, Bytes::from(vec![i; 1000])));
        let won = futures::future::try_join_all(attempts).await.unwrap();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }

    #[tokio::test]
    async fn patterns_expand_sorted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.parquet", "a.parquet", "c.txt"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let root = folder.path().to_str().unwrap();
        let mut pool = StorePool::default();
        let found = pool.expand(&format!("{root}/*.parquet"), &[]).await.unwrap();
        let names: Vec<_> = found.iter().map(|object| object.location.file_name()).collect();
        assert_eq!(names, ["a.parquet", "b.parquet"]);
        let through_url = pool.expand(&format!("file://{root}/sub/../*.parquet"), &[]).await.unwrap();
        assert_eq!(through_url.len(), 2);
        let upwards = pool.expand(&format!("{root}/sub/../a.parquet"), &[]).await.unwrap();
        assert_eq!(upwards[0].bytes, 1);
    }
}
