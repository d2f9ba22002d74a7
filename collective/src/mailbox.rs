//! What a member holds for its collectives and its peers: received buffers, and the state it publishes.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tonic::Status;

use crate::inbox::{Inbox, Unwanted};
use crate::{CollectiveError, Limits, Result, World};

/// Most buffers held at a time, whatever their size.
const MAX_HELD_BUFFERS: usize = 1 << 16;
/// Longest tag.
const MAX_TAG_BYTES: usize = 256;

/// Names one buffer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MailKey {
    pub(crate) epoch: u64,
    pub(crate) step: u64,
    pub(crate) tag: String,
    pub(crate) from: u32,
}

/// Why a peer's message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooLarge(String),
    Stale(String),
    Stranger(String),
    Malformed(String),
    Closed,
}

/// A state in pieces.
pub(crate) type State = Arc<Vec<Bytes>>;

#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) limits: Limits,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    world: Option<Arc<World>>,
    /// The newest aborted epoch.
    aborted: Option<(u64, String)>,
    /// Steps of this epoch below it are over.
    first_step: u64,
    mail: BTreeMap<MailKey, Inbox>,
    /// Bytes reserved by all of `mail`.
    held: u64,
    state: Option<(u64, State)>,
    closed: bool,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge(reason) => Self::resource_exhausted(reason),
            Refusal::Stale(reason) => Self::failed_precondition(reason),
            Refusal::Stranger(reason) => Self::permission_denied(reason),
            Refusal::Malformed(reason) => Self::invalid_argument(reason),
            Refusal::Closed => Self::unavailable("the exchange is shut down"),
        }
    }
}

/// What to do with a peer's buffer.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Take it.
    Wanted(Delivery),
    /// It is here already.
    Here,
}

/// A buffer being received. Dropped before its end, the peer may send it again.
#[derive(Debug)]
pub(crate) struct Delivery {
    mailbox: Arc<Mailbox>,
    key: MailKey,
    sender: u64,
    /// Bytes to come that are here already.
    skip: u64,
    /// Bytes of the whole, and those of it that have not come.
    length: u64,
    left: u64,
}

impl Delivery {
    /// Hands over the bytes that follow.
    pub(crate) fn push(&mut self, mut piece: Bytes) -> std::result::Result<(), Refusal> {
        let known = self.skip.min(piece.len() as u64);
        // At most the piece's length, so it is a usize.
        let _ = piece.split_to(known as usize);
        self.skip -= known;
        self.left = self.left.saturating_sub(known + piece.len() as u64);
        if piece.is_empty() {
            return Ok(());
        }
        let mut inner = self.mailbox.lock();
        inner.accepts(&self.key)?;
        match inner.mail.get_mut(&self.key).map(|inbox| inbox.push(self.sender, piece)) {
            Some(Ok(())) => Ok(()),
            Some(Err(unwanted)) => Err(unwanted.refusal(self.length)),
            None => Err(Refusal::Stale("the collective is over here".to_owned())),
        }
    }

