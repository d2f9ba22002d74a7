//! What shields the caller from hostile bytes: a panic becomes an error, and a size is refused before there
//! is memory.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{ImageError, Result};

/// Decoders meet hostile bytes: a panic in one is a bad image, not the end of the run. A reason is one line.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its decoder failed on damaged data".to_owned()))
        .map_err(|reason| reason.split_whitespace().collect::<Vec<_>>().join(" "))
        .map_err(|reason| ImageError { reason: format!("the picture cannot be used: {reason}") })
}

/// Refuses sizes before there is memory for them.
pub(super) fn check_pixels(width: u32, height: u32, max_pixels: u64) -> Result<(), String> {
    match u64::from(width) * u64::from(height) {
        0 => Err("it has no pixels".to_owned()),
        pixels if pixels > max_pixels => Err(format!("{width}x{height} is more than {max_pixels} pixels")),
        _ => Ok(()),
    }
}
