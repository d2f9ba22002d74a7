//! The files of a model at a URL.

use futures::{StreamExt, TryStreamExt};

use super::wanted::{BESIDE, WEIGHTS, is_weight_file, wanted_files};
use crate::clients::Access;
use crate::error::{Result, StoreError};
use crate::secret_url::redacted;
use crate::{Location, StorePool};

/// Names asked for at the same time where a server has no listings.
const ASKED_AT_ONCE: usize = 8;
/// An index of shards is not longer than this.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// A file that can be downloaded.
#[derive(Debug, Clone)]
pub(crate) struct RemoteFile {
    /// Path below the model's folder.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) etag: Option<String>,
    pub(crate) location: Location,
}

/// A model elsewhere.
#[derive(Debug, Clone)]
pub(crate) enum RemoteModel {
    File(RemoteFile),
    Folder(Vec<RemoteFile>),
}

impl RemoteModel {
    pub(crate) fn files(&self) -> &[RemoteFile] {
        match self {
            Self::File(file) => std::slice::from_ref(file),
            Self::Folder(files) => files,
        }
    }
}

/// What lies at a URL.
pub(crate) async fn files_at(url: &str) -> Result<RemoteModel> {
    let access = Access { long_answers: true, ..Access::default() };
    let root = StorePool::default().remote_as(url.trim_end_matches('/'), &access)?;
    let name = root.file_name().to_owned();
    if is_weight_file(&name) || !url.starts_with("http") {
        if let Some((bytes, etag)) = root.head().await? {
            return Ok(RemoteModel::File(RemoteFile { name, bytes, etag, location: root }));
        }
        if is_weight_file(&name) {
            return Err(StoreError::NotFound { location: root.to_string() });
        }
    }
    let files = match url.starts_with("http") {
        true => asked_for(&root).await?,
        false => listed(&root).await?,
    };
    match files
        .iter()
        .any(|file| is_weight_file(&file.name) || file.name == "config.json" || is_tokenizer(&file.name))
    {
        true => Ok(RemoteModel::Folder(files)),
        false => Err(StoreError::NotFound { location: redacted(url) }),
    }
}

fn is_tokenizer(name: &str) -> bool {
    ["tokenizer.json", "vocab.txt", "tokenizer.model", "spiece.model", "vocab.json"].contains(&name)
}

/// The needed files of a folder in a store that lists.
async fn listed(root: &Location) -> Result<Vec<RemoteFile>> {
    let prefix = root.path().as_ref().len() + usize::from(!root.path().as_ref().is_empty());
    let mut files = Vec::new();
    for object in root.list().await? {
        let name = object.location.path().as_ref().get(prefix..).unwrap_or_default().to_owned();
        files.push(RemoteFile { name, bytes: object.bytes, etag: object.etag, location: object.location });
    }
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    // Weights of other names, and a folder of a tokenizer alone, are taken as they are.
    let wanted = wanted_files(&names).unwrap_or_else(|weights| {
        let beside = names.iter().filter(|name| BESIDE.contains(&name.as_str()));
        beside.cloned().chain(weights).collect()
    });
    files.retain(|file| wanted.contains(&file.name));
    Ok(files)
}

/// The needed files of a folder of a plain HTTP server, which has no listings: the usual names are asked for.
async fn asked_for(root: &Location) -> Result<Vec<RemoteFile>> {
    let beside: Vec<String> = BESIDE.iter().map(|name| (*name).to_owned()).collect();
    let mut files = ask_all(root, &beside).await?;
    for (name, _) in WEIGHTS {
        let Some(found) = ask(root, name.to_owned()).await? else { continue };
        if name.ends_with(".index.json") {
            let shards = shards_of(&found).await?;
            let there = ask_all(root, &shards).await?;
            if let Some(missing) = shards.iter().find(|shard| !there.iter().any(|file| file.name == **shard))
            {
                return Err(StoreError::NotFound { location: root.join(missing).to_string() });
            }
            files.extend(there);
        }
        files.push(found);
        break;
    }
    Ok(files)
}

async fn ask_all(root: &Location, names: &[String]) -> Result<Vec<RemoteFile>> {
    let asked = names.iter().map(|name| ask(root, name.clone()));
    let found: Vec<_> = futures::stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn ask(root: &Location, name: String) -> Result<Option<RemoteFile>> {
    let location = root.join(&name);
    match location.head().await {
        Ok(Some((bytes, etag))) => Ok(Some(RemoteFile { name, bytes, etag, location })),
        // Some servers say no more of what is not there.
        Ok(None) | Err(StoreError::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files that an index names.
async fn shards_of(index: &RemoteFile) -> Result<Vec<String>> {
    let broken = |reason: &str| StoreError::Fetch {
        location: index.location.to_string(),
        reason: format!("not an index of shards: {reason}"),
    };
    if index.bytes > MAX_INDEX_BYTES {
        return Err(broken("it is too long"));
    }
    let content = index.location.read().await?.unwrap_or_default();
    let json: serde_json::Value =
        serde_json::from_slice(&content).map_err(|error| broken(&error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| broken("it has no weight_map"))?;
    let mut names: Vec<String> = map.values().filter_map(|name| name.as_str()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    // A name of a file in this folder and no way out of it.
    match names.iter().find(|name| name.contains(['/', '\\']) || !is_weight_file(name)) {
        Some(odd) => Err(broken(&format!("it names `{odd}`"))),
        None => Ok(names),
    }
}
