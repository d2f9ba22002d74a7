//! From scores to files: what is written of a task, and of the job.

use std::collections::{BTreeMap, BTreeSet};

use blip2_dataset::corpus::ingest::PartRecord;
use blip2_dataset::corpus::row_group_file::RowGroupFile;
use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_store::error::StoreError;
use blip2_store::put_create;
use blip2_store::record::{create_same, read_json, to_json};
use serde::{Deserialize, Serialize};

use crate::dedup::RowPlaces;
use crate::job::CurationJob;
use crate::part::{CuratedRow, batch, contents, schema};
use crate::scored::file::{from_parquet, scored_name, to_parquet};
use crate::scored::{ScoredRow, ScoredText, TextSource};
use crate::select::{DropReason, JudgedText, select};
use crate::task::CurationTask;

/// Counts of texts by what became of them; `kept` is one of the names.
pub type TextCounts = BTreeMap<String, u64>;

/// A task that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDone {
    /// Its number.
    pub task: u64,
    /// Its rows in the input.
    pub rows_read: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Rows whose image is another row's.
    pub duplicates: u64,
    /// Rows that keep no text.
    pub without_text: u64,
    /// Rows that cannot be used.
    pub rejected: u64,
    /// Texts of the web.
    pub web: TextCounts,
    /// Texts of the captioner.
    pub synthetic: TextCounts,
    /// The file; none if no row was written.
    part: Option<PartRecord>,
}

/// What a job has done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CurationSummary {
    /// Tasks of the job.
    pub tasks: u64,
    /// Tasks that are done.
    pub tasks_done: u64,
    /// Rows of the input in those.
    pub rows_read: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Rows whose image is another row's.
    pub duplicates: u64,
    /// Rows that keep no text.
    pub without_text: u64,
    /// Rows that cannot be used.
    pub rejected: u64,
    /// Texts of the web.
    pub web: TextCounts,
    /// Texts of the captioner.
    pub synthetic: TextCounts,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CurationSummary {
    /// Counts a task.
    pub fn add(&mut self, done: &TaskDone) {
        self.tasks_done += 1;
        self.rows_read += done.rows_read;
        self.rows += done.rows;
        self.duplicates += done.duplicates;
        self.without_text += done.without_text;
        self.rejected += done.rejected;
        self.files += u64::from(done.part.is_some());
        self.bytes += done.part.as_ref().map_or(0, |part| part.bytes);
        for (sum, counts) in [(&mut self.web, &done.web), (&mut self.synthetic, &done.synthetic)] {
            for (name, count) in counts {
                *sum.entry(name.clone()).or_insert(0) += count;
            }
        }
    }
}

/// The name of texts that are kept, among those of [`DropReason`].
pub const KEPT: &str = "kept";

impl CurationJob {
    /// The record of a task, if it is done.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`DatasetError::Malformed`].
    pub async fn task_done(&self, task: u64) -> Result<Option<TaskDone>> {
        Ok(read_json(&self.out.join(&done_name(task)), "done record").await?)
    }

    /// The rows of a task that cannot be used, once it is done.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`DatasetError::Malformed`].
    pub async fn rejected_rows(&self, task: u64) -> Result<Vec<QuarantineRecord>> {
        let Some(content) = self.out.join(&rejected_name(task)).read().await? else { return Ok(Vec::new()) };
        Ok(QuarantineList::from_parquet(content)?.iter().cloned().collect())
    }

