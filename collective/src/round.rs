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
use crate::{CollectiveError, Member, Result, World};

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

    /// Pushes a buffer from where it lies.
    pub(crate) async fn send(&self, to: &Member, buffer: Bytes) -> Result<()> {
        let size = self.mailbox.limits.chunk();
        let feed = |messages: mpsc::Sender<Bytes>| {
            let mut rest = buffer.clone();
            async move {
                while !rest.is_empty() {
                    let data = rest.split_to(size.min(rest.len()));
                    let mut head = BytesMut::with_capacity(MAX_HEAD);
                    put_head(None, data.len(), &mut head);
                    if messages.send(head.freeze()).await.is_err() || messages.send(data).await.is_err() {
                        return;
                    }
                }
            }
            .boxed()
        };
        self.push(to, Hop::Parts, String::new(), buffer.len(), feed).await
    }

    pub(crate) fn key(&self, from: &Member, name: &str) -> MailKey {
        MailKey {
            epoch: self.world.epoch,
            step: self.step,
            tag: format!("{}{name}", self.tag),
            from: from.id,
        }
    }

    /// The whole buffer that a member pushes.
    pub(crate) async fn receive(&self, from: &Member) -> Result<Bytes> {
        let key = self.key(from, "");
        let mailbox = self.mailbox;
        let whole = async {
            let length = mailbox.length(&key).await as usize;
            let first = mailbox.next(&key).await.unwrap_or_default();
            if first.len() == length {
                return first;
            }
            let mut whole = BytesMut::with_capacity(length);
            whole.extend_from_slice(&first);
            while let Some(piece) = mailbox.next(&key).await {
                whole.extend_from_slice(&piece);
            }
            whole.freeze()
        };
        Ok(self.pending_with(Hop::Parts, from.id, whole).await)
    }

    pub(crate) fn wrong_length(&self, key: &MailKey, expected: usize, got: u64) -> CollectiveError {
        CollectiveError::WrongLength {
            member: key.from,
            step: self.step,
            tag: key.tag.clone(),
            expected: expected as u64,
            got,
        }
    }

    pub(crate) async fn fetch(&self, member: u32, rows: &[u64]) -> Result<Vec<(u64, Bytes)>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        if self.world.own()?.id == member {
            return self.own_rows(member, rows).await;
        }
        let peer = self.world.members.iter().find(|peer| peer.id == member).ok_or_else(|| {
            CollectiveError::Invalid(format!("member {member} is not in epoch {}", self.world.epoch))
        })?;
        let rows = self.peers.rows(peer, self.world.epoch, self.step, rows);
        self.pending_with(Hop::Parts, member, rows).await
    }

    async fn own_rows(&self, own: u32, rows: &[u64]) -> Result<Vec<(u64, Bytes)>> {
        let published = self.mailbox.rows(self.world.epoch, self.step);
        let published = self.pending_with(Hop::Parts, own, published).await;
        let published =
            published.map_err(|refusal| CollectiveError::Invalid(format!("own rows: {refusal:?}")))?;
        let find = |row: &u64| match published.get(row) {
            Some(data) => Ok((*row, data.clone())),
            None => Err(CollectiveError::Invalid(format!("own row {row} is not published"))),
        };
        rows.iter().map(find).collect()
    }
}
