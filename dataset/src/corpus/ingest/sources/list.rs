//! Lists that name their pictures and are held in memory while the job runs.

use std::collections::HashMap;
use std::io::BufReader;

use crate::corpus::ingest::IngestSettings;
use crate::corpus::ingest::fetch::ObjectReader;
use crate::corpus::ingest::folder::{NameTemplate, key_of};
use crate::corpus::ingest::row::{Picture, RejectReason, SourceRow};
use crate::corpus::ingest::sources::{SourceKind, json_list, table};
use crate::error::{DatasetError, Result};
use crate::store::Location;

/// A picture with its captions.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Option<String>,
    /// Where it may lie in the folder; empty: where the kind's name template says.
    pub(super) names: Vec<String>,
    pub(super) url: Option<String>,
    pub(super) captions: Vec<String>,
    /// Why it cannot be used, of an item that does not have the form of its kind.
    pub(super) fault: Option<String>,
}

impl Entry {
    /// An item that cannot be used.
    pub(super) fn faulty(reason: impl Into<String>) -> Self {
        Self { fault: Some(reason.into()), ..Self::default() }
    }

    pub(super) fn row(&self, row: u64, template: &Option<NameTemplate>) -> SourceRow {
        let names = match (self.names.is_empty(), template) {
            (true, Some(template)) => vec![template.fill(row, self.url.as_deref())],
            _ => self.names.clone(),
        };
        let malformed = |reason: &str| Err((RejectReason::MalformedRow, reason.to_owned()));
        let picture = match &self.fault {
            Some(reason) => malformed(reason),
            None if names.iter().all(String::is_empty) => {
                malformed("it does not say what its picture is called")
            }
            None => Ok(Picture::Named(names)),
        };
        SourceRow {
            row,
            key: self.key.clone().unwrap_or_else(|| key_of(row)),
            captions: self.captions.clone(),
            url: self.url.clone(),
            picture,
        }
    }
}

/// All entries of a list, in its order.
pub(super) async fn read(location: &Location, bytes: u64, settings: &IngestSettings) -> Result<Vec<Entry>> {
    let (reader, failure) = ObjectReader::start(location, 0..bytes);
    let (settings, name, kind) = (settings.clone(), location.to_string(), settings.kind);
    let parsed = tokio::task::spawn_blocking(move || {
        let reader = BufReader::new(reader);
        match kind {
            SourceKind::Csv => table::read(reader, b',', &settings, &name),
            SourceKind::Tsv => table::read(reader, b'\t', &settings, &name),
            SourceKind::Jsonl => json_list::lines(reader, &settings),
            _ => json_list::whole(reader, &settings),
        }
    });
    let parsed = parsed.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
    parsed.map_err(|error| {
        let malformed = |error| match error {
            ListError::Unreadable(reason) => {
                let reason = format!("{location}: {reason}; is it of kind {kind}?");
                DatasetError::Malformed { what: "list", reason }
            }
            ListError::Columns(error) => error,
        };
        failure.take().unwrap_or_else(|| malformed(error))
    })
}

/// Why nothing of a list can be used.
#[derive(Debug)]
pub(super) enum ListError {
    /// It does not have the form of its kind.
    Unreadable(String),
    /// Its columns are not found.
    Columns(DatasetError),
}

/// Items of one picture become one entry, where the first of them stands.
pub(super) fn gather(items: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for item in items {
        let name = item.names.first().filter(|_| item.fault.is_none() && item.names.len() == 1).cloned();
        match name.as_ref().and_then(|name| places.get(name).copied()) {
            Some(place) => entries[place].captions.extend(item.captions),
            None => {
                if let Some(name) = name {
                    places.insert(name, entries.len());
                }
                entries.push(item);
            }
        }
    }
    entries
}
