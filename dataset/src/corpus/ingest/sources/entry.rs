//! An image of a list with its captions.

use std::collections::BTreeMap;

use crate::corpus::ingest::folder::{NameTemplate, key_of};
use crate::corpus::ingest::row::{RejectReason, RowImage, SourceRow};
use crate::error::DatasetError;

/// An image with its captions.
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
        let image = match &self.fault {
            Some(reason) => malformed(reason),
            None if names.iter().all(String::is_empty) => {
                malformed("it does not say what its picture is called")
            }
            None => Ok(RowImage::Named(names)),
        };
        SourceRow {
            row,
            key: self.key.clone().unwrap_or_else(|| key_of(row)),
            captions: self.captions.clone(),
            url: self.url.clone(),
            image,
        }
    }
}

/// Why nothing of a list can be used.
#[derive(Debug)]
pub(super) enum ListError {
    /// It does not have the form of its kind.
    Unreadable(String),
    /// Its columns are not found.
    Columns(DatasetError),
}

/// Items of one image become one entry, where the first of them stands.
pub(super) fn gather(items: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
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
