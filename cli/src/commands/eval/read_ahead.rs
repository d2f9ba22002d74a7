//! Images of the next unit, which are read while this one is computed.

use std::ops::Range;

use blip2_evaluation::job::Unit;
use blip2_evaluation::job_error::Result as JobResult;
use blip2_evaluation::sets::item::ItemSet;
use blip2_images::RgbImage;

/// The different images of some items, and which of them is each item's.
pub(super) type UnitImages = (Vec<RgbImage>, Vec<usize>);

/// What was read before it was asked for.
#[derive(Debug, Default)]
pub(super) struct ReadAhead(Option<(Range<usize>, UnitImages)>);

impl ReadAhead {
    /// What `compute` makes of a unit's images, while those of the next unit are read. An image of the next
    /// unit that cannot be read is an error when that unit is computed.
    pub(super) async fn compute<T, R>(
        &mut self,
        set: &mut ItemSet<T>,
        unit: Unit,
        compute: impl AsyncFnOnce(UnitImages) -> JobResult<R>,
    ) -> JobResult<R> {
        let Unit { items, next } = unit;
        let images = match self.0.take() {
            Some((read, images)) if read == items => images,
            _ => set.images(items).await?,
        };
        let ahead = async {
            let next = next?;
            let images = set.images(next.clone()).await.ok()?;
            Some((next, images))
        };
        let (result, ahead) = tokio::join!(compute(images), ahead);
        self.0 = ahead;
        result
    }
}
