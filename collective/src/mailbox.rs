//! What a member holds for its collectives and its peers: received buffers, published rows, published state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::segments::Segments;
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
    Duplicate,
    NotFound(String),
    Closed,
}

/// Rows published for a step.
pub(crate) type Rows = Arc<BTreeMap<u64, Bytes>>;
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
    mail: BTreeMap<MailKey, Segments>,
    /// Bytes of `mail` and of reservations.
    held: u64,
    reservations: usize,
    rows: Option<(u64, u64, Rows)>,
    state: Option<(u64, State)>,
    closed: bool,
}

/// Room for a buffer in flight; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    mailbox: Arc<Mailbox>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.mailbox.lock();
        inner.held -= self.bytes;
        inner.reservations -= 1;
    }
}

impl Mailbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves `Inner` consistent at each statement, so a poisoned lock is still good.
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

    /// Enters an epoch: buffers and rows of older ones are dropped. An older or equal epoch changes nothing.
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
            inner.rows.take_if(|(epoch, _, _)| *epoch < world.epoch);
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
            inner.rows = None;
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

    /// Waits for a buffer and takes it out.
    pub(crate) async fn take(&self, key: &MailKey) -> Segments {
        self.when(|inner| {
            let mail = inner.mail.remove(key)?;
            inner.held -= mail.len() as u64;
            Some(mail)
        })
        .await
    }

    /// Room for a peer's buffer, or why there is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        key: &MailKey,
        bytes: u64,
    ) -> std::result::Result<Reservation, Refusal> {
        let limits = &self.limits;
        let mut inner = self.lock();
        inner.accepts(key)?;
        if key.tag.is_empty() || key.tag.len() > MAX_TAG_BYTES {
            return Err(Refusal::Malformed(format!("a tag has 1 to {MAX_TAG_BYTES} bytes")));
        }
        if bytes > limits.max_buffer_bytes {
            let most = limits.max_buffer_bytes;
            return Err(Refusal::TooLarge(format!("a buffer of {bytes} bytes; at most {most} are taken")));
        }
        if inner.held + bytes > limits.max_held_bytes
            || inner.mail.len() + inner.reservations >= MAX_HELD_BUFFERS
        {
            let (held, most) = (inner.held, limits.max_held_bytes);
            return Err(Refusal::TooLarge(format!(
                "{bytes} bytes more than the {held} held of at most {most}"
            )));
        }
        inner.held += bytes;
        inner.reservations += 1;
        Ok(Reservation { mailbox: self.clone(), bytes })
    }

    /// Puts a whole buffer into the room reserved for it.
    pub(crate) fn deliver(
        &self,
        reservation: Reservation,
        key: MailKey,
        mail: Segments,
    ) -> std::result::Result<(), Refusal> {
        let mut inner = self.lock();
        let accepted = inner.accepts(&key);
        if accepted.is_ok() {
            inner.held += mail.len() as u64;
            inner.mail.insert(key, mail);
        }
        drop(inner);
        drop(reservation);
        self.changed.notify_waiters();
        accepted
    }

    pub(crate) fn publish_rows(&self, step: u64, rows: BTreeMap<u64, Bytes>) -> Result<()> {
        let world = self.world()?;
        self.change(|inner| inner.rows = Some((world.epoch, step, Arc::new(rows))));
        Ok(())
    }

    /// The rows of a step, once published.
    pub(crate) async fn rows(&self, epoch: u64, step: u64) -> std::result::Result<Rows, Refusal> {
        self.when(|inner| {
            if let Err(refusal) = inner.is_current(epoch) {
                return Some(Err(refusal));
            }
            match &inner.rows {
                Some((at, published, rows)) if (*at, *published) == (epoch, step) => Some(Ok(rows.clone())),
                Some((at, published, _)) if (*at, *published) > (epoch, step) => Some(Err(Refusal::Stale(
                    format!("rows of step {step} were replaced by those of {published}"),
                ))),
                _ => None,
            }
        })
        .await
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
        if self.mail.contains_key(key) { Err(Refusal::Duplicate) } else { Ok(()) }
    }
}

fn bytes_in(mail: &BTreeMap<MailKey, Segments>) -> u64 {
    mail.values().map(|segments| segments.len() as u64).sum()
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
        let room = mailbox.admit(&key, bytes.len() as u64)?;
        mailbox.deliver(room, key, Bytes::from_static(bytes).into())
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
        assert_eq!(mailbox.take(&key(2, 7)).await.into_bytes(), Bytes::from_static(b"new!"));
        mailbox.set_world(world(3));
        assert_eq!(mailbox.take(&key(3, 7)).await.into_bytes(), Bytes::from_static(b"next"));
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
        assert_eq!(deliver(&mailbox, key(1, 1), b"1234"), Err(Refusal::Duplicate));
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
        assert!(matches!(mailbox.rows(1, 0).await, Err(Refusal::Stale(_))));
        deliver(&mailbox, key(2, 0), b"1234").expect("next epoch");
        mailbox.set_world(world(2));
        mailbox.publish_rows(4, BTreeMap::new()).expect("open");
        assert!(mailbox.rows(2, 4).await.is_ok());
        assert!(matches!(mailbox.rows(2, 3).await, Err(Refusal::Stale(_))));
    }
}
