//! The object store as the run uses it: epochs that are created once, checkpoints that are their COMMIT.
//!
//! A request takes effect at one moment and is answered later; a store at fault answers with an error, with
//! or without having done what it was asked.

use std::collections::{BTreeMap, BTreeSet};

use blip2_dataset::quarantine::QuarantineList;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochRecord;

use crate::corpus::STEPS;
use crate::schedule::{Node, StoreFault};

/// A part of a checkpoint: every part carries the whole of the small simulated state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Committed steps.
    pub(crate) step: u64,
    /// The state after them.
    pub(crate) state: u64,
}

/// A checkpoint's folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checkpoint {
    pub(crate) parts: BTreeMap<String, Part>,
    pub(crate) quarantine: Option<QuarantineList>,
    pub(crate) commit: Option<CheckpointRecord>,
    /// A byte of it was flipped.
    pub(crate) is_damaged: bool,
}

/// What is asked of the store.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// The epochs so far.
    Epochs,
    /// The newest checkpoint that verifies.
    Latest,
    /// Create an epoch's object.
    CreateEpoch(EpochRecord),
    /// Write the list of rows and the COMMIT.
    Commit { record: Box<CheckpointRecord>, quarantine: QuarantineList },
    /// Write the run's copy of the list of rows.
    PutRows(QuarantineList),
    /// Read it.
    Rows,
    /// Delete what a newer checkpoint makes superfluous.
    Retire { newest: String, keep: u32, in_progress: Vec<String> },
    /// Store a part.
    PutPart { checkpoint: String, name: String, part: Part },
    /// Read a checkpoint's state.
    ReadState { checkpoint: String },
}

/// What the store answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// All epochs, oldest first.
    Epochs(Vec<EpochRecord>),
    /// The newest checkpoint that verifies, with its rows; none if there was never one.
    Latest(Option<Box<(CheckpointRecord, QuarantineList)>>),
    /// Whether the epoch is the asker's.
    Created(bool),
    /// The run's copy of the list of rows.
    Rows(QuarantineList),
    /// Done.
    Done,
    /// A checkpoint's state.
    State(Part),
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    epochs: BTreeMap<u64, EpochRecord>,
    checkpoints: BTreeMap<String, Checkpoint>,
    rows: QuarantineList,
    faults: Vec<(StoreFault, Option<Node>)>,
}

impl Store {
    pub(crate) fn begin_fault(&mut self, fault: StoreFault, node: Option<Node>) {
        self.faults.push((fault, node));
    }

    pub(crate) fn end_fault(&mut self, fault: StoreFault, node: Option<Node>) {
        if let Some(place) = self.faults.iter().position(|found| *found == (fault, node)) {
            self.faults.remove(place);
        }
    }

    fn faults(&self, node: Node) -> impl Iterator<Item = StoreFault> {
        let concerns = move |place: &Option<Node>| place.is_none_or(|place| place == node);
        self.faults.iter().filter(move |(_, place)| concerns(place)).map(|(fault, _)| *fault)
    }

    /// Milliseconds by which the store is slower for a host.
    pub(crate) fn slowness(&self, node: Node) -> u64 {
        self.faults(node).map(|fault| if let StoreFault::Slow(delay) = fault { delay } else { 0 }).sum()
    }

    /// Does what is asked, or fails before or after it.
    pub(crate) fn serve(&mut self, node: Node, request: Request) -> Result<Reply, String> {
        if self.faults(node).any(|fault| fault == StoreFault::Fails) {
            return Err("the store is out of order".into());
        }
        let reply = self.effect(request);
        if self.faults(node).any(|fault| fault == StoreFault::FailsAfterwards) {
            return Err("the store's answer was lost".into());
        }
        reply
    }