    /// Ends the buffer. The collective may have taken its last byte and be over by now.
    pub(crate) fn finish(self) -> std::result::Result<(), Refusal> {
        match self.left {
            0 => Ok(()),
            left => {
                Err(Refusal::Malformed(format!("{left} bytes of the {} announced are missing", self.length)))
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut guard = self.mailbox.lock();
        let inner = &mut *guard;
        let Some(inbox) = inner.mail.get_mut(&self.key) else { return };
        if inbox.end(self.sender) || !inbox.is_last(self.sender) {
            return;
        }
        inner.held -= std::mem::take(&mut inbox.reserved);
        if inbox.is_unused() {
            inner.mail.remove(&self.key);
        }
    }
}

impl Unwanted {
    fn refusal(self, length: u64) -> Refusal {
        Refusal::Malformed(match self {
            Self::Complete => "this buffer is here already".to_owned(),
            Self::OtherLength(known) => format!("{length} bytes now, {known} before"),
            Self::Superseded => "the same buffer is being sent on another stream".to_owned(),
            Self::TooLong => format!("more than the {length} bytes announced"),
        })
    }
}

impl Mailbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves `Inner` consistent at each statement, so a poisoned lock is still
        // good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something.
    async fn when<T>(&self, mut look: impl FnMut(&mut Inner) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Enters an epoch: buffers of older ones are dropped. An older or equal epoch changes nothing.
    pub(crate) fn set_world(&self, world: World) {
        self.change(|inner| {
            if inner.world.as_ref().is_some_and(|current| current.epoch >= world.epoch) {
                return;
            }
            inner.first_step = 0;
            let first = MailKey { epoch: world.epoch, step: 0, tag: String::new(), from: 0 };
            let kept = inner.mail.split_off(&first);
            inner.held -= bytes_in(&inner.mail);
            inner.mail = kept;
            inner.world = Some(Arc::new(world));
        });
    }

    pub(crate) fn abort(&self, epoch: u64, reason: &str) {
        self.change(|inner| {
            if inner.aborted.as_ref().is_none_or(|(aborted, _)| *aborted < epoch) {
                inner.aborted = Some((epoch, reason.to_owned()));
            }
        });
    }

    pub(crate) fn close(&self) {
        self.change(|inner| {
            inner.closed = true;
            inner.held -= bytes_in(&inner.mail);
            inner.mail.clear();
            inner.state = None;
        });
    }

    pub(crate) fn world(&self) -> Result<Arc<World>> {
        let inner = self.lock();
        if inner.closed {
            return Err(CollectiveError::Closed);
        }
        inner.world.clone().ok_or(CollectiveError::NoWorld)
    }

    /// Starts a collective of `step`: buffers of earlier steps are dropped.
    pub(crate) fn enter_step(&self, world: &World, step: u64) {
        let mut inner = self.lock();
        let current = inner.world.as_ref().is_some_and(|current| current.epoch == world.epoch);
        if !current || inner.first_step >= step {
            return;
        }
        inner.first_step = step;
        let first = MailKey { epoch: world.epoch, step, tag: String::new(), from: 0 };
        let kept = inner.mail.split_off(&first);
        inner.held -= bytes_in(&inner.mail);
        inner.mail = kept;
    }

    /// Waits until collectives of `epoch` must end.
    pub(crate) async fn ended(&self, epoch: u64) -> CollectiveError {
        self.when(|inner| inner.end_of(epoch)).await
    }

    /// Waits until a sender says how long a buffer is.
    pub(crate) async fn length(&self, key: &MailKey) -> u64 {
        poll_fn(|context| self.lock().mail.entry(key.clone()).or_default().poll_length(context)).await
    }

    /// Waits for the next bytes of a buffer and takes them out; nothing after the last.
    pub(crate) async fn next(&self, key: &MailKey) -> Option<Bytes> {
        poll_fn(|context| {
            let mut guard = self.lock();
            let inner = &mut *guard;
            let inbox = inner.mail.entry(key.clone()).or_default();
            let next = inbox.poll_next(context);
            if let std::task::Poll::Ready(Some(piece)) = &next {
                let bytes = (piece.len() as u64).min(inbox.reserved);
                inbox.reserved -= bytes;
                inner.held -= bytes;
            }
            next
        })
        .await
    }

    /// Makes room for a peer's buffer, or says why there is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        key: &MailKey,
        bytes: u64,
    ) -> std::result::Result<Admission, Refusal> {
        let limits = &self.limits;
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.accepts(key)?;
        if key.tag.is_empty() || key.tag.len() > MAX_TAG_BYTES {
            return Err(Refusal::Malformed(format!("a tag has 1 to {MAX_TAG_BYTES} bytes")));
        }
        if bytes > limits.max_buffer_bytes {
            let most = limits.max_buffer_bytes;
            return Err(Refusal::TooLarge(format!("a buffer of {bytes} bytes; at most {most} are taken")));
        }
        let (needed, reserved) =
            inner.mail.get(key).map_or((bytes, 0), |inbox| (inbox.needed(bytes), inbox.reserved));
        let others = inner.held - reserved;
        if others + needed > limits.max_held_bytes || inner.mail.len() >= MAX_HELD_BUFFERS {
            let most = limits.max_held_bytes;
            return Err(Refusal::TooLarge(format!(
                "{needed} bytes more than the {others} held of at most {most}"
            )));
        }
        let inbox = inner.mail.entry(key.clone()).or_default();
        match inbox.begin(bytes) {
            Ok((sender, skip)) => {
                inbox.reserved = needed;
                inner.held = others + needed;
                let (mailbox, key) = (self.clone(), key.clone());
                Ok(Admission::Wanted(Delivery { mailbox, key, sender, skip, length: bytes, left: bytes }))
            }
            Err(Unwanted::Complete) => Ok(Admission::Here),
            Err(unwanted) => Err(unwanted.refusal(bytes)),
        }
    }

    pub(crate) fn publish_state(&self, step: u64, state: Option<State>) {
        self.change(|inner| inner.state = state.map(|state| (step, state)));
    }

    /// The state after `step` steps, once published.
    pub(crate) async fn state(&self, step: u64) -> std::result::Result<State, Refusal> {
        self.when(|inner| match &inner.state {
            _ if inner.closed => Some(Err(Refusal::Closed)),
            Some((published, state)) if *published == step => Some(Ok(state.clone())),
            Some((published, _)) if *published > step => Some(Err(Refusal::Stale(format!(
                "the state here is that after {published} steps, not {step}"
            )))),
            _ => None,
        })
        .await
    }
}

impl Inner {
    fn end_of(&self, epoch: u64) -> Option<CollectiveError> {
        if self.closed {
            return Some(CollectiveError::Closed);
        }
        if let Some((aborted, reason)) = &self.aborted
            && *aborted >= epoch
        {
            return Some(CollectiveError::Aborted { epoch, reason: reason.clone() });
        }
        let current = self.world.as_ref().map_or(0, |world| world.epoch);
        (current > epoch)
            .then(|| CollectiveError::Aborted { epoch, reason: format!("epoch {current} began") })
    }

