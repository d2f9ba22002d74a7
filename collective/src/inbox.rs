//! One buffer on its way from a peer to the collective that waits for it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// What has come of a buffer and has not been taken.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Length of the whole, once a sender has said it.
    length: Option<u64>,
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`.
    waiting: u64,
    /// Bytes the collective has taken.
    taken: u64,
    /// Counts the senders: only the newest is listened to.
    sender: u64,
    /// Bytes of memory reserved: all that has not been taken, while there is a sender or the whole is here.
    pub(crate) reserved: u64,
    /// The collective that waits.
    reader: Option<Waker>,
}

/// Why a sender is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// The whole is here already.
    Complete,
    /// An earlier sender said another length, and part of its buffer is in use.
    OtherLength(u64),
    /// A newer sender has taken over.
    Superseded,
    /// More bytes than were announced.
    TooLong,
}

impl Inbox {
    fn received(&self) -> u64 {
        self.taken + self.waiting
    }

    fn is_complete(&self) -> bool {
        self.length == Some(self.received())
    }

    /// Memory that a sender of `length` bytes needs.
    pub(crate) fn needed(&self, length: u64) -> u64 {
        length.saturating_sub(self.taken)
    }

    /// Takes up a sender: its number, and the bytes it will send that are here already.
    pub(crate) fn begin(&mut self, length: u64) -> Result<(u64, u64), Unwanted> {
        if self.length.is_some() && self.is_complete() {
            return Err(Unwanted::Complete);
        }
        if let Some(known) = self.length
            && known != length
        {
            if self.taken > 0 {
                return Err(Unwanted::OtherLength(known));
            }
            self.forget();
        }
        self.length = Some(length);
        self.sender += 1;
        self.wake();
        Ok((self.sender, self.received()))
    }

    /// Adds bytes of a sender that follow those received.
    pub(crate) fn push(&mut self, sender: u64, piece: Bytes) -> Result<(), Unwanted> {
        if sender != self.sender {
            return Err(Unwanted::Superseded);
        }
        let bytes = piece.len() as u64;
        if self.length.is_none_or(|length| self.received() + bytes > length) {
            return Err(Unwanted::TooLong);
        }
        self.waiting += bytes;
        self.pieces.push_back(piece);
        self.wake();
        Ok(())
    }

    /// Ends a sender: whether the whole is here. If not, what has not been taken is dropped, for the next
    /// sender begins anew.
    pub(crate) fn end(&mut self, sender: u64) -> bool {
        if sender == self.sender && !self.is_complete() {
            self.forget();
        }
        self.is_complete()
    }

    fn forget(&mut self) {
        self.pieces.clear();
        self.waiting = 0;
        if self.taken == 0 {
            self.length = None;
        }
    }

    /// Whether no newer sender has taken over.
    pub(crate) fn is_last(&self, sender: u64) -> bool {
        sender == self.sender
    }

    /// Whether nobody would miss it.
    pub(crate) fn is_unused(&self) -> bool {
        self.length.is_none() && self.reader.is_none()
    }

    /// The length of the whole, once known.
    pub(crate) fn poll_length(&mut self, context: &Context<'_>) -> Poll<u64> {
        match self.length {
            Some(length) => Poll::Ready(length),
            None => self.wait(context),
        }
    }

    /// The next bytes; nothing after the last.
    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.pieces.pop_front() {
            self.waiting -= piece.len() as u64;
            self.taken += piece.len() as u64;
            return Poll::Ready(Some(piece));
        }
        if self.is_complete() { Poll::Ready(None) } else { self.wait(context) }
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(inbox: &mut Inbox) -> Vec<u8> {
        let mut all = Vec::new();
        while let Poll::Ready(Some(piece)) = inbox.poll_next(&Context::from_waker(Waker::noop())) {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn a_buffer_sent_again_continues_where_the_first_was_taken() {
        let mut inbox = Inbox::default();
        let (first, skip) = inbox.begin(8).expect("wanted");
        assert_eq!(skip, 0);
        inbox.push(first, Bytes::from_static(b"abc")).expect("in turn");
        assert_eq!(taken(&mut inbox), b"abc");
        inbox.push(first, Bytes::from_static(b"de")).expect("in turn");
        assert!(!inbox.end(first));
        let (second, skip) = inbox.begin(8).expect("wanted again");
        assert_eq!(skip, 3, "what was not taken is sent again");
        assert_eq!(inbox.push(first, Bytes::from_static(b"x")), Err(Unwanted::Superseded));
        assert_eq!(inbox.begin(9), Err(Unwanted::OtherLength(8)));
        inbox.push(second, Bytes::from_static(b"defgh")).expect("in turn");
        assert!(!inbox.end(first) || inbox.end(second));
        assert_eq!(inbox.push(second, Bytes::from_static(b"i")), Err(Unwanted::TooLong));
        assert_eq!(inbox.begin(8), Err(Unwanted::Complete));
        assert_eq!(taken(&mut inbox), b"defgh");
        assert!(inbox.poll_next(&Context::from_waker(Waker::noop())) == Poll::Ready(None));
    }

    #[test]
    fn a_sender_that_breaks_off_leaves_nothing() {
        let mut inbox = Inbox::default();
        let (sender, _) = inbox.begin(8).expect("wanted");
        inbox.push(sender, Bytes::from_static(b"abc")).expect("in turn");
        assert!(!inbox.end(sender));
        assert!(inbox.is_unused());
        assert_eq!(inbox.begin(3).map(|(_, skip)| skip), Ok(0), "another length is fine");
    }

    #[test]
    fn an_empty_buffer_is_complete_at_once() {
        let mut inbox = Inbox::default();
        assert!(inbox.poll_next(&Context::from_waker(Waker::noop())).is_pending());
        let (sender, _) = inbox.begin(0).expect("wanted");
        assert!(inbox.end(sender));
        assert!(inbox.poll_next(&Context::from_waker(Waker::noop())) == Poll::Ready(None));
    }
}
