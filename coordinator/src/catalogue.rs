//! The checkpoints of a run. A checkpoint *is* its COMMIT object: no COMMIT, no checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use blip2_dataset::{Location, put_create};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::{CoordinatorError, Result};

/// Version of the COMMIT object and of the parts' layout.
const FORMAT: u32 = 1;
/// Name of the object that makes a checkpoint.
const COMMIT: &str = "COMMIT";

/// The content of a COMMIT object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Version of the format.
    pub format: u32,
    /// The checkpoint's folder below `checkpoints/`: `<step>-<epoch>`.
    pub name: String,
    /// The run.
    pub run_id: String,
    /// Steps committed before it was written, which is the index of the next step.
    pub step: u64,
    /// Stage of the last of these steps.
    pub stage: u32,
    /// The membership epoch that wrote it.
    pub epoch: u64,
    /// BLAKE3 of the training configuration.
    pub config_hash: String,
    /// BLAKE3 of the corpus manifest.
    pub manifest_hash: String,
    /// The parts, which together hold the state.
    pub parts: Vec<PartRecord>,
    /// Values (losses, learning rate) of the last step, as far as they are finite.
    pub values: BTreeMap<String, f64>,
}

/// One part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Object name within the checkpoint's folder.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 in hexadecimal.
    pub blake3: String,
}

/// A checkpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// All checkpoints of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// With a readable COMMIT and all parts of the right length, oldest first.
    pub valid: Vec<CheckpointRecord>,
    /// With a COMMIT that cannot be read, or parts that are missing or too short.
    pub damaged: Vec<Damaged>,
    /// Folders without COMMIT: never finished, no checkpoint.
    pub unfinished: Vec<String>,
}

/// The checkpoints below a run's folder.
#[derive(Debug, Clone)]
pub struct Catalogue {
    folder: Location,
}

/// The name of the checkpoint after `step` committed steps, written in `epoch`. Names sort as (step, epoch).
pub(crate) fn checkpoint_name(step: u64, epoch: u64) -> String {
    format!("{step:08}-{epoch:06}")
}

/// Step and epoch of a checkpoint's name.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (step, epoch) = name.split_once('-')?;
    Some((step.parse().ok()?, epoch.parse().ok()?))
}

