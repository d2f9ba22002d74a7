//! What a curation worker is told when it is started.

use std::time::Duration;

use blip2_proto::transport::Transport;
use blip2_tensors::device::seat::DeviceChoice;

/// What a curation worker is started with.
#[derive(Debug, Clone)]
pub struct CurationWorkerOptions {
    /// URL of the coordinator.
    pub coordinator: String,
    /// The curation's token.
    pub token: String,
    /// Version and BLAKE3 of this program.
    pub binary: String,
    /// For logs and status.
    pub name: String,
    /// Which device to compute on.
    pub device: DeviceChoice,
    /// How the coordinator is reached.
    pub transport: Transport,
    /// A coordinator that cannot be reached for so long is gone.
    pub patience: Duration,
}
