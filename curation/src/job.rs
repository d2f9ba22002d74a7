//! The record that pins a job: what is curated, how, and how it is cut into tasks.

use std::ops::Range;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::{Manifest, ManifestFile};
use blip2_dataset::error::{DatasetError, Result};
use blip2_store::error::StoreError;
use blip2_store::record::{read_json, to_json};
use blip2_store::{Location, put_create};
use serde::{Deserialize, Serialize};

use crate::dedup::DedupRule;
use crate::select::SelectionSettings;

/// Name of the record.
pub(crate) const JOB_FILE: &str = "curate.json";

/// Version of the layout and of the record.
const FORMAT: u32 = 1;

/// What decides the bytes that a job writes, besides its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurationSettings {
    /// Column names of the input.
    pub columns: ColumnNames,
    /// Row groups of a task.
    pub task_row_groups: u32,
    /// Images of more pixels are not used.
    pub max_pixels: u64,
    /// Which texts are kept.
    pub selection: SelectionSettings,
    /// What captions and scores, in the words of whoever does; a job goes on with the same alone.
    pub models: serde_json::Value,
}

impl CurationSettings {
    fn validate(&self) -> Result<()> {
        if self.task_row_groups == 0 {
            return Err(DatasetError::Setting("curation.task_row_groups: at least 1".to_owned()));
        }
        self.selection.validate()
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    format: u32,
    pub(crate) settings: CurationSettings,
    /// Where the scores are, if another job wrote them.
    pub(crate) scores: Option<String>,
    /// Which rows are left out because their image is another row's.
    pub(crate) dedup: Option<DedupRule>,
    pub(crate) files: Vec<ManifestFile>,
}

/// Row groups that are curated as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlace {
    /// Index among the job's files.
    pub file: usize,
    /// Row groups of the file.
    pub row_groups: Range<u32>,
}

/// A job that was begun, in this process or in another.
#[derive(Debug, Clone)]
pub struct CurationJob {
    pub(crate) out: Location,
    pub(crate) record: JobRecord,
    tasks: Vec<TaskPlace>,
}

impl CurationJob {
    /// Reads the footers of `input` (paths, URLs, patterns) and writes the record below `out`, or goes on
    /// with the job that is there.
    ///
    /// # Errors
    /// As [`Manifest::open`]; [`DatasetError::Setting`]; [`StoreError::Changed`] when `out` holds another
    /// job, or the input is not what it was.
    pub async fn begin(out: &Location, input: &[String], settings: &CurationSettings) -> Result<Self> {
        settings.validate()?;
        let manifest = Manifest::open(input, &settings.columns).await?;
        Self::begin_with(
            out,
            JobRecord {
                format: FORMAT,
                settings: settings.clone(),
                scores: None,
                dedup: None,
                files: manifest.files,
            },
        )
        .await
    }

    /// A job that selects anew from the scores of `self`.
    ///
    /// # Errors
    /// As [`CurationJob::begin`].
    pub(crate) async fn begin_again(
        &self,
        out: &Location,
        selection: &SelectionSettings,
        dedup: Option<DedupRule>,
    ) -> Result<Self> {
        selection.validate()?;
        let settings = CurationSettings { selection: selection.clone(), ..self.record.settings.clone() };
        let scores = Some(self.scores_root()?.to_string());
        Self::begin_with(out, JobRecord { settings, scores, dedup, ..self.record.clone() }).await
    }

    /// The job that `out` holds.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it holds none, [`DatasetError::Malformed`].
    pub async fn open(out: &Location) -> Result<Self> {
        let place = out.join(JOB_FILE);
        match read_json::<JobRecord>(&place, "curation record").await? {
            Some(record) => Self::of(out, record),
            None => Err(StoreError::NotFound { location: place.to_string() }.into()),
        }
    }

