//! Models of a Hugging Face hub, or of a mirror that speaks its paths.

use std::path::PathBuf;

use serde_json::Value;

use super::listing::{RemoteFile, files_at};
use crate::clients::{Access, Bearer};
use crate::error::{Result, StoreError};
use crate::{Location, StorePool};

/// The hub itself.
const ENDPOINT: &str = "https://huggingface.co";
/// Names of a model's files are not longer than this together with what is said of them.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why a hub does not give a model: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name is no model's.
    #[error("`{0}` is no name of a model; write OWNER/NAME, as in facebook/opt-2.7b")]
    Name(String),
    /// The environment forbids the network.
    #[error(
        "HF_HUB_OFFLINE is set: nothing is downloaded; unset it, or copy the files of `{0}` here yourself"
    )]
    Offline(String),
    /// Nobody answers.
    #[error(
        "cannot reach {endpoint}: {reason}; without a network copy the model's files here by other means, or name a mirror \
         that is reachable with HF_ENDPOINT"
    )]
    Unreachable {
        /// The hub or mirror.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// There is no such model or revision.
    #[error("{endpoint} has no model `{name}` at revision `{revision}`; check the name")]
    NotThere {
        /// The hub or mirror.
        endpoint: String,
        /// The model.
        name: String,
        /// The revision.
        revision: String,
    },
    /// A token is needed.
    #[error("{endpoint} does not give out `{name}`: {reason}")]
    Denied {
        /// The hub or mirror.
        endpoint: String,
        /// The model.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The answer is not a hub's.
    #[error("{endpoint} answers for `{name}`, but not as a hub does: {reason}")]
    Answer {
        /// The hub or mirror.
        endpoint: String,
        /// The model.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be downloaded.
    #[error(transparent)]
    Data(#[from] StoreError),
}

/// A hub, and the token that is shown there.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<Bearer>,
    offline: bool,
}

/// A model as the hub lists it.
#[derive(Debug, Clone)]
pub struct HubModel {
    /// `OWNER/NAME`.
    pub name: String,
    /// The commit.
    pub revision: String,
    /// The licence that its card names.
    pub licence: Option<String>,
    /// All files.
    pub files: Vec<HubFile>,
}

/// One file of a model elsewhere.
#[derive(Debug, Clone)]
pub struct HubFile {
    /// Path below the model's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 (hex), of large files.
    pub sha256: Option<String>,
    etag: Option<String>,
    location: Location,
}

impl HubFile {
    pub(crate) fn remote(&self) -> RemoteFile {
        RemoteFile {
            name: self.name.clone(),
            bytes: self.bytes,
            etag: self.etag.clone(),
            location: self.location.clone(),
        }
    }

    /// The needed files at a URL: one file, or those of a model's folder.
    ///
    /// # Errors
    /// [`StoreError::Location`], [`StoreError::NotFound`], [`StoreError::Failed`].
    pub async fn at_url(url: &str) -> Result<Vec<Self>> {
        let model = files_at(url).await?;
        let file = |file: &RemoteFile| Self {
            name: file.name.clone(),
            bytes: file.bytes,
            sha256: None,
            etag: file.etag.clone(),
            location: file.location.clone(),
        };
        Ok(model.files().iter().map(file).collect())
    }
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, and the token of `HF_TOKEN` or of the file in which `hf auth login`
    /// keeps it.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache/huggingface"));
        let token_file = || {
            let named = variable("HF_TOKEN_PATH").map(PathBuf::from);
            let kept =
                || variable("HF_HOME").map(PathBuf::from).or_else(home).map(|folder| folder.join("token"));
            std::fs::read_to_string(named.or_else(kept)?).ok()
        };
        let token = variable("HF_TOKEN").or_else(token_file).map(|token| token.trim().to_owned());
        let on = |value: String| {
            !["0", "false", "no", "off"].contains(&value.trim().to_ascii_lowercase().as_str())
        };
        Self {
            endpoint: variable("HF_ENDPOINT")
                .map_or(ENDPOINT.to_owned(), |url| url.trim_end_matches('/').to_owned()),
            token: token.filter(|token| !token.is_empty()).map(Bearer),
            offline: variable("HF_HUB_OFFLINE").is_some_and(on),
        }
    }

    /// A hub at a URL.
    pub fn at(endpoint: &str, token: Option<&str>) -> Self {
        let token = token.map(|token| Bearer(token.to_owned()));
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, offline: false }
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        crate::secret_url::redacted(&self.endpoint)
    }

    /// What the hub has of a model.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn model(&self, name: &str, revision: &str) -> Result<HubModel, HubError> {
        if !is_name(name) {
            return Err(HubError::Name(name.to_owned()));
        }
        if revision.contains('/') || !is_name(revision) {
            return Err(HubError::Name(format!("{name}@{revision}")));
        }
        if self.offline {
            return Err(HubError::Offline(name.to_owned()));
        }
        let answer = self.ask(name, revision).await?;
        let broken = |reason: &str| self.answer(name, reason);
        let commit = answer["sha"].as_str().filter(|commit| is_name(commit)).unwrap_or(revision).to_owned();
        let siblings = answer["siblings"].as_array().ok_or_else(|| broken("it lists no files"))?;
        let licence = answer["cardData"]["license"].as_str().map(str::to_owned);
        let access = Access { bearer: self.token.clone(), long_answers: true, ..Access::default() };
        let root = format!("{}/{name}/resolve/{commit}", self.endpoint);
        let root = StorePool::default().remote_as(&root, &access)?;
        let mut files = Vec::with_capacity(siblings.len());
        for sibling in siblings {
            let file = sibling["rfilename"].as_str().ok_or_else(|| broken("a file has no name"))?;
            if file.split('/').any(|part| part.is_empty() || part == "." || part == "..")
                || file.contains('\\')
            {
                return Err(broken(&format!("a file is named `{file}`")));
            }
            let bytes = sibling["lfs"]["size"].as_u64().or_else(|| sibling["size"].as_u64());
            let sha256 = ["sha256", "oid"].iter().find_map(|key| sibling["lfs"][key].as_str());
            let sha256 = sha256.filter(|hash| hash.len() == 64).map(str::to_owned);
            files.push((file.to_owned(), bytes, sha256));
        }
        let mut listed = Vec::with_capacity(files.len());
        for (name, bytes, sha256) in files {
            let location = root.join(&name);
            // Some mirrors list names alone.
            let (bytes, etag) = match bytes {
                Some(bytes) => (bytes, None),
                None if super::wanted::is_wanted_anywhere(&name) => {
                    location.head().await?.ok_or(StoreError::NotFound { location: location.to_string() })?
                }
                None => continue,
            };
            listed.push(HubFile { name, bytes, sha256, etag, location });
        }
        Ok(HubModel { name: name.to_owned(), revision: commit, licence, files: listed })
    }

    async fn ask(&self, name: &str, revision: &str) -> Result<Value, HubError> {
        let access = Access { bearer: self.token.clone(), impatient: true, ..Access::default() };
        let url = format!("{}/api/models/{name}/revision/{revision}?blobs=true", self.endpoint);
        let location = StorePool::default().remote_as(&url, &access)?;
        let endpoint = self.endpoint();
        let not_there = || HubError::NotThere {
            endpoint: endpoint.clone(),
            name: name.to_owned(),
            revision: revision.to_owned(),
        };
        let content = match location.read().await {
            Ok(Some(content)) => content,
            Ok(None) => return Err(not_there()),
            Err(StoreError::Denied { .. }) => {
                let reason = match &self.token {
                    None => {
                        format!(
                            "it does not exist, or it is private or gated: accept its terms at {endpoint}/{name} and set \
                             HF_TOKEN"
                        )
                    }
                    Some(_) => {
                        format!(
                            "it does not exist, or the owner of the token has not been let in: accept its terms at \
                             {endpoint}/{name}, or check HF_TOKEN"
                        )
                    }
                };
                return Err(HubError::Denied { endpoint, name: name.to_owned(), reason });
            }
            Err(StoreError::Failed { reason, .. }) => {
                return Err(HubError::Unreachable { endpoint, reason });
            }
            Err(error) => return Err(error.into()),
        };
        if content.len() > MAX_ANSWER_BYTES {
            return Err(self.answer(name, "the answer is too long"));
        }
        serde_json::from_slice(&content).map_err(|error| self.answer(name, &format!("no JSON: {error}")))
    }

    fn answer(&self, name: &str, reason: &str) -> HubError {
        HubError::Answer { endpoint: self.endpoint(), name: name.to_owned(), reason: reason.to_owned() }
    }
}

/// `OWNER/NAME` or `NAME`.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match name.split_once('/') {
        Some((owner, name)) => part(owner) && part(name),
        None => part(name),
    }
}
