//! An evaluation as work that is cut into units, each of whose results is one object that is created once.
//!
//! ```text
//! OUT/eval.json              what is evaluated and how: written first, compared by every later run
//! OUT/captions/000003.jsonl  the results of unit 3
//! ```
//!
//! A unit is so many items in the set's order, and it is computed whole: its batches, and so its numbers, are
//! the same whoever computes it. Whoever is killed leaves whole units or none. Of two that did the same unit
//! the first one's result counts. Results are put together in the order of the units.

use std::collections::BTreeSet;
use std::ops::Range;

use blip2_dataset::corpus::ingest::Share;
use blip2_store::record::{read_json, to_json};
use blip2_store::{Location, put_create};
use serde::{Deserialize, Serialize};

use crate::job_error::{JobError, Result};

/// Name of the record.
const RECORD: &str = "eval.json";
/// Version of the layout and of the record.
const FORMAT: u32 = 1;

/// What decides the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// What is done: `caption`, `vqa`, `retrieval` or `itm`.
    pub task: String,
    /// BLAKE3 of the model's files.
    pub model: String,
    /// BLAKE3 of the set's ids and texts.
    pub set: String,
    /// Items of the set.
    pub items: u64,
    /// Items of a unit.
    pub unit_items: u64,
    /// Prompt, search and the like, in the words of whoever evaluates.
    pub settings: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Versioned {
    format: u32,
    #[serde(flatten)]
    record: EvaluationRecord,
}

/// An evaluation that was begun, in this process or in another.
#[derive(Debug, Clone)]
pub struct EvaluationJob {
    out: Location,
    record: EvaluationRecord,
}

/// Units of one kind, and where their results are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// The folder.
    pub folder: &'static str,
    /// What its objects end in.
    pub ending: &'static str,
}

/// A unit that is to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its items, as places in the set.
    pub items: Range<usize>,
    /// Those of the unit that whoever computes this one will be given next, where that is known: what they
    /// need can be read meanwhile.
    pub next: Option<Range<usize>>,
}

/// What an evaluation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Units whose results are there.
    pub done: u64,
    /// All units.
    pub units: u64,
}

impl Progress {
    /// Whether nothing is left.
    pub fn is_finished(self) -> bool {
        self.done == self.units
    }
}

impl EvaluationJob {
    /// Writes the record below `out`, or goes on with the job that is there.
    ///
    /// # Errors
    /// A store that fails, and [`JobError::Other`] where `out` holds another job.
    pub async fn begin(out: &Location, record: EvaluationRecord) -> Result<Self> {
        let place = out.join(RECORD);
        let versioned = Versioned { format: FORMAT, record };
        if !put_create(&place, to_json(&versioned)?).await? {
            let known: Option<Versioned> = read_json(&place, "evaluation record").await?;
            if let Some(what) = known.and_then(|known| difference(&known, &versioned)) {
                return Err(JobError::Other { place: out.to_string(), what: what.to_owned() });
            }
        }
        Ok(Self { out: out.clone(), record: versioned.record })
    }

    /// Where results are written.
    pub fn out(&self) -> &Location {
        &self.out
    }

    /// How many units there are.
    pub fn units(&self) -> u64 {
        self.record.items.div_ceil(self.record.unit_items.max(1))
    }

    /// The items of a unit, as places in the set.
    pub fn items(&self, unit: u64) -> Range<usize> {
        let first = unit * self.record.unit_items;
        let end = (first + self.record.unit_items).min(self.record.items);
        first as usize..end as usize
    }

    fn place(&self, phase: Phase, unit: u64) -> Location {
        self.out.join(&format!("{}/{unit:06}.{}", phase.folder, phase.ending))
    }

    /// Units whose results are there.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn done(&self, phase: Phase) -> Result<BTreeSet<u64>> {
        let found = self.out.join(phase.folder).list_matching(&format!("*.{}", phase.ending)).await?;
        let number = |name: &str| name.split('.').next().and_then(|stem| stem.parse().ok());
        let numbers = found.iter().filter_map(|object| number(object.location.file_name()));
        Ok(numbers.filter(|unit| *unit < self.units()).collect())
    }

    /// Whether a unit's results are there.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn is_done(&self, phase: Phase, unit: u64) -> Result<bool> {
        Ok(self.place(phase, unit).head().await?.is_some())
    }

    /// Stores a unit's results, unless some are there.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn store(&self, phase: Phase, unit: u64, result: Vec<u8>) -> Result<()> {
        put_create(&self.place(phase, unit), result.into()).await?;
        Ok(())
    }

    /// Computes the units of a share that are not done, one after the other, until `is_stopped`; `compute`
    /// gives the result of a unit, `progress` is told after each unit.
    ///
    /// # Errors
    /// Those of `compute`, and a store that fails.
    pub async fn work(
        &self,
        phase: Phase,
        share: Share,
        is_stopped: impl Fn() -> bool,
        mut compute: impl AsyncFnMut(Unit) -> Result<Vec<u8>>,
        progress: impl Fn(Progress),
    ) -> Result<Progress> {
        let mut done = self.done(phase).await?;
        let of = |done: &BTreeSet<u64>| Progress { done: done.len() as u64, units: self.units() };
        let own = (0..self.units()).filter(|unit| unit % share.count.max(1) == share.index);
        let missing: Vec<u64> = own.filter(|unit| !done.contains(unit)).collect();
        for (place, unit) in missing.iter().copied().enumerate() {
            if is_stopped() {
                return Ok(of(&done));
            }
            let next = missing.get(place + 1).map(|next| self.items(*next));
            let result = compute(Unit { items: self.items(unit), next }).await?;
            self.store(phase, unit, result).await?;
            done.insert(unit);
            progress(of(&done));
        }
        // What the others did meanwhile.
        Ok(of(&self.done(phase).await?))
    }

    /// The results of all units in their order, each as `read` has it for its items.
    ///
    /// # Errors
    /// A unit that is not there or that `read` refuses, and a store that fails.
    pub async fn results<T>(
        &self,
        phase: Phase,
        read: impl Fn(Range<usize>, &[u8]) -> Result<Vec<T>, String>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for unit in 0..self.units() {
            let place = self.place(phase, unit);
            let wrong = |reason: String| JobError::Unit { place: place.to_string(), reason };
            let content = place.read().await?.ok_or_else(|| wrong("is not there".to_owned()))?;
            all.extend(read(self.items(unit), &content).map_err(wrong)?);
        }
        Ok(all)
    }
}

/// In what two jobs differ, in a word.
fn difference(known: &Versioned, wanted: &Versioned) -> Option<&'static str> {
    let (a, b) = (&known.record, &wanted.record);
    let differences = [
        (known.format != wanted.format, "version of this program"),
        (a.task != b.task, "task"),
        (a.model != b.model, "model"),
        ((&a.set, a.items) != (&b.set, b.items), "set"),
        (a.unit_items != b.unit_items || a.settings != b.settings, "preset, prompt or search"),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
}
