//! gRPC messages of bulk calls, written and read without holding one whole.
//!
//! A message is a header message in field 1, where there is one, and bytes in field 2. The generated code
//! would copy the bytes into a buffer for each message, on both sides; here they pass as the slices they come
//! in.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// Most bytes in front of the data of a message without a header.
pub(crate) const MAX_HEAD: usize = 5 + 1 + 10;
/// Largest header.
const MAX_HEADER: usize = 4096;
/// Keys of the two fields: number and wire type "length-delimited".
const HEADER: u8 = 1 << 3 | 2;
const DATA: u8 = 2 << 3 | 2;

/// Writes a message up to where `data` bytes follow.
pub(crate) fn put_head(header: Option<&[u8]>, data: usize, into: &mut BytesMut) {
    let field = |length: usize| 1 + encoded_len_varint(length as u64) + length;
    let length = header.map_or(0, |header| field(header.len())) + if data > 0 { field(data) } else { 0 };
    into.put_u8(0);
    into.put_u32(length as u32);
    if let Some(header) = header {
        into.put_u8(HEADER);
        encode_varint(header.len() as u64, into);
        into.put_slice(header);
    }
    if data > 0 {
        into.put_u8(DATA);
        encode_varint(data as u64, into);
    }
}

/// Part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The whole header.
    Header(Bytes),
    /// Some of the data, as it came.
    Data(Bytes),
}

/// What is wrong with a stream of messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a message of {0} bytes; at most {1} are taken")]
    TooLarge(usize, usize),
    #[error("a compressed message; none is expected")]
    Compressed,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the stream ends inside a message")]
    Cut,
}

/// Takes messages apart as their bytes arrive.
#[derive(Debug)]
pub(crate) struct Deframer {
    largest: usize,
    expect: Expect,
    /// Bytes of the message that have not come.
    left: usize,
    /// What has come of the prefix, of a length or of a header.
    part: BytesMut,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Prefix,
    Key,
    Length { data: bool },
    Header { length: usize },
    Data { left: usize },
}

impl Deframer {
    /// For messages of at most `largest` bytes.
    pub(crate) fn new(largest: usize) -> Self {
        Self { largest, expect: Expect::Prefix, left: 0, part: BytesMut::new() }
    }

