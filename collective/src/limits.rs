//! What a member accepts from its peers, and how long it waits for them.

use std::time::Duration;

/// Bounds on memory and time. The defaults suit a Q-Former that is trained with the paper's largest image
/// encoder, 1.1 billion parameters: a gradient of 4.4 GB, of which a member may be pushed several subtrees'
/// sums at a time, and a state of 13 GB.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest single buffer a peer may push.
    pub max_buffer_bytes: u64,
    /// All pushed buffers held at a time, whole or in flight.
    pub max_held_bytes: u64,
    /// Largest state a joiner takes from a peer.
    pub max_state_bytes: u64,
    /// Connections over which a joiner takes a state, each a part of it.
    pub state_streams: usize,
    /// Bytes of a message on the wire; rounded down to a multiple of four.
    pub chunk_bytes: usize,
    /// How long a peer that cannot be reached is tried again before it counts as lost.
    pub connect_timeout: Duration,
    /// How long a fetch of the state waits for the peer to publish it.
    pub publish_wait: Duration,
    /// A push that sends nothing for this long is dropped.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_buffer_bytes: 2 << 30,
            max_held_bytes: 32 << 30,
            max_state_bytes: 128 << 30,
            state_streams: 4,
            chunk_bytes: 1 << 20,
            connect_timeout: Duration::from_secs(2),
            publish_wait: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// The chunk size in use: a multiple of four, between 4 KiB and 8 MiB.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk_bytes.clamp(4 << 10, 8 << 20) & !3
    }

    /// Largest message on the wire: a chunk and its header.
    pub(crate) fn message(&self) -> usize {
        self.chunk() + (64 << 10)
    }
}