    fn is_current(&self, epoch: u64) -> std::result::Result<(), Refusal> {
        match self.end_of(epoch) {
            None => Ok(()),
            Some(CollectiveError::Closed) => Err(Refusal::Closed),
            Some(error) => Err(Refusal::Stale(error.to_string())),
        }
    }

    /// Whether a buffer is of use: of this epoch's members and steps, or of an epoch yet to come.
    fn accepts(&self, key: &MailKey) -> std::result::Result<(), Refusal> {
        self.is_current(key.epoch)?;
        if let Some(world) = self.world.as_ref().filter(|world| world.epoch == key.epoch) {
            if key.step < self.first_step {
                return Err(Refusal::Stale(format!("step {} is over here", key.step)));
            }
            if !world.peers().any(|(_, peer)| peer.id == key.from) {
                return Err(Refusal::Stranger(format!("{} is no peer in epoch {}", key.from, key.epoch)));
            }
        }
        Ok(())
    }
}

fn bytes_in(mail: &BTreeMap<MailKey, Inbox>) -> u64 {
    mail.values().map(|inbox| inbox.reserved).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;

    fn world(epoch: u64) -> World {
        let member = |id: u32| Member { id, address: format!("peer-{id}:1"), slots: id..id + 1 };
        World { epoch, rank: 0, members: vec![member(0), member(1)] }
    }

    fn key(epoch: u64, step: u64) -> MailKey {
        MailKey { epoch, step, tag: "t".into(), from: 1 }
    }

    fn deliver(
        mailbox: &Arc<Mailbox>,
        key: MailKey,
        bytes: &'static [u8],
    ) -> std::result::Result<(), Refusal> {
        match mailbox.admit(&key, bytes.len() as u64)? {
            Admission::Here => Ok(()),
            Admission::Wanted(mut delivery) => {
                delivery.push(Bytes::from_static(bytes))?;
                delivery.finish()
            }
        }
    }

    #[tokio::test]
    async fn early_mail_is_kept_and_old_mail_dropped() {
        let mailbox = Arc::new(Mailbox::new(Limits::default()));
        deliver(&mailbox, key(1, 0), b"old!").expect("no world yet: any epoch may come");
        deliver(&mailbox, key(2, 7), b"new!").expect("early");
        mailbox.set_world(world(2));
        assert_eq!(mailbox.lock().held, 4);
        assert!(matches!(deliver(&mailbox, key(1, 9), b"late"), Err(Refusal::Stale(_))));
        deliver(&mailbox, key(3, 7), b"next").expect("early");
        assert_eq!(mailbox.next(&key(2, 7)).await, Some(Bytes::from_static(b"new!")));
        mailbox.set_world(world(3));
        assert_eq!(mailbox.next(&key(3, 7)).await, Some(Bytes::from_static(b"next")));
        assert_eq!(mailbox.lock().held, 0);
        assert_eq!((mailbox.length(&key(3, 7)).await, mailbox.next(&key(3, 7)).await), (4, None));
    }

    #[tokio::test]
    async fn room_is_given_back_when_a_sender_breaks_off_or_is_replaced() {
        let mailbox = Arc::new(Mailbox::new(Limits { max_held_bytes: 8, ..Limits::default() }));
        mailbox.set_world(world(1));
        let admit = || match mailbox.admit(&key(1, 0), 8) {
            Ok(Admission::Wanted(delivery)) => delivery,
            other => panic!("{other:?}"),
        };
        let mut first = admit();
        first.push(Bytes::from_static(b"abcd")).expect("in turn");
        assert_eq!(mailbox.next(&key(1, 0)).await, Some(Bytes::from_static(b"abcd")));
        let mut second = admit();
        assert!(first.push(Bytes::from_static(b"efgh")).is_err());
        drop(first);
        assert_eq!(mailbox.lock().held, 4, "the second sender's");
        second.push(Bytes::from_static(b"abcdef")).expect("the first four are skipped");
        drop(second);
        assert_eq!(mailbox.lock().held, 0);
        let mut third = admit();
        third.push(Bytes::from_static(b"abcdefgh")).expect("in turn");
        assert_eq!(mailbox.next(&key(1, 0)).await, Some(Bytes::from_static(b"efgh")));
        mailbox.enter_step(&world(1), 1);
        third.finish().expect("the collective that took it all may be over");
        assert_eq!(mailbox.lock().held, 0);
    }

    #[tokio::test]
    async fn bounds_members_and_steps_are_enforced() {
        let limits = Limits { max_buffer_bytes: 8, max_held_bytes: 12, ..Limits::default() };
        let mailbox = Arc::new(Mailbox::new(limits));
        mailbox.set_world(world(1));
        assert!(matches!(mailbox.admit(&key(1, 0), 9), Err(Refusal::TooLarge(_))));
        let room = mailbox.admit(&key(1, 0), 8).expect("fits");
        assert!(matches!(mailbox.admit(&key(1, 1), 8), Err(Refusal::TooLarge(_))));
        drop(room);
        deliver(&mailbox, key(1, 1), b"12345678").expect("room was given back");
        assert_eq!(deliver(&mailbox, key(1, 1), b"12345678"), Ok(()), "sent again, taken once");
        assert_eq!(mailbox.lock().held, 8);
        let stranger = MailKey { from: 9, ..key(1, 1) };
        assert!(matches!(deliver(&mailbox, stranger, b"1234"), Err(Refusal::Stranger(_))));
        mailbox.enter_step(&world(1), 2);
        assert_eq!(mailbox.lock().held, 0);
        assert!(matches!(deliver(&mailbox, key(1, 1), b"1234"), Err(Refusal::Stale(_))));
    }

    #[tokio::test]
    async fn an_aborted_epoch_refuses_and_the_next_one_does_not() {
        let mailbox = Arc::new(Mailbox::new(Limits::default()));
        mailbox.set_world(world(1));
        mailbox.abort(1, "member 1 is gone");
        assert!(matches!(mailbox.ended(1).await, CollectiveError::Aborted { epoch: 1, .. }));
        assert!(matches!(deliver(&mailbox, key(1, 0), b"1234"), Err(Refusal::Stale(_))));
        deliver(&mailbox, key(2, 0), b"1234").expect("next epoch");
    }
}