    fn effect(&mut self, request: Request) -> Result<Reply, String> {
        match request {
            Request::Epochs => Ok(Reply::Epochs(self.epochs.values().cloned().collect())),
            Request::Latest => self.latest().map(Reply::Latest),
            Request::CreateEpoch(record) => {
                let found = self.epochs.entry(record.epoch).or_insert_with(|| record.clone());
                Ok(Reply::Created(*found == record))
            }
            Request::Commit { record, quarantine } => self.commit(*record, quarantine),
            Request::PutRows(rows) => {
                self.rows = rows;
                Ok(Reply::Done)
            }
            Request::Rows => Ok(Reply::Rows(self.rows.clone())),
            Request::Retire { newest, keep, in_progress } => self.retire(&newest, keep, &in_progress),
            Request::PutPart { checkpoint, name, part } => {
                self.checkpoints.entry(checkpoint).or_default().parts.insert(name, part);
                Ok(Reply::Done)
            }
            Request::ReadState { checkpoint } => {
                let found = self.checkpoints.get(&checkpoint).filter(|found| found.commit.is_some());
                let found = found.ok_or_else(|| format!("there is no checkpoint {checkpoint}"))?;
                if found.is_damaged {
                    return Err(format!("checkpoint {checkpoint} is damaged"));
                }
                let part = found.parts.values().next().ok_or("a checkpoint without parts")?;
                Ok(Reply::State(part.clone()))
            }
        }
    }

    fn latest(&self) -> Result<Option<Box<(CheckpointRecord, QuarantineList)>>, String> {
        let committed: Vec<(&CheckpointRecord, &Checkpoint)> = self.committed().collect();
        let valid = committed.iter().rev().find(|(record, found)| is_whole(record, found));
        match valid {
            Some((record, found)) => {
                Ok(Some(Box::new(((*record).clone(), found.quarantine.clone().unwrap_or_default()))))
            }
            None if committed.is_empty() => Ok(None),
            None => Err("no checkpoint of this run is valid: restore one or start a new run".into()),
        }
    }

    fn commit(&mut self, record: CheckpointRecord, quarantine: QuarantineList) -> Result<Reply, String> {
        let found = self.checkpoints.entry(record.name.clone()).or_default();
        if let Some(part) = record.parts.iter().find(|part| !found.parts.contains_key(&part.name)) {
            return Err(format!("part {} is missing", part.name));
        }
        if found.commit.as_ref().is_some_and(|other| *other != record) {
            return Err("it exists already, with another COMMIT".into());
        }
        found.quarantine = Some(quarantine);
        found.commit = Some(record);
        Ok(Reply::Done)
    }

    fn retire(&mut self, newest: &str, keep: u32, in_progress: &[String]) -> Result<Reply, String> {
        let (step, epoch) = match self.checkpoints.get(newest) {
            Some(Checkpoint { commit: Some(record), is_damaged: false, .. }) => (record.step, record.epoch),
            _ => return Err(format!("checkpoint {newest} does not read back")),
        };
        let older: Vec<String> = self
            .committed()
            .filter(|(record, found)| (record.step, record.epoch) <= (step, epoch) && !found.is_damaged)
            .map(|(record, _)| record.name.clone())
            .collect();
        let ends: BTreeSet<u64> = [STEPS[0], STEPS[0] + STEPS[1]].into();
        for name in older.iter().rev().skip(keep as usize) {
            if !ends.contains(&self.checkpoints[name].commit.as_ref().map_or(0, |record| record.step)) {
                self.checkpoints.remove(name);
            }
        }
        let is_abandoned = |name: &String, found: &Checkpoint| {
            let earlier = found.parts.values().next().is_some_and(|part| part.step < step);
            found.commit.is_none() && earlier && !in_progress.contains(name)
        };
        self.checkpoints.retain(|name, found| !is_abandoned(name, found));
        Ok(Reply::Done)
    }

    /// Checkpoints with a COMMIT, by step and epoch.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (&CheckpointRecord, &Checkpoint)> {
        let mut committed: Vec<_> =
            self.checkpoints.values().filter_map(|found| Some((found.commit.as_ref()?, found))).collect();
        committed.sort_by_key(|(record, _)| (record.step, record.epoch));
        committed.into_iter()
    }

    /// The record of an epoch.
    pub(crate) fn epoch(&self, epoch: u64) -> Option<&EpochRecord> {
        self.epochs.get(&epoch)
    }

    /// Damages the newest checkpoint, if an older one is left.
    pub(crate) fn damage_newest(&mut self) -> Option<String> {
        let valid: Vec<String> = self
            .committed()
            .filter(|(record, found)| is_whole(record, found))
            .map(|(record, _)| record.name.clone())
            .collect();
        let [.., _, newest] = valid.as_slice() else { return None };
        self.checkpoints.get_mut(newest)?.is_damaged = true;
        Some(newest.clone())
    }
}

fn is_whole(record: &CheckpointRecord, found: &Checkpoint) -> bool {
    !found.is_damaged && record.parts.iter().all(|part| found.parts.contains_key(&part.name))
}
