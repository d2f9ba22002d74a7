//! The kinds of sources: how they are cut into units, and their rows in order.

mod json_list;
mod laion;
mod line_reader;
mod lines;
mod list;
mod parquet;
mod pictures;
mod table;
mod tar;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::corpus::archive_name::ARCHIVE_ENDINGS;
use crate::corpus::ingest::IngestSettings;
use crate::corpus::ingest::folder::{NameTemplate, PictureFolder};
use crate::corpus::ingest::job::{PinnedSource, Unit};
use crate::corpus::ingest::row::SourceRow;
use crate::error::{DatasetError, Result};
use crate::store::{Location, StorePool};
use list::Entry;
use pictures::Pair;

/// Rows that a reading thread may be ahead.
const ROWS_AHEAD: usize = 4;

/// Rows in order; an error is the store's.
type Rows = BoxStream<'static, Result<SourceRow>>;

/// What sources are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Parquet files with pictures, as img2dataset writes them.
    Img2dataset,
    /// Tar archives: `KEY.jpg`, `KEY.txt`, `KEY.json`.
    Webdataset,
    /// COCO captions: the official JSON, Karpathy's, or a list of `{image, caption}`; and a folder.
    Coco,
    /// Visual Genome: `region_descriptions.json` or a list of `{image, caption}`; and a folder.
    VisualGenome,
    /// Conceptual Captions 3M: lines of caption, tab, URL; and a folder.
    Cc3m,
    /// Conceptual Captions 12M: lines of URL, tab, caption; and a folder.
    Cc12m,
    /// SBU captions: JSON of `image_urls` and `captions`, or a list; and a folder.
    Sbu,
    /// LAION: Parquet of `URL` and `TEXT`; and a folder.
    Laion,
    /// A folder of pictures with `.txt`, `.caption` or `.json` beside them.
    Folder,
    /// Comma-separated values with a header: a picture's path and a caption.
    Csv,
    /// The same, with tabs.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
}

/// Where the pictures of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PicturePlace {
    /// In the sources.
    Inside,
    /// In a folder that has to be named.
    Named,
    /// In a folder that is named, or in the one where the list is.
    Beside,
}

/// Endings of pictures, by preference.
const PICTURES: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

