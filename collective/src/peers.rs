//! The calling side of an exchange: connections to the peers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::v1::{FetchStateRequest, PushHeader};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::bulk::{self, Call};
use crate::{CollectiveError, Limits, Member, Result, World};
use blip2_proto::transport::Transport;

/// Pause between two attempts to reach a peer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The lane of everything but the parts of a state.
const COMMON: usize = 0;

/// What a member has pushed to its peers, each buffer counted once however often it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Connections to the peers, made when first used and again when broken.
#[derive(Debug)]
pub(crate) struct Peers {
    token: String,
    limits: Limits,
    transport: Transport,
    /// By address and lane: what shares a connection.
    channels: Mutex<BTreeMap<(String, usize), Channel>>,
    /// Buffers pushed, and their bytes.
    buffers: AtomicU64,
    bytes: AtomicU64,
}

impl Peers {
    pub(crate) fn new(token: String, limits: Limits, transport: Transport) -> Self {
        let (buffers, bytes) = (AtomicU64::default(), AtomicU64::default());
        Self { token, limits, transport, channels: Mutex::default(), buffers, bytes }
    }

    /// What was pushed since the beginning.
    pub(crate) fn sent(&self) -> Sent {
        Sent { buffers: self.buffers.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// The token that calls show.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Forgets connections to others than the members of `world`, and those over which a state came.
    pub(crate) fn keep(&self, world: &World) {
        let is_member = |address: &str| world.members.iter().any(|member| member.address == address);
        self.channels().retain(|(address, lane), _| *lane == COMMON && is_member(address));
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(String, usize), Channel>> {
        // A map of handles is consistent at every statement, so a poisoned lock is still good.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn channel(&self, lane: &(String, usize)) -> std::result::Result<Channel, Status> {
        if let Some(channel) = self.channels().get(lane) {
            return Ok(channel.clone());
        }
        let connecting = self.transport.connect(&lane.0, self.limits.connect_timeout);
        let channel = connecting.await.map_err(Status::unavailable)?;
        self.channels().insert(lane.clone(), channel.clone());
        Ok(channel)
    }

    /// Calls a peer, again while it cannot be reached, for `connect_timeout` at most.
    async fn reach<'a, T>(
        &self,
        address: &str,
        lane: usize,
        call: impl Fn(Channel) -> BoxFuture<'a, std::result::Result<T, Status>> + Send,
    ) -> std::result::Result<T, Status> {
        let lane = (address.to_owned(), lane);
        let mut unreachable_since: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let answer = match self.channel(&lane).await {
                Ok(channel) => call(channel).await,
                Err(status) => Err(status),
            };
            let status = match answer {
                Err(status) if is_transport(&status) => status,
                answer => return answer,
            };
            tracing::debug!(address, reason = status.message(), "a call is made again");
            self.channels().remove(&lane);
            // A call that was under way for long had reached the peer: its end begins a new absence.
            if began.elapsed() > self.limits.connect_timeout {
                unreachable_since = None;
            }
            if unreachable_since.get_or_insert_with(Instant::now).elapsed() >= self.limits.connect_timeout {
                return Err(status);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Sends one buffer to a member: `feed` writes its messages, from the beginning each time it is called.
    pub(crate) async fn push<'a>(
        &self,
        to: &Member,
        header: PushHeader,
        feed: impl Fn(mpsc::Sender<Bytes>) -> BoxFuture<'a, ()> + Send + Sync,
    ) -> Result<()> {
        let push = |channel| {
            let Call { messages, answer } = bulk::open(channel, &header);
            let feeding = feed(messages);
            async move {
                let mut answer = std::pin::pin!(answer);
                // An answer before the end is a refusal: the rest is not wanted.
                tokio::select! {
                    biased;
                    answer = &mut answer => answer,
                    () = feeding => answer.await,
                }
            }
            .boxed()
        };
        let sent = self.reach(&to.address, COMMON, push).await;
        sent.map_err(|status| failure(to, status))?;
        self.buffers.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(header.length, Ordering::Relaxed);
        Ok(())
    }

    /// Fetches the state after `step` steps, in parts over connections of their own.
    pub(crate) async fn state(&self, address: &str, step: u64) -> Result<Bytes> {
        let fetched = self.whole_state(address, step).await;
        fetched.map_err(|status| CollectiveError::State {
            address: address.to_owned(),
            step,
            reason: visible(status.message(), MAX_TEXT),
        })
    }

    async fn whole_state(&self, address: &str, step: u64) -> std::result::Result<Bytes, Status> {
        let first = Window { lane: COMMON, offset: 0, length: self.limits.chunk() as u64 };
        let (total, beginning) = self.part_of_state(address, step, first, BytesMut::new()).await?;
        if total == beginning.len() as u64 {
            return Ok(beginning.freeze());
        }
        // The limit was checked, and it is an amount of memory.
        let mut whole = BytesMut::with_capacity(total as usize);
        whole.extend_from_slice(&beginning);
        let mut rest = whole.split_off(beginning.len());
        let streams = self.limits.state_streams.max(1);
        let size = rest.capacity().min(total as usize - whole.len()).div_ceil(streams);
        let mut parts = Vec::new();
        let mut offset = whole.len() as u64;
        while offset < total {
            let length = (total - offset).min(size as u64);
            let later =
                if offset + length < total { rest.split_off(length as usize) } else { BytesMut::new() };
            let window = Window { lane: COMMON + 1 + parts.len(), offset, length };
            parts
                .push(self.part_of_state(address, step, window, std::mem::replace(&mut rest, later)).boxed());
            offset += length;
        }
        for (again, part) in try_join_all(parts).await? {
            if again != total {
                return Err(Status::data_loss(format!("a state of {total} bytes, then of {again}")));
            }
            // Parts of one allocation that follow each other: nothing is copied.
            whole.unsplit(part);
        }
        Ok(whole.freeze())
    }

    /// Fetches a window of a state into `part`; from where it broke off when the connection breaks.
    async fn part_of_state(
        &self,
        address: &str,
        step: u64,
        window: Window,
        part: BytesMut,
    ) -> std::result::Result<(u64, BytesMut), Status> {
        let Window { lane, offset, length } = window;
        let most = self.limits.max_state_bytes;
        let part = Mutex::new(part);
        // Bytes are consistent at every statement, so a poisoned lock is still good.
        let held = || part.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |total: u64, data: &[u8]| {
            if total > most {
                return Err(Status::data_loss(format!("the state of {total} bytes is larger than {most}")));
            }
            let mut part = held();
            if (part.len() + data.len()) as u64 > length {
                return Err(Status::data_loss(format!("more than the {length} bytes asked for")));
            }
            part.extend_from_slice(data);
            Ok(())
        };
        let fetch = |channel| {
            let done = held().len() as u64;
            let request = FetchStateRequest {
                token: self.token.clone(),
                step,
                offset: offset + done,
                length: length - done,
            };
            let (largest, idle) =
                (self.limits.message(), self.limits.publish_wait + self.limits.idle_timeout);
            async move { bulk::state(channel, &request, largest, idle, take).await }.boxed()
        };
        let total = self.reach(address, lane, fetch).await?;
        let part = part.into_inner().unwrap_or_else(PoisonError::into_inner);
        let due = length.min(total.saturating_sub(offset));
        if part.len() as u64 != due {
            return Err(Status::data_loss(format!("{} bytes of {due}", part.len())));
        }
        Ok((total, part))
    }
}

/// Part of a state, and the connection it comes over.
#[derive(Debug, Clone, Copy)]
struct Window {
    lane: usize,
    offset: u64,
    length: u64,
}

/// Whether the call failed below the peer's answer. A transport error carries its cause, an answer does not.
fn is_transport(status: &Status) -> bool {
    use std::error::Error;
    status.code() == Code::Unavailable || status.source().is_some() && status.code() != Code::InvalidArgument
}

fn failure(member: &Member, status: Status) -> CollectiveError {
    if is_transport(&status) {
        return CollectiveError::PeerLost {
            member: member.id,
            address: member.address.clone(),
            reason: visible(status.message(), MAX_TEXT),
        };
    }
    CollectiveError::Refused { member: member.id, reason: visible(status.message(), MAX_TEXT) }
}
