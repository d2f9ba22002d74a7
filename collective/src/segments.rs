//! A buffer in the pieces it arrived in.

use bytes::{Bytes, BytesMut};

#[cfg(target_endian = "big")]
compile_error!("buffers travel as little-endian f32 and are viewed in place");

/// A received buffer. Every piece but the last is a multiple of four bytes long, so no f32 is cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    pieces: Vec<Bytes>,
    /// Offset of each piece in the whole.
    starts: Vec<usize>,
    length: usize,
}

impl Segments {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.starts.push(self.length);
        self.length += piece.len();
        self.pieces.push(piece);
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether another piece may follow without cutting an f32.
    pub(crate) fn is_aligned(&self) -> bool {
        self.length.is_multiple_of(4)
    }

    /// The whole as one buffer: free when it came in one piece.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.length);
        for piece in &self.pieces {
            whole.extend_from_slice(piece);
        }
        whole.freeze()
    }

    /// Calls `visit(place in the window, bytes)` for the pieces of the window of `length` bytes at `offset`.
    pub(crate) fn window(&self, offset: usize, length: usize, mut visit: impl FnMut(usize, &[u8])) {
        let mut piece = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let mut done = 0;
        while done < length && piece < self.pieces.len() {
            let skip = offset + done - self.starts[piece];
            let bytes = &self.pieces[piece][skip..];
            let take = bytes.len().min(length - done);
            visit(done, &bytes[..take]);
            done += take;
            piece += 1;
        }
    }

    /// Copies the bytes at `offset` into `out`.
    pub(crate) fn copy_to(&self, offset: usize, out: &mut [u8]) {
        let length = out.len();
        self.window(offset, length, |place, bytes| out[place..place + bytes.len()].copy_from_slice(bytes));
    }
}

impl From<Bytes> for Segments {
    fn from(whole: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(whole);
        segments
    }
}

/// Hands a vector of f32 over as bytes without copying it.
pub(crate) fn bytes_of(values: Vec<f32>) -> Bytes {
    struct Floats(Vec<f32>);
    impl AsRef<[u8]> for Floats {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Floats(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cross_pieces() {
        let mut segments = Segments::default();
        for piece in [&b"abcd"[..], b"", b"efghijkl", b"mn"] {
            segments.push(Bytes::from_static(piece));
        }
        for offset in 0..14 {
            for length in 0..=14 - offset {
                let mut out = vec![0; length];
                segments.copy_to(offset, &mut out);
                assert_eq!(out, b"abcdefghijklmn"[offset..offset + length]);
            }
        }
        assert_eq!(segments.into_bytes(), Bytes::from_static(b"abcdefghijklmn"));
        assert_eq!(Segments::default().into_bytes(), Bytes::new());
    }

    #[test]
    fn floats_become_bytes_in_place() {
        let values = vec![1.0f32, -2.5];
        let address = values.as_ptr() as usize;
        let bytes = bytes_of(values);
        assert_eq!(bytes.as_ptr() as usize, address);
        assert_eq!(bytes[4..], (-2.5f32).to_le_bytes());
    }
}