impl SourceKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Img2dataset,
        Self::Webdataset,
        Self::Coco,
        Self::VisualGenome,
        Self::Cc3m,
        Self::Cc12m,
        Self::Sbu,
        Self::Laion,
        Self::Folder,
        Self::Csv,
        Self::Tsv,
        Self::Jsonl,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Img2dataset => "img2dataset",
            Self::Webdataset => "webdataset",
            Self::Coco => "coco",
            Self::VisualGenome => "visual-genome",
            Self::Cc3m => "cc3m",
            Self::Cc12m => "cc12m",
            Self::Sbu => "sbu",
            Self::Laion => "laion",
            Self::Folder => "folder",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Jsonl => "jsonl",
        }
    }

    /// Endings of the sources that a folder stands for.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Img2dataset | Self::Laion => &["parquet"],
            Self::Webdataset => &ARCHIVE_ENDINGS,
            Self::Coco | Self::VisualGenome | Self::Sbu => &["json"],
            Self::Cc3m | Self::Cc12m => &["tsv", "txt"],
            Self::Csv => &["csv"],
            Self::Tsv => &["tsv"],
            Self::Jsonl => &["jsonl", "ndjson"],
            Self::Folder => &[],
        }
    }

    /// Where the pictures are.
    pub(super) fn picture_place(self) -> PicturePlace {
        match self {
            Self::Img2dataset | Self::Webdataset | Self::Folder => PicturePlace::Inside,
            Self::Csv | Self::Tsv | Self::Jsonl => PicturePlace::Beside,
            _ => PicturePlace::Named,
        }
    }

    /// Whether its sources only name their pictures, so that their folder has to be named.
    pub fn names_pictures(self) -> bool {
        self.picture_place() == PicturePlace::Named
    }

    /// Whether its sources are lists that are held in memory.
    fn is_list(self) -> bool {
        matches!(self, Self::Coco | Self::VisualGenome | Self::Sbu | Self::Csv | Self::Tsv | Self::Jsonl)
    }

    /// How a row's picture is called in the folder; `None` where the source says so itself.
    pub fn default_image_name(self) -> Option<&'static str> {
        match self {
            Self::Cc3m | Self::Cc12m | Self::Laion => Some("{shard}/{key}.jpg"),
            Self::Sbu => Some("{url_file}"),
            _ => None,
        }
    }

    /// Captions kept of a row: of web archives' ranked lists the reference uses the first two.
    pub fn default_max_captions(self) -> usize {
        if self == Self::Webdataset { 2 } else { 1000 }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Files of Hugging Face `datasets` are Parquet with pictures, too.
        let text = if matches!(text, "parquet" | "huggingface") { "img2dataset" } else { text };
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

/// The opened sources of a job.
#[derive(Debug)]
pub(super) struct Sources {
    kind: SourceKind,
    locations: Vec<Location>,
    pinned: Vec<PinnedSource>,
    /// Each source's folder of pictures.
    folders: Vec<Option<PictureFolder>>,
    template: Option<NameTemplate>,
    /// Of the kinds that are lists held in memory: each source's rows.
    lists: Vec<Arc<Vec<Entry>>>,
    /// Of folders: what each holds.
    pairs: Vec<Vec<Pair>>,
}

impl Sources {
    /// Resolves patterns, pins every source by its length and tag, and reads the lists.
    pub(super) async fn open(sources: &[String], settings: &IngestSettings) -> Result<Self> {
        let mut pool = StorePool::default();
        let kind = settings.kind;
        let default = kind.default_image_name();
        if default.is_none() && settings.image_name.is_some() && kind.picture_place() != PicturePlace::Beside
        {
            return Err(DatasetError::Setting(format!(
                "sources of kind {kind} say how their pictures are called; leave --image-name out"
            )));
        }
        let template = settings.image_name.as_deref().or(default).map(NameTemplate::parse).transpose()?;
        let named = settings.images.as_deref().map(PictureFolder::open).transpose()?;
        let mut opened = Self {
            kind,
            locations: Vec::new(),
            pinned: Vec::new(),
            folders: Vec::new(),
            template,
            lists: Vec::new(),
            pairs: Vec::new(),
        };
        for source in sources {
            match kind {
                SourceKind::Folder => opened.add_folders(&mut pool, source).await?,
                _ => opened.locations.extend(
                    pool.expand(source, kind.endings()).await?.into_iter().map(|object| object.location),
                ),
            }
        }
        if opened.locations.is_empty() {
            return Err(DatasetError::NoMatch { pattern: "(no source given)".to_owned() });
        }
        if kind == SourceKind::Folder {
            return Ok(opened);
        }
        for location in &opened.locations {
            opened.pinned.push(pin(location).await?);
            opened.folders.push(match (&named, kind.picture_place()) {
                (None, PicturePlace::Beside) => Some(PictureFolder::beside(location)),
                (named, _) => named.clone(),
            });
        }
        if kind.is_list() {
            for (location, pin) in opened.locations.iter().zip(&opened.pinned) {
                opened.lists.push(Arc::new(list::read(location, pin.bytes, settings).await?));
            }
        }
        Ok(opened)
    }

    /// Folders of pictures: one, or several in braces.
    async fn add_folders(&mut self, pool: &mut StorePool, source: &str) -> Result<()> {
        for folder in pool.folders(source).await? {
            let (pairs, bytes) = pictures::pairs(pool, &folder).await?;
            self.pinned.push(PinnedSource {
                location: folder.to_string(),
                bytes,
                etag: Some(pictures::fingerprint(&pairs)),
            });
            self.folders.push(Some(PictureFolder::of(folder.clone())));
            self.locations.push(folder);
            self.pairs.push(pairs);
        }
        Ok(())
    }

    pub(super) fn pinned(&self) -> &[PinnedSource] {
        &self.pinned
    }

    pub(super) fn folder(&self, unit: &Unit) -> Option<PictureFolder> {
        self.folders[unit.source].clone()
    }

    pub(super) fn location(&self, unit: &Unit) -> &Location {
        &self.locations[unit.source]
    }

    /// How the sources are cut.
    pub(super) async fn units(&self, unit_rows: u64) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for (source, (location, pin)) in self.locations.iter().zip(&self.pinned).enumerate() {
            match self.kind {
                SourceKind::Img2dataset | SourceKind::Webdataset => {
                    units.push(Unit { source, first_row: 0, rows: None, bytes: None });
                }
                SourceKind::Cc3m | SourceKind::Cc12m => {
                    units.extend(lines::units(source, location, pin.bytes, unit_rows).await?);
                }
                SourceKind::Laion => {
                    let rows = laion::rows_of(location, pin.bytes).await?;
                    units.extend(ranges(source, rows, unit_rows));
                }
                SourceKind::Folder => {
                    units.extend(ranges(source, self.pairs[source].len() as u64, unit_rows));
                }
                _ => units.extend(ranges(source, self.lists[source].len() as u64, unit_rows)),
            }
        }
        Ok(units)
    }

    /// A unit's rows.
    pub(super) async fn rows(&self, unit: &Unit, settings: &IngestSettings) -> Result<Rows> {
        let location = self.location(unit).clone();
        let bytes = self.pinned[unit.source].bytes;
        let template = self.template.clone();
        match self.kind {
            SourceKind::Img2dataset => parquet::rows(location, bytes, settings).await,
            SourceKind::Webdataset => Ok(tar::rows(&location, bytes, settings.max_picture_bytes)),
            SourceKind::Laion => laion::rows(location, bytes, unit, settings, template).await,
            SourceKind::Cc3m => Ok(lines::rows(&location, unit, lines::Order::CaptionUrl, template)),
            SourceKind::Cc12m => Ok(lines::rows(&location, unit, lines::Order::UrlCaption, template)),
            SourceKind::Folder => {
                let first = unit.first_row as usize;
                let pairs = &self.pairs[unit.source][first..first + unit.rows.unwrap_or_default() as usize];
                Ok(pictures::rows(location, pairs.to_vec(), unit.first_row))
            }
            _ => {
                let entries = Arc::clone(&self.lists[unit.source]);
                let end = unit.first_row + unit.rows.unwrap_or_default();
                let rows =
                    (unit.first_row..end).map(move |row| Ok(entries[row as usize].row(row, &template)));
                Ok(futures::stream::iter(rows).boxed())
            }
        }
    }
}

