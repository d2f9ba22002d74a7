//! How many bytes a step moves.

use std::ops::AddAssign;

/// Bytes that a member's step moved: between device and host, within the host's memory, and to the other
/// members. What the network's library and the kernel copy on the way is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepBytes {
    /// Read from the device: features, rows, the gradient.
    pub to_host: u64,
    /// Given to the device: images, features, rows, new parameters.
    pub to_device: u64,
    /// From one place of the host's memory to another.
    pub within_host: u64,
    /// Sent to other members: features, ids and masks of the own slots.
    pub sent_features: u64,
    /// Sent to other members: raw features of rows that are their negatives, and the gradients of such, home.
    pub sent_rows: u64,
    /// Sent to other members: sums of the gradient and of the losses.
    pub sent_sums: u64,
}

impl StepBytes {
    /// All of them, by name.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        let Self { to_host, to_device, within_host, sent_features, sent_rows, sent_sums } = *self;
        [
            ("to_host", to_host),
            ("to_device", to_device),
            ("within_host", within_host),
            ("sent_features", sent_features),
            ("sent_rows", sent_rows),
            ("sent_sums", sent_sums),
        ]
    }

    /// Counts bytes of which a copy is made that goes to the device.
    pub(crate) fn copy_to_device(&mut self, bytes: u64) {
        self.within_host += bytes;
        self.to_device += bytes;
    }

    /// Copied on the host: from it, to it, within it.
    pub fn copied(&self) -> u64 {
        self.to_host + self.to_device + self.within_host
    }

    /// Sent to the other members.
    pub fn sent(&self) -> u64 {
        self.sent_features + self.sent_rows + self.sent_sums
    }
}

impl AddAssign for StepBytes {
    fn add_assign(&mut self, other: Self) {
        self.to_host += other.to_host;
        self.to_device += other.to_device;
        self.within_host += other.within_host;
        self.sent_features += other.sent_features;
        self.sent_rows += other.sent_rows;
        self.sent_sums += other.sent_sums;
    }
}

/// Bytes of values.
pub(crate) fn bytes_of<T>(values: &[T]) -> u64 {
    size_of_val(values) as u64
}