    /// The next piece in `input`, or nothing when more is needed; `input` is empty then.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Fault> {
        loop {
            match self.expect {
                // A header whose fields are all zero has no bytes.
                Expect::Header { length: 0 } => {
                    self.field_ends();
                    return Ok(Some(Piece::Header(Bytes::new())));
                }
                _ if input.is_empty() => return Ok(None),
                Expect::Prefix => self.prefix(input)?,
                Expect::Key => self.key(input)?,
                Expect::Length { data } => self.length(data, input)?,
                Expect::Header { length } => {
                    self.collect(length, input);
                    if self.part.len() == length {
                        self.field_ends();
                        return Ok(Some(Piece::Header(self.part.split().freeze())));
                    }
                }
                Expect::Data { left } => {
                    let piece = input.split_to(left.min(input.len()));
                    self.left -= piece.len();
                    self.expect = Expect::Data { left: left - piece.len() };
                    if left == piece.len() {
                        self.field_ends();
                    }
                    return Ok(Some(Piece::Data(piece)));
                }
            }
        }
    }

    /// Whether the stream may end here.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.expect {
            Expect::Prefix if self.part.is_empty() => Ok(()),
            _ => Err(Fault::Cut),
        }
    }

    fn field_ends(&mut self) {
        self.expect = if self.left == 0 { Expect::Prefix } else { Expect::Key };
    }

    /// Moves bytes of the message to `part` until that has `length`.
    fn collect(&mut self, length: usize, input: &mut Bytes) {
        let taken = input.split_to((length - self.part.len()).min(input.len()));
        self.left = self.left.saturating_sub(taken.len());
        self.part.put_slice(&taken);
    }

    fn prefix(&mut self, input: &mut Bytes) -> Result<(), Fault> {
        self.left = 0;
        self.collect(5, input);
        if self.part.len() < 5 {
            return Ok(());
        }
        let (flag, length) = (self.part.get_u8(), self.part.get_u32() as usize);
        self.part.clear();
        if flag != 0 {
            return Err(Fault::Compressed);
        }
        if length > self.largest {
            return Err(Fault::TooLarge(length, self.largest));
        }
        self.left = length;
        self.field_ends();
        Ok(())
    }

    fn key(&mut self, input: &mut Bytes) -> Result<(), Fault> {
        let key = input.get_u8();
        self.left -= 1;
        if self.left == 0 || (key != HEADER && key != DATA) {
            return Err(Fault::Malformed("a field that is neither the header nor data"));
        }
        self.expect = Expect::Length { data: key == DATA };
        Ok(())
    }

    fn length(&mut self, data: bool, input: &mut Bytes) -> Result<(), Fault> {
        let byte = input.get_u8();
        self.left -= 1;
        self.part.put_u8(byte);
        if byte & 0x80 != 0 {
            if self.left == 0 || self.part.len() >= 10 {
                return Err(Fault::Malformed("a field without a length"));
            }
            return Ok(());
        }
        let length =
            decode_varint(&mut self.part).map_err(|_| Fault::Malformed("a field without a length"))?;
        self.part.clear();
        if length > self.left as u64 {
            return Err(Fault::Malformed("a field longer than its message"));
        }
        // At most `left`, a message's length, so it is a usize.
        let length = length as usize;
        if !data && length > MAX_HEADER {
            return Err(Fault::TooLarge(length, MAX_HEADER));
        }
        self.expect = match (data, length) {
            (true, 0) => {
                self.field_ends();
                return Ok(());
            }
            (true, left) => Expect::Data { left },
            (false, length) => Expect::Header { length },
        };
        Ok(())
    }
}

/// Reads a whole stream of messages that comes in pieces of `size` bytes, as a server reads a peer's: the
/// number of headers and of data bytes. For tests that feed it what no peer of ours sends.
///
/// # Errors
/// What is wrong with the stream.
#[doc(hidden)]
pub fn read_bulk_messages(stream: &[u8], size: usize, largest: usize) -> Result<(usize, usize), String> {
    let mut deframer = Deframer::new(largest);
    let (mut headers, mut data) = (0, 0);
    for piece in stream.chunks(size.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(piece) = deframer.next(&mut input).map_err(|fault| fault.to_string())? {
            match piece {
                Piece::Header(_) => headers += 1,
                Piece::Data(piece) => data += piece.len(),
            }
        }
    }
    deframer.end().map_err(|fault| fault.to_string())?;
    Ok((headers, data))
}

#[cfg(test)]
mod tests {
    use blip2_proto::v1::{Chunk, PushHeader};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn header() -> PushHeader {
        PushHeader { token: "secret".into(), epoch: 3, tag: "grad".into(), ..PushHeader::default() }
    }

    /// A message as the generated code writes it.
    fn generated(header: Option<PushHeader>, data: &[u8]) -> Vec<u8> {
        let body = Chunk { header, data: Bytes::copy_from_slice(data) }.encode_to_vec();
        let mut message = vec![0];
        message.extend((body.len() as u32).to_be_bytes());
        message.extend(body);
        message
    }

    fn read(stream: &[u8], size: usize) -> Result<(Vec<Bytes>, Vec<u8>), Fault> {
        let mut deframer = Deframer::new(1000);
        let (mut headers, mut data) = (Vec::new(), Vec::new());
        for chunk in stream.chunks(size) {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(piece) = deframer.next(&mut input)? {
                match piece {
                    Piece::Header(header) => headers.push(header),
                    Piece::Data(piece) => data.extend_from_slice(&piece),
                }
            }
        }
        deframer.end().map(|()| (headers, data))
    }

