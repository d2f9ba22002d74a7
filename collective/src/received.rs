//! A buffer of a peer, in the pieces the connection gave: whoever uses it copies it once, to where it is
//! needed.

use bytes::{Bytes, BytesMut};

use crate::{CollectiveError, Result};

/// The bytes of one buffer.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// In their order; none is empty.
    pieces: Vec<Bytes>,
}

impl Received {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// As one piece; copied where it came in several.
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// Reads from the beginning.
    pub fn reader(&self) -> ReceivedReader<'_> {
        ReceivedReader { pieces: self.pieces.iter(), rest: &[] }
    }
}

impl From<Bytes> for Received {
    fn from(bytes: Bytes) -> Self {
        let mut received = Self::default();
        received.push(bytes);
        received
    }
}

/// A place in a [`Received`].
#[derive(Debug, Clone)]
pub struct ReceivedReader<'a> {
    pieces: std::slice::Iter<'a, Bytes>,
    rest: &'a [u8],
}

impl ReceivedReader<'_> {
    /// Copies the next bytes to all of `into`.
    ///
    /// # Errors
    /// [`CollectiveError::Invalid`]: fewer are left.
    pub fn read(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            if self.rest.is_empty() {
                let missing = into.len();
                self.rest = self.pieces.next().ok_or_else(|| {
                    CollectiveError::Invalid(format!("{missing} bytes are read behind the end of a buffer"))
                })?;
            }
            let (now, later) = self.rest.split_at(into.len().min(self.rest.len()));
            let (place, after) = std::mem::take(&mut into).split_at_mut(now.len());
            place.copy_from_slice(now);
            (self.rest, into) = (later, after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_read_whatever_pieces_it_came_in() {
        let whole: Vec<u8> = (0..100).collect();
        for size in [1, 7, 99, 100] {
            let mut received = Received::default();
            whole.chunks(size).for_each(|piece| received.push(Bytes::copy_from_slice(piece)));
            received.push(Bytes::new());
            assert_eq!((received.len(), received.is_empty()), (100, false));
            let mut reader = received.reader();
            let (mut first, mut rest) = ([0; 13], [0; 87]);
            reader.read(&mut first).expect("there");
            reader.read(&mut []).expect("nothing is always there");
            reader.read(&mut rest).expect("there");
            assert_eq!([&first[..], &rest].concat(), whole);
            assert!(reader.read(&mut [0]).expect_err("behind the end").to_string().contains("1 bytes"));
            assert_eq!(received.into_bytes(), whole);
        }
        assert!(Received::from(Bytes::new()).is_empty() && Received::default().into_bytes().is_empty());
    }
}
