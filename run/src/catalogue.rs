//! The checkpoints of a run. A checkpoint *is* its COMMIT object: no COMMIT, no checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use blip2_dataset::quarantine::QuarantineList;
use blip2_store::error::StoreError;
use blip2_store::{Location, put_create};
use bytes::Bytes;
use futures::StreamExt;

use crate::commit::{CheckpointRecord, ShardRecord};
use crate::layout::{CHECKPOINTS, COMMIT, QUARANTINE, parse_checkpoint_name};
use crate::{Result, RunError};

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

impl Catalogue {
    /// The catalogue of the run in `run_root`.
    pub fn new(run_root: &Location) -> Self {
        Self { folder: run_root.join(CHECKPOINTS) }
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
            if let Some((step, epoch)) = parse_checkpoint_name(name) {
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
                Err(RunError::Checkpoint { reason, .. }) => listing.damaged.push(Damaged { name, reason }),
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// The newest checkpoint whose parts are there and have the right length, and the damaged ones that are
    /// newer and were passed over. No part is read.
    ///
    /// # Errors
    /// The store fails, or there are checkpoints and none is valid: that is never read as "start afresh".
    pub async fn latest_valid(&self) -> Result<(Option<CheckpointRecord>, Vec<Damaged>)> {
        let Listing { mut valid, damaged, .. } = self.list().await?;
        newest_and_passed_over(valid.pop(), damaged)
    }

    /// The newest checkpoint that reads back whole, every byte compared with its COMMIT, and the damaged ones
    /// that are newer and were passed over.
    ///
    /// # Errors
    /// The store fails, or there are checkpoints and none is whole: that is never read as "start afresh".
    pub async fn latest_verified(&self) -> Result<(Option<CheckpointRecord>, Vec<Damaged>)> {
        let Listing { valid, mut damaged, .. } = self.list().await?;
        for record in valid.into_iter().rev() {
            match self.verify(&record.name).await {
                Ok(record) => return newest_and_passed_over(Some(record), damaged),
                Err(RunError::Checkpoint { name, reason }) => damaged.push(Damaged { name, reason }),
                Err(error) => return Err(error),
            }
        }
        newest_and_passed_over(None, damaged)
    }

    /// Reads the COMMIT of a checkpoint.
    ///
    /// # Errors
    /// There is none, it is damaged or of an unknown format, or the store fails.
    pub async fn read_commit(&self, name: &str) -> Result<CheckpointRecord> {
        let wrong = |reason: String| RunError::Checkpoint { name: name.to_owned(), reason };
        let content = self.folder.join(name).join(COMMIT).read().await?;
        let content = content.ok_or_else(|| wrong("there is no such checkpoint: it has no COMMIT".into()))?;
        CheckpointRecord::parse(name, &content)
    }

    /// Reads every object of a checkpoint and compares length and BLAKE3 with the COMMIT.
    ///
    /// # Errors
    /// The first object that differs.
    pub async fn verify(&self, name: &str) -> Result<CheckpointRecord> {
        let record = self.read_commit(name).await?;
        for part in record.objects() {
            let wrong = |reason: String| RunError::Checkpoint {
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

    /// Makes a checkpoint of parts that are in the store and of the rows quarantined so far, and reads it
    /// back.
    ///
    /// # Errors
    /// A part is missing or has another length, the checkpoint exists already with another content, or the
    /// store fails.
    pub async fn write_commit(
        &self,
        record: &CheckpointRecord,
        quarantine: &QuarantineList,
    ) -> Result<CheckpointRecord> {
        let wrong = |reason: String| RunError::Checkpoint { name: record.name.clone(), reason };
        let folder = self.folder.join(&record.name);
        for part in &record.parts {
            let length = folder.join(&part.name).head().await?.map(|(length, _)| length);
            if length != Some(part.length) {
                return Err(wrong(format!("part {} has length {length:?}, not {}", part.name, part.length)));
            }
        }
        let quarantine = self.write_quarantine(&folder, quarantine).await?;
        let record = CheckpointRecord { quarantine: Some(quarantine), ..record.clone() };
        let content = serde_json::to_vec_pretty(&record).map_err(|error| wrong(error.to_string()))?;
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
        Ok(record)
    }

    async fn write_quarantine(&self, folder: &Location, list: &QuarantineList) -> Result<ShardRecord> {
        let content = list.to_parquet()?;
        let record = ShardRecord::of(QUARANTINE, &content);
        folder.join(QUARANTINE).put(content).await?;
        Ok(record)
    }

    /// The rows that the steps of a checkpoint could not use.
    ///
    /// # Errors
    /// The list is not what the COMMIT says, or the store fails.
    pub async fn read_quarantine(&self, record: &CheckpointRecord) -> Result<QuarantineList> {
        let wrong = |reason: &str| RunError::Checkpoint {
            name: record.name.clone(),
            reason: format!("its {QUARANTINE} {reason}"),
        };
        let part = record.quarantine.as_ref().ok_or_else(|| wrong("is not named by its COMMIT"))?;
        let content = self.folder.join(&record.name).join(&part.name).read().await?;
        let content = content.ok_or_else(|| wrong("is missing"))?;
        if !part.is_of(&content) {
            return Err(wrong("is not what its COMMIT says (length or BLAKE3)"));
        }
        Ok(QuarantineList::from_parquet(content)?)
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

    /// Deletes what `newest` makes superfluous: checkpoints beyond the `keep` newest (0: none of them) that
    /// `is_kept` does not protect, and unfinished ones of earlier steps not in `in_progress`. Damaged ones
    /// and those of later epochs, which another coordinator writes, are left alone. Returns the names.
    ///
    /// # Errors
    /// `newest` does not read back whole, and nothing was deleted; or the store fails.
    pub async fn retire(
        &self,
        newest: &str,
        keep: u32,
        is_kept: impl Fn(u64) -> bool,
        in_progress: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let listing = self.list().await?;
        let Some(place) = listing.valid.iter().position(|record| record.name == newest) else {
            return Err(RunError::Checkpoint {
                name: newest.to_owned(),
                reason: "it does not read back".into(),
            });
        };
        let (step, epoch) = (listing.valid[place].step, listing.valid[place].epoch);
        let older = listing.valid[..=place].iter().rev().skip(keep as usize);
        let superfluous =
            older.filter(|record| keep > 0 && !is_kept(record.step)).map(|record| record.name.clone());
        let abandoned = listing.unfinished.into_iter().filter(|name| {
            let is_older =
                parse_checkpoint_name(name).is_some_and(|(before, by)| before < step && by <= epoch);
            is_older && !in_progress.contains(name)
        });
        let names: Vec<String> = superfluous.chain(abandoned).collect();
        if !names.is_empty() {
            self.verify(newest).await?;
        }
        for name in &names {
            self.delete(name).await?;
        }
        Ok(names)
    }
}

/// Of the damaged checkpoints those that are newer than `newest`, oldest first; without a newest one all are
/// too many.
fn newest_and_passed_over(
    newest: Option<CheckpointRecord>,
    mut damaged: Vec<Damaged>,
) -> Result<(Option<CheckpointRecord>, Vec<Damaged>)> {
    damaged.sort_by_key(|damaged| parse_checkpoint_name(&damaged.name));
    let Some(record) = &newest else {
        return match damaged.pop() {
            None => Ok((None, Vec::new())),
            Some(Damaged { name, reason }) => {
                let reason =
                    format!("{reason}; no checkpoint of this run is valid: restore one or start a new run");
                Err(RunError::Checkpoint { name, reason })
            }
        };
    };
    damaged.retain(|other| parse_checkpoint_name(&other.name) > Some((record.step, record.epoch)));
    Ok((newest, damaged))
}

fn missing_part(record: &CheckpointRecord, objects: &BTreeMap<String, u64>) -> Option<String> {
    record.objects().find_map(|part| match objects.get(&part.name) {
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
        RunError::Store(StoreError::Failed {
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
mod tests;
