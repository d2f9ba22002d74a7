//! What a curation worker is told when it is started.

use blip2_leases::client::ClientOptions;
use blip2_tensors::device::seat::DeviceChoice;

/// What a curation worker is started with.
#[derive(Debug, Clone)]
pub struct CurationWorkerOptions {
    /// Where its tasks come from.
    pub leases: ClientOptions,
    /// Which device to compute on.
    pub device: DeviceChoice,
}