    async fn begin_with(out: &Location, record: JobRecord) -> Result<Self> {
        let place = out.join(JOB_FILE);
        if put_create(&place, to_json(&record)?).await? {
            return Self::of(out, record);
        }
        let known = Self::open(out).await?;
        if let Err(other) = known.compare(&record) {
            // A start that failed before anything was done does not block the next.
            if !is_untouched(out).await? {
                return Err(other);
            }
            place.put(to_json(&record)?).await?;
            return Self::of(out, record);
        }
        Ok(known)
    }

    fn of(out: &Location, record: JobRecord) -> Result<Self> {
        if record.format != FORMAT {
            let reason = format!("it has format {}, this program writes {FORMAT}", record.format);
            return Err(StoreError::Changed { file: out.join(JOB_FILE).to_string(), reason }.into());
        }
        let tasks = tasks(&record.files, record.settings.task_row_groups);
        Ok(Self { out: out.clone(), record, tasks })
    }

    /// Entity tags are compared when a file is read: those of local files change with a copy.
    fn compare(&self, wanted: &JobRecord) -> Result<()> {
        let known = &self.record;
        let other = |reason: &str| {
            let file = self.out.join(JOB_FILE).to_string();
            Err(StoreError::Changed { file, reason: format!("{reason}; choose another curation.output") }
                .into())
        };
        if known.settings.models != wanted.settings.models {
            return other("it was begun with other models");
        }
        if known.settings != wanted.settings || known.dedup != wanted.dedup {
            return other("it was begun with other settings");
        }
        if known.scores != wanted.scores {
            return other("it selects from other scores");
        }
        let names =
            |record: &JobRecord| record.files.iter().map(|file| file.location.clone()).collect::<Vec<_>>();
        if names(known) != names(wanted) {
            return other("its input is another");
        }
        for (before, now) in known.files.iter().zip(&wanted.files) {
            if before.bytes != now.bytes || before.row_groups != now.row_groups {
                let reason = format!("{} bytes instead of {}", now.bytes, before.bytes);
                return Err(StoreError::Changed { file: now.location.clone(), reason }.into());
            }
        }
        Ok(())
    }

    /// Where the job writes.
    pub fn output(&self) -> &Location {
        &self.out
    }

    /// The settings it was begun with.
    pub fn settings(&self) -> &CurationSettings {
        &self.record.settings
    }

    /// Tasks, in the order of the input; a task's number is its index.
    pub fn tasks(&self) -> &[TaskPlace] {
        &self.tasks
    }

    /// Rows of the input.
    pub fn rows(&self) -> u64 {
        self.record.files.iter().flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum()
    }

    /// A task's place.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if the job has no such task.
    pub(crate) fn place(&self, task: u64) -> Result<&TaskPlace> {
        let known = usize::try_from(task).ok().and_then(|task| self.tasks.get(task));
        known.ok_or_else(|| {
            DatasetError::Setting(format!(
                "task {task}: the curation of {} has {}",
                self.out,
                self.tasks.len()
            ))
        })
    }

    /// Where the scores are.
    pub(crate) fn scores_root(&self) -> Result<Location> {
        match &self.record.scores {
            Some(root) => Ok(Location::parse(root)?),
            None => Ok(self.out.clone()),
        }
    }
}

/// Whether the record is all that a job has written.
async fn is_untouched(out: &Location) -> Result<bool> {
    Ok(out.list().await?.iter().all(|object| object.location.file_name() == JOB_FILE))
}

/// Runs of row groups, none over the end of a file.
fn tasks(files: &[ManifestFile], row_groups: u32) -> Vec<TaskPlace> {
    let of_file = |(file, entry): (usize, &ManifestFile)| {
        // A footer's row groups are counted in 32 bits.
        let count = entry.row_groups.len() as u32;
        (0..count).step_by(row_groups.max(1) as usize).map(move |first| TaskPlace {
            file,
            row_groups: first..first.saturating_add(row_groups).min(count),
        })
    };
    files.iter().enumerate().flat_map(of_file).collect()
}
