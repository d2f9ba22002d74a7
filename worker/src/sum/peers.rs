//! The way to the other members.

use std::time::Duration;

use blip2_collective::{Exchange, Received, World};
use bytes::Bytes;

use crate::error::Result;

/// The way to the other members during one membership epoch.
pub struct Peers<'a> {
    /// This member's end.
    pub exchange: &'a Exchange,
    /// Runs the exchange's I/O.
    pub runtime: &'a tokio::runtime::Handle,
    /// Who holds which slots.
    pub world: &'a World,
    /// Committed steps of the run, which names this step's messages.
    pub step: u64,
    /// How long a collective may take.
    pub deadline: Duration,
}

impl Peers<'_> {
    /// This member's buffer given to all; the buffers of all, in slot order.
    pub(crate) fn all_gather(&self, tag: &str, own: Bytes) -> Result<Vec<Received>> {
        Ok(self.runtime.block_on(self.exchange.all_gather(self.step, tag, own, self.deadline))?)
    }

    /// To each member what is due to it, from each the `due` bytes that it owes; in slot order.
    pub(crate) fn all_to_all(
        &self,
        tag: &str,
        outgoing: &[Vec<Bytes>],
        due: &[u64],
    ) -> Result<Vec<Received>> {
        let exchanged = self.exchange.all_to_all(self.step, tag, outgoing, due, self.deadline);
        Ok(self.runtime.block_on(exchanged)?)
    }

    /// Bytes that were sent to the other members so far.
    pub(crate) fn sent(&self) -> u64 {
        self.exchange.sent().bytes
    }
}