    /// Tasks that have a record, from one listing.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn tasks_done(&self) -> Result<BTreeSet<u64>> {
        let found = self.out.join("done").list().await?;
        let number = |name: &str| name.strip_suffix(".json")?.parse().ok();
        Ok(found.iter().filter_map(|object| number(object.location.file_name())).collect())
    }

    /// The scores of a task, if they are there.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`DatasetError::Malformed`].
    pub async fn read_scored(&self, task: u64) -> Result<Option<Vec<ScoredRow>>> {
        let content = self.scores_root()?.join(&scored_name(task)).read().await?;
        content.map(from_parquet).transpose()
    }

    /// Stores the scores of a task's rows, one list for each, unless some are there; then what follows from
    /// those that are there now. Whoever calls this for a task, and however often: the same objects are there
    /// afterwards.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; [`StoreError::Changed`] if objects of another job are in the place;
    /// [`DatasetError::Setting`] if `texts` are not those of the task's rows.
    pub async fn finish_task(&self, task: &CurationTask, texts: Vec<Vec<ScoredText>>) -> Result<TaskDone> {
        if texts.len() != task.rows.len() {
            let (rows, lists) = (task.rows.len(), texts.len());
            return Err(DatasetError::Setting(format!("{lists} lists of texts for {rows} rows")));
        }
        let scored = task.rows.iter().zip(texts).map(|(row, texts)| ScoredRow {
            row_group: row.row_group,
            row: row.row,
            key: row.key.clone(),
            sha256: row.sha256,
            perceptual_hash: row.perceptual_hash,
            texts,
        });
        let scored: Vec<ScoredRow> = scored.collect();
        let place = self.out.join(&scored_name(task.number));
        let scored = match put_create(&place, to_parquet(&scored)?).await? {
            true => scored,
            // Another worker was faster, or did not live to finish: its scores count.
            false => place.read().await?.map(from_parquet).transpose()?.unwrap_or(scored),
        };
        self.write_task(task, &scored, &RowPlaces::new()).await
    }

    /// Goes on with a task whose scores are there.
    ///
    /// # Errors
    /// As [`CurationJob::finish_task`].
    pub async fn finish_scored_task(&self, task: &CurationTask, scored: &[ScoredRow]) -> Result<TaskDone> {
        self.write_task(task, scored, &RowPlaces::new()).await
    }

    /// Writes what follows from the scores.
    pub(crate) async fn write_task(
        &self,
        task: &CurationTask,
        scored: &[ScoredRow],
        duplicates: &RowPlaces,
    ) -> Result<TaskDone> {
        let by_place: BTreeMap<(u32, u32), &ScoredRow> =
            scored.iter().map(|row| ((row.row_group, row.row), row)).collect();
        let mut done = TaskDone::new(task);
        let mut kept: Vec<CuratedRow<'_>> = Vec::new();
        for row in &task.rows {
            let place = (row.row_group, row.row);
            let Some(scored) = by_place.get(&place).filter(|scored| scored.sha256 == row.sha256) else {
                let file = self.scores_root()?.join(&scored_name(task.number)).to_string();
                let reason = format!("its rows are not those of the input: `{}`", row.key);
                return Err(StoreError::Changed { file, reason }.into());
            };
            let texts = select(&scored.texts, &self.settings().selection);
            if duplicates.contains(&place) {
                done.duplicates += 1;
                continue;
            }
            done.count(&texts);
            match texts.iter().any(|judged| judged.dropped.is_none()) {
                true => kept.push(CuratedRow { row, texts }),
                false => done.without_text += 1,
            }
        }
        done.rows = kept.len() as u64;
        if !kept.is_empty() {
            done.part = Some(self.write_part(task.number, &kept).await?);
        }
        if !task.rejected.is_empty() {
            let list: QuarantineList = task.rejected.iter().cloned().collect();
            create_same(&self.out.join(&rejected_name(task.number)), list.to_parquet()?).await?;
        }
        create_same(&self.out.join(&done_name(task.number)), to_json(&done)?).await?;
        Ok(done)
    }

    async fn write_part(&self, task: u64, rows: &[CuratedRow<'_>]) -> Result<PartRecord> {
        let mut file = RowGroupFile::new(schema())?;
        for group in rows.chunk_by(|a, b| a.row.row_group == b.row.row_group) {
            file.push(&batch(group)?, contents(group))?;
        }
        let name = format!("part-{task:06}.parquet");
        let written = file.rows();
        let content = file.finish()?;
        let record = PartRecord {
            name,
            bytes: content.len() as u64,
            rows: written,
            blake3: blake3::hash(&content).to_hex().to_string(),
        };
        create_same(&self.out.join(&record.name), content).await?;
        Ok(record)
    }

    /// What all tasks have done; when none is missing, also writes it as `summary.json`.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`DatasetError::Malformed`].
    pub async fn summary(&self) -> Result<CurationSummary> {
        let mut summary = CurationSummary { tasks: self.tasks().len() as u64, ..CurationSummary::default() };
        for task in self.tasks_done().await? {
            if let Some(done) = self.task_done(task).await? {
                summary.add(&done);
            }
        }
        if summary.tasks_done == summary.tasks {
            self.out.join("summary.json").put(to_json(&summary)?).await?;
        }
        Ok(summary)
    }
}

impl TaskDone {
    fn new(task: &CurationTask) -> Self {
        let rejected = task.rejected.len() as u64;
        Self {
            task: task.number,
            rows_read: task.rows.len() as u64 + rejected,
            rows: 0,
            duplicates: 0,
            without_text: 0,
            rejected,
            web: TextCounts::new(),
            synthetic: TextCounts::new(),
            part: None,
        }
    }

    fn count(&mut self, texts: &[JudgedText]) {
        for judged in texts {
            let counts = match judged.text.source {
                TextSource::Web => &mut self.web,
                TextSource::Synthetic => &mut self.synthetic,
            };
            let name = judged.dropped.map_or(KEPT, DropReason::name);
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
}

fn rejected_name(task: u64) -> String {
    format!("rejected/{task:06}.parquet")
}

fn done_name(task: u64) -> String {
    format!("done/{task:06}.json")
}