impl CheckpointRecord {
    /// A record of the current format, without parts.
    pub(crate) fn new(step: u64, stage: u32, epoch: u64) -> Self {
        Self {
            format: FORMAT,
            name: checkpoint_name(step, epoch),
            run_id: String::new(),
            step,
            stage,
            epoch,
            config_hash: String::new(),
            manifest_hash: String::new(),
            parts: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    /// Reads the COMMIT of the checkpoint of this name.
    ///
    /// # Errors
    /// [`CoordinatorError::Checkpoint`]: it is damaged, of an unknown format, or another checkpoint's.
    pub fn parse(name: &str, content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| CoordinatorError::Checkpoint { name: name.to_owned(), reason };
        let record: Self = serde_json::from_slice(content)
            .map_err(|error| wrong(format!("its COMMIT is damaged: {error}")))?;
        if record.format != FORMAT {
            return Err(wrong(format!("format {}; this program reads format {FORMAT}", record.format)));
        }
        if record.name != name || parse_name(name) != Some((record.step, record.epoch)) {
            return Err(wrong(format!("its COMMIT is that of {}", record.name)));
        }
        if record.parts.is_empty() || record.parts.iter().any(|part| !is_part_name(&part.name)) {
            return Err(wrong("its COMMIT names no parts, or unusable ones".into()));
        }
        Ok(record)
    }
}

impl Catalogue {
    /// The catalogue of the run in `run_root`.
    pub fn new(run_root: &Location) -> Self {
        Self { folder: run_root.join("checkpoints") }
    }

    /// The folder of a checkpoint.
    pub fn folder(&self, name: &str) -> Location {
        self.folder.join(name)
    }

    /// All checkpoints, checked for presence and length of their parts.
    ///
    /// # Errors
    /// The store fails; a damaged checkpoint is no error but listed as such.
    pub async fn list(&self) -> Result<Listing> {
        let mut folders: BTreeMap<(u64, u64, String), BTreeMap<String, u64>> = BTreeMap::new();
        for object in self.folder.list().await? {
            let path = object.location.to_string();
            let mut segments = path.rsplitn(3, '/');
            let (Some(file), Some(name)) = (segments.next(), segments.next()) else { continue };
            if let Some((step, epoch)) = parse_name(name) {
                folders
                    .entry((step, epoch, name.to_owned()))
                    .or_default()
                    .insert(file.to_owned(), object.bytes);
            }
        }
        let mut listing = Listing::default();
        for ((.., name), objects) in folders {
            if !objects.contains_key(COMMIT) {
                listing.unfinished.push(name);
                continue;
            }
            match self.read_commit(&name).await {
                Ok(record) => match missing_part(&record, &objects) {
                    None => listing.valid.push(record),
                    Some(reason) => listing.damaged.push(Damaged { name, reason }),
                },
                Err(CoordinatorError::Checkpoint { reason, .. }) => {
                    listing.damaged.push(Damaged { name, reason })
                }
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// The newest valid checkpoint, and the damaged ones that are newer and were passed over.
    ///
    /// # Errors
    /// The store fails, or there are checkpoints and none is valid: that is never read as "start afresh".
    pub async fn latest_valid(&self) -> Result<(Option<CheckpointRecord>, Vec<Damaged>)> {
        let Listing { mut valid, damaged, .. } = self.list().await?;
        let Some(newest) = valid.pop() else {
            return match damaged.into_iter().next_back() {
                None => Ok((None, Vec::new())),
                Some(Damaged { name, reason }) => {
                    let reason = format!(
                        "{reason}; no checkpoint of this run is valid: restore one or start a new run"
                    );
                    Err(CoordinatorError::Checkpoint { name, reason })
                }
            };
        };
        let newer = |other: &Damaged| parse_name(&other.name) > Some((newest.step, newest.epoch));
        let skipped = damaged.into_iter().filter(newer).collect();
        Ok((Some(newest), skipped))
    }

    /// Reads the COMMIT of a checkpoint.
    ///
    /// # Errors
    /// There is none, it is damaged or of an unknown format, or the store fails.
    pub async fn read_commit(&self, name: &str) -> Result<CheckpointRecord> {
        let wrong = |reason: String| CoordinatorError::Checkpoint { name: name.to_owned(), reason };
        let content = self.folder.join(name).join(COMMIT).read().await?;
        let content = content.ok_or_else(|| wrong("there is no such checkpoint: it has no COMMIT".into()))?;
        CheckpointRecord::parse(name, &content)
    }

    /// Reads every part and compares length and BLAKE3 with the COMMIT.
    ///
    /// # Errors
    /// The first part that differs.
    pub async fn verify(&self, name: &str) -> Result<CheckpointRecord> {
        let record = self.read_commit(name).await?;
        for part in &record.parts {
            let wrong = |reason: String| CoordinatorError::Checkpoint {
                name: name.to_owned(),
                reason: format!("part {} {reason}", part.name),
            };
            let location = self.folder.join(name).join(&part.name);
            let (length, digest) = digest(&location).await?.ok_or_else(|| wrong("is missing".into()))?;
            if length != part.length {
                return Err(wrong(format!("has {length} bytes, not {}", part.length)));
            }
            if digest != part.blake3 {
                return Err(wrong(format!("has BLAKE3 {digest}, not {}", part.blake3)));
            }
        }
        Ok(record)
    }

    /// Makes a checkpoint of parts that are in the store, and reads it back.
    ///
    /// # Errors
    /// A part is missing or has another length, the checkpoint exists already, or the store fails.
    pub async fn write_commit(&self, record: &CheckpointRecord) -> Result<()> {
        let wrong = |reason: String| CoordinatorError::Checkpoint { name: record.name.clone(), reason };
        let folder = self.folder.join(&record.name);
        for part in &record.parts {
            let length = folder.join(&part.name).head().await?.map(|(length, _)| length);
            if length != Some(part.length) {
                return Err(wrong(format!("part {} has length {length:?}, not {}", part.name, part.length)));
            }
        }
        let content = serde_json::to_vec_pretty(record).map_err(|error| wrong(error.to_string()))?;
        let content = Bytes::from(content);
        let commit = folder.join(COMMIT);
        let created = put_create(&commit, content.clone()).await?;
        // One that exists is ours when it says the same: the answer to an earlier attempt was lost. Bytes are
        // compared, because a float may be read back as its neighbour.
        if commit.read().await? != Some(content) {
            let reason = if created {
                "its COMMIT reads back differently"
            } else {
                "it exists already, with another COMMIT"
            };
            return Err(wrong(reason.into()));
        }
        Ok(())
    }

    /// Deletes a checkpoint: its COMMIT first, so that what is left of it is none.
    ///
    /// # Errors
    /// The store fails.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let folder = self.folder.join(name);
        folder.join(COMMIT).delete().await?;
        for object in folder.list().await? {
            object.location.delete().await?;
        }
        Ok(())
    }

    /// Deletes what `newest`, which must be valid, makes superfluous: checkpoints beyond the `keep` newest (0: none of
    /// them) that `is_kept` does not protect, and unfinished ones of earlier steps not in `in_progress`. Returns the
    /// names.
    ///
    /// # Errors
    /// `newest` is not valid, and nothing was deleted; or the store fails.
    pub async fn retire(
        &self,
        newest: &str,
        keep: u32,
        is_kept: impl Fn(u64) -> bool,
        in_progress: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let listing = self.list().await?;
        let Some(place) = listing.valid.iter().position(|record| record.name == newest) else {
            return Err(CoordinatorError::Checkpoint {
                name: newest.to_owned(),
                reason: "it does not read back".into(),
            });
        };
        let step = listing.valid[place].step;
        let older = listing.valid[..=place].iter().rev().skip(keep as usize);
        let superfluous =
            older.filter(|record| keep > 0 && !is_kept(record.step)).map(|record| record.name.clone());
        let abandoned = listing.unfinished.into_iter().filter(|name| {
            parse_name(name).is_some_and(|(earlier, _)| earlier < step) && !in_progress.contains(name)
        });
        let names: Vec<String> = superfluous.chain(abandoned).collect();
        for name in &names {
            self.delete(name).await?;
        }
        Ok(names)
    }
}

/// Whether a part's name is that of an object directly in the checkpoint's folder.
pub(crate) fn is_part_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name != COMMIT
        && name.bytes().all(plain)
}

fn missing_part(record: &CheckpointRecord, objects: &BTreeMap<String, u64>) -> Option<String> {
    record.parts.iter().find_map(|part| match objects.get(&part.name) {
        None => Some(format!("part {} is missing", part.name)),
        Some(length) if *length != part.length => {
            Some(format!("part {} has {length} bytes, not {}", part.name, part.length))
        }
        Some(_) => None,
    })
}

/// Length and BLAKE3 of an object, read in a stream.
async fn digest(location: &Location) -> Result<Option<(u64, String)>> {
    use object_store::{Error, ObjectStoreExt};
    let failed = |error: Error| {
        CoordinatorError::Store(blip2_dataset::DatasetError::Store {
            location: location.to_string(),
            action: "read",
            reason: error.to_string(),
        })
    };
    let found = match location.store().get(location.path()).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        found => found.map_err(failed)?,
    };
    let mut hasher = blake3::Hasher::new();
    let mut stream = found.into_stream();
    while let Some(chunk) = stream.next().await {
        hasher.update(&chunk.map_err(failed)?);
    }
    Ok(Some((hasher.count(), hasher.finalize().to_hex().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn checkpoint(catalogue: &Catalogue, step: u64, epoch: u64) -> CheckpointRecord {
        let mut record = CheckpointRecord::new(step, 1, epoch);
        for (place, content) in [format!("first {step}"), "second".to_owned()].into_iter().enumerate() {
            let part = PartRecord {
                name: format!("part-{place:05}.safetensors"),
                length: content.len() as u64,
                blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
            };
            catalogue
                .folder(&record.name)
                .join(&part.name)
                .put(Bytes::from(content))
                .await
                .expect("a local folder");
            record.parts.push(part);
        }
        catalogue.write_commit(&record).await.expect("all parts are there");
        record
    }

    fn temporary() -> (tempfile::TempDir, Catalogue) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        (folder, Catalogue::new(&root))
    }

    #[tokio::test]
    async fn the_newest_valid_checkpoint_is_found_and_damaged_ones_are_reported() {
        let (_folder, catalogue) = temporary();
        assert_eq!(catalogue.latest_valid().await.expect("empty"), (None, vec![]));
        let first = checkpoint(&catalogue, 5, 1).await;
        let second = checkpoint(&catalogue, 12, 1).await;
        let third = checkpoint(&catalogue, 12, 2).await;
        catalogue
            .folder("00000020-000002")
            .join("part-00000.safetensors")
            .put(Bytes::new())
            .await
            .expect("written");
        assert_eq!(catalogue.latest_valid().await.expect("three"), (Some(third.clone()), vec![]));

        catalogue.folder(&third.name).join(COMMIT).put(Bytes::from_static(b"{")).await.expect("written");
        catalogue
            .folder(&second.name)
            .join("part-00001.safetensors")
            .put(Bytes::from_static(b"x"))
            .await
            .expect("written");
        let (newest, skipped) = catalogue.latest_valid().await.expect("one is left");
        assert_eq!(newest, Some(first.clone()));
        let names: Vec<&str> = skipped.iter().map(|damaged| damaged.name.as_str()).collect();
        assert_eq!(names, [second.name.as_str(), third.name.as_str()]);
        assert_eq!(catalogue.list().await.expect("listed").unfinished, ["00000020-000002"]);

        catalogue.folder(&first.name).join("part-00000.safetensors").delete().await.expect("deleted");
        let error = catalogue.latest_valid().await.expect_err("never afresh");
        assert!(error.to_string().contains("no checkpoint of this run is valid"), "{error}");
    }

    #[tokio::test]
    async fn verify_reads_every_byte() {
        let (_folder, catalogue) = temporary();
        let record = checkpoint(&catalogue, 5, 1).await;
        assert_eq!(catalogue.verify(&record.name).await.expect("intact"), record);
        let part = catalogue.folder(&record.name).join("part-00001.safetensors");
        part.put(Bytes::from_static(b"sEcond")).await.expect("written");
        let error = catalogue.verify(&record.name).await.expect_err("a changed byte");
        assert!(error.to_string().contains("part-00001.safetensors has BLAKE3"), "{error}");
        assert!(
            catalogue
                .verify("00000006-000001")
                .await
                .expect_err("none")
                .to_string()
                .contains("no such checkpoint")
        );
    }

    #[tokio::test]
    async fn a_commit_needs_its_parts_and_is_written_once() {
        let (_folder, catalogue) = temporary();
        let record = checkpoint(&catalogue, 5, 1).await;
        catalogue.write_commit(&record).await.expect("the same again");
        let other = CheckpointRecord { stage: 2, ..record.clone() };
        assert!(catalogue.write_commit(&other).await.is_err());
        let mut missing = CheckpointRecord { name: checkpoint_name(6, 1), step: 6, ..record };
        missing.parts[0].length += 1;
        assert!(catalogue.write_commit(&missing).await.is_err());
    }

    #[tokio::test]
    async fn retention_keeps_the_newest_and_the_stage_ends() {
        let (_folder, catalogue) = temporary();
        for step in [2, 4, 6, 8, 10] {
            checkpoint(&catalogue, step, 1).await;
        }
        for unfinished in [checkpoint_name(3, 1), checkpoint_name(7, 1), checkpoint_name(12, 1)] {
            catalogue
                .folder(&unfinished)
                .join("part-00000.safetensors")
                .put(Bytes::new())
                .await
                .expect("written");
        }
        let in_progress = BTreeSet::from([checkpoint_name(7, 1)]);
        assert!(catalogue.retire("00000011-000001", 1, |_| false, &in_progress).await.is_err());
        let deleted =
            catalogue.retire("00000010-000001", 2, |step| step == 4, &in_progress).await.expect("valid");
        assert_eq!(deleted, ["00000006-000001", "00000002-000001", "00000003-000001"]);
        let listing = catalogue.list().await.expect("listed");
        let steps: Vec<u64> = listing.valid.iter().map(|record| record.step).collect();
        assert_eq!(steps, [4, 8, 10]);
        assert_eq!(listing.unfinished, ["00000007-000001", "00000012-000001"]);
        assert!(
            catalogue.retire("00000010-000001", 0, |_| false, &in_progress).await.expect("valid").is_empty()
        );
    }
}