async fn pin(location: &Location) -> Result<PinnedSource> {
    let name = location.to_string();
    let Some((bytes, etag)) = location.head().await? else {
        return Err(DatasetError::NotFound { location: name });
    };
    // A local file's tag is made of its times, which copies do not share.
    let etag = etag.filter(|_| !location.is_local());
    Ok(PinnedSource { location: name, bytes, etag })
}

/// `rows` rows in units of `unit_rows`.
fn ranges(source: usize, rows: u64, unit_rows: u64) -> impl Iterator<Item = Unit> {
    (0..rows.div_ceil(unit_rows)).map(move |unit| {
        let first_row = unit * unit_rows;
        Unit { source, first_row, rows: Some(unit_rows.min(rows - first_row)), bytes: None }
    })
}

/// Where a thread that may block puts its rows.
struct RowSender(mpsc::Sender<Result<SourceRow>>);

impl RowSender {
    /// `false` when nobody takes rows any more.
    fn send(&self, row: Result<SourceRow>) -> bool {
        self.0.blocking_send(row).is_ok()
    }
}

/// Rows that a thread of its own makes.
fn from_thread(make: impl FnOnce(RowSender) + Send + 'static) -> Rows {
    let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
    let work = tokio::task::spawn_blocking(move || make(RowSender(sender)));
    let rows = futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|row| (row, receiver))
    });
    // A thread that panicked must not look like the end of the source.
    let end = futures::stream::once(async move {
        work.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })
    });
    rows.chain(end.filter_map(async |ended| ended.err().map(Err))).boxed()
}

/// The rows of a fallible beginning.
fn flatten(rows: impl futures::Stream<Item = Result<Vec<SourceRow>>> + Send + 'static) -> Rows {
    rows.map_ok(|rows| futures::stream::iter(rows.into_iter().map(Ok))).try_flatten().boxed()
}
