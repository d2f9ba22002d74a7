//! One collective in progress.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blip2_proto::v1::PushHeader;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use tokio::sync::mpsc;

use crate::bulk::{MAX_HEAD, put_head};
use crate::mailbox::{MailKey, Mailbox};
use crate::peers::Peers;
use crate::{CollectiveError, Member, Received, Result, World};

/// A stage of a collective. While a member is waited for in the first, what others owe in the second is no
/// wonder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hop {
    /// The members' own buffers.
    Parts,
    /// What was made of those of all.
    Sums,
}

impl Hop {
    /// The end of the tag of its buffer number `place`.
    pub(crate) fn name(self, place: usize) -> String {
        match self {
            Self::Parts => format!("/{place}"),
            Self::Sums => "/sum".to_owned(),
        }
    }
}

/// A collective of a step: its members, its name, and who is waited for.
pub(crate) struct Round<'a> {
    /// What the members have pushed here.
    pub(crate) mailbox: &'a Mailbox,
    peers: &'a Peers,
    pub(crate) world: Arc<World>,
    step: u64,
    pub(crate) tag: String,
    /// Members with a send or a receive that has not ended, and the number of those.
    pending: Mutex<BTreeMap<(Hop, u32), u32>>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(
        mailbox: &'a Mailbox,
        peers: &'a Peers,
        world: Arc<World>,
        step: u64,
        tag: &str,
    ) -> Self {
        Self { mailbox, peers, world, step, tag: tag.to_owned(), pending: Mutex::default() }
    }
}

impl Round<'_> {
    /// Runs `work` until it is done, the epoch ends or the deadline passes.
    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            error = self.mailbox.ended(self.world.epoch) => Err(error),
            done = tokio::time::timeout(deadline, work) => done.unwrap_or_else(|_| {
                Err(CollectiveError::Timeout {
                    step: self.step,
                    tag: self.tag.clone(),
                    waiting_for: self.waiting_for(),
                    seconds: deadline.as_secs_f64(),
                })
            }),
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<(Hop, u32), u32>> {
        // Counts are consistent at every statement, so a poisoned lock is still good.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The members pending in the first stage that has any.
    fn waiting_for(&self) -> Vec<u32> {
        let pending = self.pending();
        let first = pending.keys().next().map(|(hop, _)| *hop);
        pending.keys().filter(|(hop, _)| Some(*hop) == first).map(|(_, member)| *member).collect()
    }

    /// Counts `work` as pending with `member` until it ends.
    pub(crate) async fn pending_with<T>(&self, hop: Hop, member: u32, work: impl Future<Output = T>) -> T {
        *self.pending().entry((hop, member)).or_default() += 1;
        let done = work.await;
        let mut pending = self.pending();
        if let Some(count) = pending.get_mut(&(hop, member)) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&(hop, member));
            }
        }
        done
    }

    /// The work with every peer, in rank order. Boxed: the compiler cannot prove nested opaque futures
    /// `Send`.
    pub(crate) async fn with_peers<'a, T: Send + 'a>(
        &'a self,
        work: impl Fn(usize, &'a Member) -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<Vec<T>> {
        let peers: Vec<BoxFuture<'a, Result<T>>> =
            self.world.peers().map(|(rank, peer)| work(rank, peer)).collect();
        try_join_all(peers).await
    }

    /// Pushes a buffer of `length` bytes, which `feed` writes as messages, from its beginning each time it is
    /// called.
    pub(crate) async fn push<'a>(
        &self,
        to: &Member,
        hop: Hop,
        name: String,
        length: usize,
        feed: impl Fn(mpsc::Sender<Bytes>) -> BoxFuture<'a, ()> + Send + Sync,
    ) -> Result<()> {
        let header = PushHeader {
            token: self.peers.token().to_owned(),
            epoch: self.world.epoch,
            step: self.step,
            tag: format!("{}{name}", self.tag),
            from_member: self.world.own()?.id,
            length: length as u64,
        };
        self.pending_with(hop, to.id, self.peers.push(to, header, feed)).await
    }

    /// Pushes a buffer from the pieces it lies in.
    pub(crate) async fn send(&self, to: &Member, pieces: &[Bytes]) -> Result<()> {
        let size = self.mailbox.limits.chunk();
        let feed = |messages: mpsc::Sender<Bytes>| {
            let pieces = pieces.to_vec();
            async move {
                for mut rest in pieces {
                    while !rest.is_empty() {
                        let data = rest.split_to(size.min(rest.len()));
                        let mut head = BytesMut::with_capacity(MAX_HEAD);
                        put_head(None, data.len(), &mut head);
                        if messages.send(head.freeze()).await.is_err() || messages.send(data).await.is_err() {
                            return;
                        }
                    }
                }
            }
            .boxed()
        };
        let length = pieces.iter().map(Bytes::len).sum();
        self.push(to, Hop::Parts, String::new(), length, feed).await
    }

    /// Pushes a buffer, if it has any bytes.
    pub(crate) async fn send_due(&self, to: &Member, pieces: &[Bytes]) -> Result<()> {
        if pieces.iter().all(Bytes::is_empty) { Ok(()) } else { self.send(to, pieces).await }
    }

    pub(crate) fn key(&self, from: &Member, name: &str) -> MailKey {
        MailKey {
            epoch: self.world.epoch,
            step: self.step,
            tag: format!("{}{name}", self.tag),
            from: from.id,
        }
    }

    /// The whole buffer that a member pushes, of `due` bytes where that is known.
    pub(crate) async fn receive(&self, from: &Member, due: Option<u64>) -> Result<Received> {
        let key = self.key(from, "");
        let whole = async {
            let length = self.mailbox.length(&key).await;
            if let Some(due) = due.filter(|due| *due != length) {
                return Err(self.wrong_length(&key, due, length));
            }
            let mut received = Received::default();
            while let Some(piece) = self.mailbox.next(&key).await {
                received.push(piece);
            }
            Ok(received)
        };
        self.pending_with(Hop::Parts, from.id, whole).await
    }

    /// The buffer that a member owes, if it owes any bytes.
    pub(crate) async fn receive_due(&self, from: &Member, due: u64) -> Result<Received> {
        if due == 0 { Ok(Received::default()) } else { self.receive(from, Some(due)).await }
    }

    pub(crate) fn wrong_length(&self, key: &MailKey, expected: u64, got: u64) -> CollectiveError {
        CollectiveError::WrongLength {
            member: key.from,
            step: self.step,
            tag: key.tag.clone(),
            expected,
            got,
        }
    }
}