    #[test]
    fn messages_are_those_of_the_generated_code() {
        let encoded = header().encode_to_vec();
        for data in [&b""[..], b"x", &[7; 200]] {
            for header in [None, Some(header())] {
                let mut ours = BytesMut::new();
                put_head(header.as_ref().map(|_| &encoded[..]), data.len(), &mut ours);
                ours.put_slice(data);
                assert_eq!(ours, generated(header, data));
            }
        }
    }

    #[test]
    fn messages_are_read_whatever_pieces_they_come_in() {
        let mut stream = generated(Some(header()), &[1; 300]);
        stream.extend(generated(None, b""));
        stream.extend(generated(None, &[2; 5]));
        for size in [1, 2, 3, 7, 100, 10_000] {
            let (headers, data) = read(&stream, size).expect("well-formed");
            assert_eq!(headers.len(), 1);
            assert_eq!(PushHeader::decode(headers[0].clone()), Ok(header()));
            assert_eq!((data.len(), data[299], data[300]), (305, 1, 2));
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let message = generated(None, &[1; 20]);
        let fault = |stream: &[u8]| read(stream, 6).expect_err("malformed");
        assert_eq!(fault(&message[..message.len() - 1]), Fault::Cut);
        assert_eq!(fault(&message[..3]), Fault::Cut);
        assert_eq!(fault(&[1, 0, 0, 0, 1, 0]), Fault::Compressed);
        assert_eq!(fault(&generated(None, &[0; 1000])), Fault::TooLarge(1003, 1000));
        for body in [&[HEADER][..], &[8, 1], &[DATA, 9, 1], &[DATA, 0x80], &[DATA, 0xFF, 0xFF]] {
            let mut stream = vec![0, 0, 0, 0, body.len() as u8];
            stream.extend(body);
            assert!(matches!(fault(&stream), Fault::Malformed(_)), "{body:?}");
        }
        assert_eq!(read(&[0, 0, 0, 0, 2, HEADER, 0], 7), Ok((vec![Bytes::new()], vec![])));
        let mut endless = vec![0, 0, 0, 0, 20, DATA];
        endless.extend([0xFF; 19]);
        assert!(matches!(fault(&endless), Fault::Malformed(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Messages come out as they went in, however the stream is cut; a stream that breaks off inside a
        /// message never ends well.
        #[test]
        fn any_messages_in_any_pieces_are_read(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..90)), 0..5),
            size in 1usize..50,
            end in any::<prop::sample::Index>(),
        ) {
            let (mut stream, mut ends, mut sent, mut headers) = (Vec::new(), vec![0], Vec::new(), 0);
            for (has_header, data) in &messages {
                stream.extend(generated(has_header.then(header), data));
                ends.push(stream.len());
                sent.extend_from_slice(data);
                headers += usize::from(*has_header);
            }
            let (found, data) = read(&stream, size).expect("well-formed");
            prop_assert_eq!(found, vec![Bytes::from(header().encode_to_vec()); headers]);
            prop_assert_eq!(data, sent);
            let end = end.index(stream.len() + 1);
            prop_assert_eq!(read(&stream[..end], size).is_ok(), ends.contains(&end));
        }

        /// Nonsense is an error or is read: never more data than came, and the same in pieces of any size.
        #[test]
        fn nonsense_reads_alike_in_any_pieces(
            stream in prop::collection::vec(prop_oneof![Just(0u8), Just(HEADER), Just(DATA), 0u8..12, any::<u8>()], 0..60),
            size in 1usize..60,
        ) {
            let whole = read(&stream, stream.len().max(1));
            prop_assert!(whole.as_ref().is_ok_and(|(_, data)| data.len() <= stream.len()) || whole.is_err());
            prop_assert_eq!(read(&stream, size), whole);
        }
    }
}
