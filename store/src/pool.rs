//! Paths and URLs to locations: which store, which client, which path inside.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::clients::{Access, RegularFiles, check, connect, scheme};
use crate::error::Result;
use crate::location::{LOCAL_BASE, Location, is_web_address, refused};
use crate::secret_url::{has_credentials, redacted, remember_credentials, with_credentials};

/// Stores by scheme and host, so that many files of one bucket share one client.
#[derive(Debug, Default)]
pub struct StorePool {
    stores: BTreeMap<String, Arc<dyn ObjectStore>>,
}

impl Location {
    /// Resolves a path or URL; nothing is read.
    ///
    /// # Errors
    /// [`StoreError::Location`](crate::error::StoreError::Location) for an unknown scheme, a malformed
    /// URL or missing store options.
    pub fn parse(location: &str) -> Result<Self> {
        StorePool::default().parse(location)
    }
}

impl StorePool {
    /// [`Location::parse`], reusing the client of an earlier location of the same bucket.
    pub fn parse(&mut self, location: &str) -> Result<Location> {
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

    /// A file or folder of this machine; `location` is what errors name.
    pub(crate) fn local(&mut self, location: &str, path: &std::path::Path) -> Result<Location> {
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
                let store = connect(&url, access).map_err(|error| refused(location, error))?;
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
        check(&url).map_err(|reason| refused(whole, reason))?;
        let (_, path) = scheme(&url).map_err(|error| refused(whole, error))?;
        // What the store's own parser cut off the front of the path belongs to the base:
        // `https://host/bucket/`.
        let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let cut = segments.len().saturating_sub(path.parts().count());
        let bucket: String = segments[..cut].iter().map(|segment| format!("{segment}/")).collect();
        let base = format!("{}/{bucket}", &url[..url::Position::BeforePath]);
        let query = url.query().filter(|query| !query.is_empty());
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        Ok(Self { url, path, base, query })
    }

    /// An object of a bucket, whose key is what is written: it is no part of a URL, and `%`, `#` and `?` are
    /// characters.
    fn of_bucket(whole: &str) -> Result<Self> {
        let host = whole.find("://").map_or(0, |at| at + 3);
        let (bucket, key) = whole[host..].split_once('/').unwrap_or((&whole[host..], ""));
        let base = format!("{}{bucket}/", &whole[..host]);
        let parsed = |text: &str| Url::parse(text).map_err(|error| refused(whole, error));
        let checked = |url: &Url| check(url).map_err(|reason| refused(whole, reason));
        if has_credentials(whole) {
            // No key looks like that: a signature that was put in the wrong place.
            checked(&parsed(whole)?)?;
        }
        let url = parsed(&base)?;
        checked(&url)?;
        scheme(&url).map_err(|error| refused(whole, error))?;
        let path = Path::parse(key).map_err(|error| refused(whole, error))?;
        Ok(Self { url, path, base, query: String::new() })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;

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
            assert!(matches!(error, StoreError::Location { .. }), "{location}: {error}");
            assert!(error.is_bad_input());
        }
    }
}
