//! The opened sources of a job: how they are cut into units, and their rows in order.

mod entry;
mod images;
mod json_list;
mod laion;
mod line_reader;
mod lines;
mod list;
mod parquet;
mod rows;
mod table;
mod tar;

use std::sync::Arc;

use blip2_store::error::StoreError;
use blip2_store::{Location, StorePool};
use futures::StreamExt;

use super::folder::{ImageFolder, NameTemplate};
use super::kind::{ImagePlace, SourceKind};
use super::settings::IngestSettings;
use super::unit::{PinnedSource, Unit};
use crate::error::{DatasetError, Result};
use entry::Entry;
use images::Pair;
use rows::Rows;

/// The opened sources of a job.
#[derive(Debug)]
pub(super) struct Sources {
    kind: SourceKind,
    locations: Vec<Location>,
    pinned: Vec<PinnedSource>,
    /// Each source's folder of images.
    folders: Vec<Option<ImageFolder>>,
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
        if default.is_none() && settings.image_name.is_some() && kind.image_place() != ImagePlace::Beside {
            return Err(DatasetError::Setting(format!(
                "sources of kind {kind} say how their pictures are called; leave --image-name out"
            )));
        }
        let template = settings.image_name.as_deref().or(default).map(NameTemplate::parse).transpose()?;
        let named = settings.images.as_deref().map(ImageFolder::open).transpose()?;
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
            return Err(StoreError::NoMatch { pattern: "(no source given)".to_owned() }.into());
        }
        if kind == SourceKind::Folder {
            return Ok(opened);
        }
        for location in &opened.locations {
            opened.pinned.push(pin(location).await?);
            opened.folders.push(match (&named, kind.image_place()) {
                (None, ImagePlace::Beside) => Some(ImageFolder::beside(location)),
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

    /// Folders of images: one, or several in braces.
    async fn add_folders(&mut self, pool: &mut StorePool, source: &str) -> Result<()> {
        for folder in pool.folders(source).await? {
            let (pairs, bytes) = images::pairs(pool, &folder).await?;
            self.pinned.push(PinnedSource {
                location: folder.to_string(),
                bytes,
                etag: Some(images::fingerprint(&pairs)),
            });
            self.folders.push(Some(ImageFolder::of(folder.clone())));
            self.locations.push(folder);
            self.pairs.push(pairs);
        }
        Ok(())
    }

    pub(super) fn pinned(&self) -> &[PinnedSource] {
        &self.pinned
    }

    pub(super) fn folder(&self, unit: &Unit) -> Option<ImageFolder> {
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
            SourceKind::Webdataset => Ok(tar::rows(&location, bytes, settings.max_image_bytes)),
            SourceKind::Laion => laion::rows(location, bytes, unit, settings, template).await,
            SourceKind::Cc3m => Ok(lines::rows(&location, unit, lines::Order::CaptionUrl, template)),
            SourceKind::Cc12m => Ok(lines::rows(&location, unit, lines::Order::UrlCaption, template)),
            SourceKind::Folder => {
                let first = unit.first_row as usize;
                let pairs = &self.pairs[unit.source][first..first + unit.rows.unwrap_or_default() as usize];
                Ok(images::rows(location, pairs.to_vec(), unit.first_row))
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
        return Err(StoreError::NotFound { location: name }.into());
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
