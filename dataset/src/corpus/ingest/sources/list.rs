//! Lists that name their images and are held in memory while the job runs.

use std::io::BufReader;

use blip2_store::Location;

use super::entry::{Entry, ListError};
use super::{json_list, table};
use crate::corpus::ingest::fetch::ObjectReader;
use crate::corpus::ingest::kind::SourceKind;
use crate::corpus::ingest::settings::IngestSettings;
use crate::error::{DatasetError, Result};

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
