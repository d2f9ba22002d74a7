//! What the parts of a curation take.

use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::error::{Result, WorkerError};

/// Time spent and work done, summed over calls; reading and decoding pictures is the caller's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Pictures through the captioner's encoder.
    pub caption_image: Duration,
    /// Writing captions.
    pub caption_text: Duration,
    /// Pictures through CLIP.
    pub clip_image: Duration,
    /// Texts through CLIP.
    pub clip_text: Duration,
    /// Pictures and texts through the matching model.
    pub itm: Duration,
    /// Pictures.
    pub pictures: u64,
    /// Their texts: those of the web and those that were written.
    pub texts: u64,
    /// Texts that scoring models read: of equal ones, one.
    pub texts_read: u64,
    /// Positions of those.
    pub positions: u64,
    /// Positions that were padding.
    pub padding: u64,
}

impl PhaseTimes {
    /// All phases together.
    pub fn total(&self) -> Duration {
        self.caption_image + self.caption_text + self.clip_image + self.clip_text + self.itm
    }

    /// Share of the positions read that were padding.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / self.positions.max(1) as f64
    }
}

/// Runs `work` until the device has done it, and adds the time to `spent`.
pub(super) fn timed<T>(spent: &mut Duration, device: &Device, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = work()?;
    device.sync().map_err(|error| WorkerError::Model(blip2_model::ModelError::Device(error.to_string())))?;
    *spent += started.elapsed();
    Ok(done)
}
