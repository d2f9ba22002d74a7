//! Reads of ranges, as a file asks for them: whoever reads may keep copies, try again, or ask twice.

use std::ops::Range;

use blip2_store::PinnedObject;
use bytes::Bytes;

/// Where the bytes of a row group come from.
pub(crate) trait RangeReads: Sync {
    /// Ranges of an object, in their order.
    fn ranges(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
    ) -> impl Future<Output = Result<Vec<Bytes>, object_store::Error>> + Send;

    /// What was read is wrong: whoever kept a copy is to give it up.
    fn forget(&self, object: &PinnedObject, ranges: &[Range<u64>]);
}

/// Straight from the store.
pub(super) struct StoreReads;

impl RangeReads for StoreReads {
    async fn ranges(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, object_store::Error> {
        object.read_ranges(ranges).await
    }

    fn forget(&self, _: &PinnedObject, _: &[Range<u64>]) {}
}
