//! Segments of lines as a store's objects: a folder's in their order, and a write that has an end.

use std::time::Duration;

use blip2_run::layout::parse_segment_name;
use blip2_store::Location;

use crate::error::Result;

/// Lines of a segment after which the next one is begun.
pub(crate) const LINES: usize = 256;
/// How long a write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// The segments in `folder` in the order in which they were begun, each with its first line's number.
pub(crate) async fn list(folder: &Location) -> Result<Vec<(u64, Location)>> {
    let objects = folder.list().await?;
    let named = |location: Location| Some((parse_segment_name(location.file_name())?, location));
    let mut segments: Vec<_> = objects.into_iter().filter_map(|object| named(object.location)).collect();
    segments.sort_by_key(|(name, _)| *name);
    Ok(segments.into_iter().map(|((_, first), location)| (first, location)).collect())
}

/// What a write comes to that has a time to end in, or why it came to nothing.
pub(crate) async fn in_time<T, E: std::fmt::Display>(
    write: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, String> {
    match tokio::time::timeout(WRITE_WITHIN, write).await {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", WRITE_WITHIN.as_secs())),
    }
}
