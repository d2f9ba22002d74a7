//! An archive's bytes, unpacked where they are packed, and counted on both sides.

use std::cell::Cell;
use std::io::{Cursor, Error, Read, Result};
use std::rc::Rc;

/// Bytes that tell how an archive is packed.
const HEAD: usize = 8;

/// How an archive is packed, told by its first bytes: names lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstandard,
    /// In a way that is not read.
    Other(&'static str),
}

impl Packing {
    fn of(head: &[u8]) -> Self {
        let known: [(&[u8], Self); 8] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\x28\xb5\x2f\xfd", Self::Zstandard),
            (b"BZh", Self::Other("bzip2")),
            (b"\xfd7zXZ\0", Self::Other("xz")),
            (b"\x04\x22\x4d\x18", Self::Other("lz4")),
            (b"LZIP", Self::Other("lzip")),
            (b"PK\x03\x04", Self::Other("zip")),
            (b"7z\xbc\xaf\x27\x1c", Self::Other("7-Zip")),
        ];
        // Frames that hold nothing may precede those of Zstandard.
        let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        let found = known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, packing)| packing);
        found.unwrap_or(if skippable { Self::Zstandard } else { Self::Plain })
    }
}

/// A reader whose bytes are counted.
pub(super) struct Counted<R> {
    reader: R,
    count: Rc<Cell<u64>>,
    /// Set when there is no more.
    ended: Rc<Cell<bool>>,
}

impl<R> Counted<R> {
    pub(super) fn new(reader: R, count: Rc<Cell<u64>>, ended: Rc<Cell<bool>>) -> Self {
        Self { reader, count, ended }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.reader.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        self.ended.set(self.ended.get() || (read == 0 && !buffer.is_empty()));
        Ok(read)
    }
}

/// The archive itself, and how it was packed. Streams that follow each other are one archive, as for `cat`.
pub(super) fn unpack(mut reader: impl Read + 'static) -> Result<(Box<dyn Read>, Packing)> {
    let mut head = Vec::new();
    (&mut reader).take(HEAD as u64).read_to_end(&mut head)?;
    let packing = Packing::of(&head);
    let whole = Cursor::new(head).chain(reader);
    let unpacked: Box<dyn Read> = match packing {
        Packing::Plain => Box::new(whole),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Packing::Zstandard => Box::new(zstd::stream::read::Decoder::new(whole)?),
        Packing::Other(name) => {
            return Err(Error::other(format!(
                "it is packed with {name}, which is not read; unpack it, or pack it with gzip or zstd"
            )));
        }
    };
    Ok((unpacked, packing))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(packed: Vec<u8>) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        unpack(Cursor::new(packed))?.0.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_that_follow_each_other_are_one() {
        let zstd = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        assert_eq!(unpacked([gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        assert_eq!(unpacked([zstd(b"one "), zstd(b"two")].concat()).unwrap(), b"one two");
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(b"x")].concat();
        assert_eq!(unpacked(skippable).unwrap(), b"x");
        assert_eq!(unpacked(b"plain".to_vec()).unwrap(), b"plain");
        assert_eq!(unpacked(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn what_is_cut_or_not_read_is_an_error() {
        let whole = gzip(&[7; 5000]);
        for length in 2..whole.len() {
            assert!(unpacked(whole[..length].to_vec()).is_err(), "{length}");
        }
        for (head, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"PK\x03\x04abcd", "zip")]
        {
            assert!(unpacked(head.to_vec()).unwrap_err().to_string().contains(name));
        }
    }
}
