//! Models from elsewhere: a URL becomes a path on this machine, kept in a cache.

mod cache;
mod download;
mod failure;
mod hash;
mod hub;
mod listing;
#[cfg(test)]
mod tests;
mod wanted;

use std::path::{Path, PathBuf};

use url::Url;

pub use cache::{CACHE_BYTES_VARIABLE, CACHE_VARIABLE, Fetched, cache_folder};
pub use download::FileDone;
pub use hub::{Hub, HubError, HubFile, HubModel};
pub use wanted::{is_weight_file, wanted_files};

use crate::error::{Result, StoreError};
use crate::secret_url::{redacted, with_credentials};
use crate::{Location, StoredObject};
use cache::ModelCache;
use download::{Download, Target};
use failure::{fetch_error, other_content};
use hash::hash_of;
use listing::{RemoteFile, files_at};

/// What follows `#` in a URL whose content must have this BLAKE3.
const HASH_FRAGMENT: &str = "blake3=";

/// Whether a model's place is a URL, and not a path of this machine.
pub fn is_url(place: &str) -> bool {
    place.contains("://")
}

/// The path of a model on this machine: of a path itself, of a URL what the cache holds of it, downloaded
/// where it does not. A file is one that exists under the URL, or that ends in a weight file's extension;
/// else it is a folder, of which the files that a model is made of are taken.
///
/// A URL may end in `#blake3=HEX`: other content is then refused. Processes of one machine that fetch the
/// same do it once. The files stay while this process lives.
///
/// # Errors
/// [`StoreError::Location`], [`StoreError::NotFound`], [`StoreError::Failed`];
/// [`StoreError::OtherContent`] for another hash; [`StoreError::Fetch`] for a cache that cannot be
/// written.
pub async fn fetch_model(place: &str) -> Result<Fetched> {
    if !is_url(place) {
        return Ok(as_it_is(PathBuf::from(place)));
    }
    let (url, expected) = split_hash(place)?;
    if url.starts_with("file:") {
        let path = Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
        let path = path.ok_or_else(|| StoreError::Location {
            location: url.to_owned(),
            reason: "not a file:///absolute/path".to_owned(),
        })?;
        return match expected {
            Some(expected) => verified(url, path, &expected).await,
            None => Ok(as_it_is(path)),
        };
    }
    let cache = ModelCache::of_this_machine()?;
    // A stored URL lacks its credentials: what was fetched with them is here all the same.
    if with_credentials(url).is_none()
        && let Some(known) = cache.known(url, expected.as_deref()).await
    {
        return Ok(known);
    }
    cache.get(url, files_at(url).await?, expected.as_deref()).await
}

/// Requires that a model's URL can be understood and that something lies there; nothing but names is looked
/// at.
///
/// # Errors
/// As [`fetch_model`].
pub async fn model_exists(url: &str) -> Result<()> {
    let (url, _) = split_hash(url)?;
    if url.starts_with("file:") {
        return fetch_model(url).await.map(drop);
    }
    files_at(url).await.map(drop)
}

/// All files below the folder `root` of this machine or a store, brought here: a run's checkpoint.
///
/// # Errors
/// As [`fetch_model`].
pub async fn fetch_folder(root: &Location) -> Result<Fetched> {
    let listed = root.list().await?;
    let prefix = root.path().as_ref().len() + 1;
    let file = |object: StoredObject| {
        let name = object.location.path().as_ref().get(prefix..)?.to_owned();
        Some(RemoteFile { name, bytes: object.bytes, etag: object.etag, location: object.location })
    };
    let files: Vec<RemoteFile> = listed.into_iter().filter_map(file).collect();
    if files.is_empty() {
        return Err(StoreError::NotFound { location: root.to_string() });
    }
    ModelCache::of_this_machine()?.get(&root.to_string(), listing::RemoteModel::Folder(files), None).await
}

fn as_it_is(path: PathBuf) -> Fetched {
    Fetched { path, blake3: String::new(), bytes: 0, downloaded: 0 }
}

/// The URL and the hash that its content must have.
fn split_hash(place: &str) -> Result<(&str, Option<String>)> {
    let Some((url, fragment)) = place.split_once('#') else { return Ok((place, None)) };
    let hash = fragment.strip_prefix(HASH_FRAGMENT).map(str::to_ascii_lowercase);
    let hash = hash.filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match hash {
        Some(hash) => Ok((url, Some(hash))),
        None => Err(StoreError::Location {
            location: redacted(place),
            reason: "what follows `#` must be blake3= and 64 hexadecimal digits".to_owned(),
        }),
    }
}

async fn verified(url: &str, path: PathBuf, expected: &str) -> Result<Fetched> {
    let place = path.clone();
    let hashed = tokio::task::spawn_blocking(move || hash_of(&place)).await;
    let found = hashed
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| fetch_error(url, error))?;
    if found != expected {
        return Err(other_content(url, expected, &found));
    }
    Ok(Fetched { blake3: found, ..as_it_is(path) })
}

/// Files of a hub's model, or of any URLs, into a folder of the user's: what is there whole is kept, what is
/// there in part is continued. `done` is told each file.
///
/// # Errors
/// As [`fetch_model`].
pub async fn download_into(
    folder: &Path,
    files: &[HubFile],
    mut done: impl FnMut(&FileDone),
) -> Result<Vec<FileDone>> {
    let mut all = Vec::new();
    for file in files {
        let target = Target { path: folder.join(&file.name), sha256: file.sha256.clone() };
        let fetched = Download::new(&file.remote()).into_file(target).await?;
        done(&fetched);
        all.push(fetched);
    }
    Ok(all)
}
