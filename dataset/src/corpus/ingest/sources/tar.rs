//! WebDataset archives, packed or not: consecutive members whose names share what precedes the first dot are
//! one row.

mod group;
mod links;
mod unpack;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Read, Result};
use std::rc::Rc;

use blip2_store::Location;
use bytes::Bytes;

use super::rows::{RowSender, Rows, from_thread};
use crate::corpus::ingest::fetch::{ObjectReader, StoreFailure};
use crate::corpus::ingest::folder::key_of;
use crate::corpus::ingest::json;
use crate::corpus::ingest::row::too_many_bytes;
use crate::corpus::ingest::row::{Refusal, RejectReason, SourceRow};
use group::{Content, Draft, Group, is_passed_over, shown, split_name};
use links::Links;
use unpack::{Counted, Packing, unpack};

/// Names of image members, by preference.
const IMAGE_ENDINGS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"];
/// Names of members that are text.
const TEXTS: [&str; 3] = ["txt", "text", "caption"];
/// Longest member that is text, bytes.
const MAX_TEXT: u64 = 4 << 20;

/// Longest header of a member, its name included, bytes: names are read into memory as long as they say they
/// are.
const MAX_HEADERS: u64 = 1 << 20;

/// Bytes of a tar's block.
const BLOCK: u64 = 512;
/// Blocks of zeros that end an archive.
const END_BLOCKS: u64 = 2;

/// A reader that gives no more than `left` bytes, besides blocks of zeros, which stand between archives.
struct Limited<R> {
    reader: R,
    left: Rc<Cell<u64>>,
    gap: Rc<Gap>,
}

/// What stands between a member and the next header.
#[derive(Default)]
struct Gap {
    /// Bytes read so far.
    read: Rc<Cell<u64>>,
    /// Where the member ends.
    start: Cell<u64>,
    /// Where the first bytes behind it are that are no zeros.
    end: Cell<Option<u64>>,
}

impl Gap {
    fn saw(&self, bytes: usize) {
        let at = self.read.get() - bytes as u64;
        if self.end.get().is_none() && at >= self.start.get() {
            self.end.set(Some(at));
        }
    }

    fn begin(&self, start: u64) {
        self.start.set(start);
        self.end.set(None);
    }

    /// Whether the zeros are those that end an archive.
    fn ends_an_archive(&self) -> bool {
        self.end.get().is_some_and(|end| end >= self.start.get() + END_BLOCKS * BLOCK)
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.reader.read(buffer)?;
        if buffer.len() as u64 <= BLOCK && buffer[..read].iter().all(|byte| *byte == 0) {
            return Ok(read);
        }
        self.gap.saw(read);
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(
            left.ok_or_else(|| Error::other(format!("a member's header has more than {MAX_HEADERS} bytes")))?,
        );
        Ok(read)
    }
}

type Member<'a> = tar::Entry<'a, Limited<Counted<Box<dyn Read>>>>;

pub(super) fn rows(location: &Location, bytes: u64, max_image_bytes: u64) -> Rows {
    let (reader, failure) = ObjectReader::start(location, 0..bytes);
    let links = Links::new(location);
    from_thread(move |sender| {
        let unpacked = Rc::<Cell<u64>>::default();
        let gap = Rc::new(Gap { read: Rc::clone(&unpacked), ..Gap::default() });
        let place = Place { bytes, unpacked, gap, ..Place::default() };
        let torn = BTreeSet::new();
        Archive { sender, failure, row: 0, max_image_bytes, place, links, torn }.read(reader);
    })
}

/// How far an archive is read.
#[derive(Default)]
struct Place {
    /// Length of the object.
    bytes: u64,
    /// Bytes read of it.
    read: Rc<Cell<u64>>,
    /// Bytes read of what it unpacks to.
    unpacked: Rc<Cell<u64>>,
    /// Whether the unpacked bytes came to their end.
    ended: Rc<Cell<bool>>,
    packed: bool,
    /// Whether it is packed in a way that is not read.
    unread: bool,
    /// The member that was begun last, and where it ends when it is whole.
    member: String,
    member_end: u64,
    members: u64,
    gap: Rc<Gap>,
}

impl Place {
    /// An error with the byte at which it is.
    fn describe(&self, error: &Error) -> String {
        let byte = match self.packed {
            true => format!("byte {} (byte {} unpacked)", self.read.get(), self.unpacked.get()),
            false => format!("byte {}", self.unpacked.get()),
        };
        let within = match self.member.as_str() {
            "" => String::new(),
            name if self.unpacked.get() < self.member_end => format!(", within the member `{name}`"),
            name => format!(", behind the member `{name}`"),
        };
        let early = self.ended.get() || error.kind() == ErrorKind::UnexpectedEof;
        match early {
            _ if self.bytes == 0 => "the archive is empty: it has 0 bytes".to_owned(),
            _ if self.unread => format!("the archive cannot be read: {error}"),
            true => format!("the archive ends too early, at {byte}{within}: {error}"),
            false => format!("the archive is damaged at {byte}{within}: {error}"),
        }
    }
}

struct Archive {
    sender: RowSender,
    failure: StoreFailure,
    row: u64,
    max_image_bytes: u64,
    place: Place,
    links: Links,
    /// Hashes of the keys of rows that lacked an image or a text.
    torn: BTreeSet<[u8; 32]>,
}

impl Archive {
    fn read(mut self, reader: ObjectReader) {
        let mut group = Group::default();
        match self.members(reader, &mut group) {
            // Nobody takes rows any more.
            Ok(false) => {}
            Ok(true) => {
                self.send(group.finish(None));
            }
            Err(error) => match self.failure.take() {
                Some(store) => {
                    self.sender.send(Err(store));
                }
                None => {
                    // The row that was being read is not whole.
                    let fault = (RejectReason::DamagedSource, self.place.describe(&error));
                    self.send(group.finish(Some(fault)));
                }
            },
        }
    }

    fn members(&mut self, reader: ObjectReader, group: &mut Group) -> Result<bool> {
        self.place.unread = true;
        let read = Counted::new(reader, Rc::clone(&self.place.read), Rc::default());
        let (unpacked, packing) = unpack(read)?;
        self.place.unread = false;
        self.place.packed = packing != Packing::Plain;
        let left = Rc::new(Cell::new(MAX_HEADERS));
        let reader = Counted::new(unpacked, Rc::clone(&self.place.unpacked), Rc::clone(&self.place.ended));
        let mut archive =
            tar::Archive::new(Limited { reader, left: Rc::clone(&left), gap: Rc::clone(&self.place.gap) });
        // What `cat` makes of several archives has such blocks in the middle.
        archive.set_ignore_zeros(true);
        for member in archive.entries()? {
            let mut member = match member {
                Ok(member) => member,
                Err(error) if self.place.gap.ends_an_archive() => {
                    tracing::warn!(
                        archive = %self.links.location(),
                        byte = self.place.unpacked.get(),
                        %error,
                        "what follows the end of the archive is no archive and is passed over"
                    );
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            left.set(u64::MAX);
            // A sparse member says what it would unpack to.
            let sparse = member.header().entry_type().is_gnu_sparse();
            let bytes = if sparse { member.header().entry_size()? } else { member.size() };
            self.place.member = shown(&String::from_utf8_lossy(&member.path_bytes()));
            self.place.member_end =
                member.raw_file_position().saturating_add(bytes.div_ceil(BLOCK).saturating_mul(BLOCK));
            self.place.gap.begin(self.place.member_end);
            self.place.members += 1;
            if !self.member(&mut member, group)? {
                return Ok(false);
            }
            // What is left of it is passed over, and then the next header comes.
            left.set(bytes.saturating_add(MAX_HEADERS));
        }
        if self.place.members == 0 {
            return Err(Error::other("it has no member"));
        }
        if self.place.unpacked.get() <= self.place.member_end {
            tracing::warn!(
                archive = %self.links.location(),
                byte = self.place.unpacked.get(),
                "the archive has no end mark: if it was cut, the rows behind this byte are missing"
            );
        }
        Ok(true)
    }

    /// Puts a member into its row; `false` when nobody takes rows any more.
    fn member(&mut self, member: &mut Member<'_>, group: &mut Group) -> Result<bool> {
        let kind = member.header().entry_type();
        let link = kind.is_hard_link() || kind.is_symlink();
        if !(kind.is_file() || kind.is_gnu_sparse() || link) {
            return Ok(true);
        }
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if is_passed_over(&name) {
            return Ok(true);
        }
        let (base, stem, extension) = split_name(&name);
        if base != group.base() {
            let whole = std::mem::replace(group, Group::new(base));
            if !self.send(whole.finish(None)) {
                return Ok(false);
            }
        }
        let extension = extension.to_ascii_lowercase();
        let image = IMAGE_ENDINGS.iter().position(|known| *known == extension);
        let text = TEXTS.contains(&extension.as_str()) || extension == "json";
        let content = if image.is_none() && !text {
            Content::Other
        } else {
            let limit = if image.is_some() { self.max_image_bytes } else { MAX_TEXT };
            let read = match link {
                true => self.linked(member, &name, limit)?,
                false => self.bytes(member, &name, limit)?,
            };
            content_of(&name, &extension, image, read)
        };
        let rows = group.take(stem, &extension, content);
        Ok(self.send(rows))
    }

    /// A member's bytes, or why they are not read.
    fn bytes(
        &mut self,
        member: &mut Member<'_>,
        name: &str,
        limit: u64,
    ) -> Result<std::result::Result<Vec<u8>, Refusal>> {
        let size = member.size();
        let in_pieces = match member.pax_extensions()? {
            Some(mut fields) => {
                fields.any(|field| field.is_ok_and(|field| field.key_bytes().starts_with(b"GNU.sparse.")))
            }
            None => false,
        };
        if in_pieces {
            let detail =
                format!("`{}` is stored as a sparse file; write the archive without --sparse", shown(name));
            return Ok(Err((RejectReason::MalformedRow, detail)));
        }
        if size > limit {
            return Ok(Err(too_long(name, size, limit)));
        }
        if !self.place.packed && !member.header().entry_type().is_gnu_sparse() {
            self.links.saw(name, member.raw_file_position(), size);
        }
        read(member, size).map(Ok)
    }

    /// The bytes of the member that a link names, or why they are not read.
    fn linked(
        &mut self,
        member: &Member<'_>,
        name: &str,
        limit: u64,
    ) -> Result<std::result::Result<Vec<u8>, Refusal>> {
        let target = member.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let target = target.unwrap_or_default();
        let symbolic = member.header().entry_type().is_symlink();
        let place = self.links.find(name, &target, symbolic);
        match place {
            Some((_, bytes)) if bytes > limit => Ok(Err(too_long(name, bytes, limit))),
            Some((start, bytes)) => {
                self.links.saw(name, start, bytes);
                self.links.read((start, bytes)).map(Ok)
            }
            None => {
                let why = match self.place.packed {
                    true => "and links are not followed in packed archives",
                    false => "which is no member before it",
                };
                let detail = format!(
                    "`{}` is a link to `{}`, {why}; write the archive with --dereference --hard-dereference",
                    shown(name),
                    shown(&target)
                );
                Ok(Err((RejectReason::MalformedRow, detail)))
            }
        }
    }

    /// Sends rows; `false` when nobody takes them any more.
    fn send(&mut self, rows: Vec<Draft>) -> bool {
        rows.into_iter().all(|draft| {
            let row = self.row;
            self.row += 1;
            let draft = self.with_hint(draft);
            let key = if draft.key.is_empty() { key_of(row) } else { draft.key };
            let Draft { captions, url, image, .. } = draft;
            self.sender.send(Ok(SourceRow { row, key, captions, url, image }))
        })
    }

    /// Says of a row that lacks something when another one of its key did as well.
    fn with_hint(&mut self, draft: Draft) -> Draft {
        if draft.whole || self.torn.insert(*blake3::hash(draft.key.as_bytes()).as_bytes()) {
            return draft;
        }
        let detail = format!(
            "members of the key `{}` do not stand together in the archive; write it sorted by name",
            shown(&draft.key)
        );
        Draft { image: Err((RejectReason::MalformedRow, detail)), ..draft }
    }
}

fn too_long(name: &str, bytes: u64, limit: u64) -> Refusal {
    match limit == MAX_TEXT {
        true => {
            let name = shown(name);
            (RejectReason::MalformedRow, format!("`{name}` has {bytes} bytes, more than {limit}"))
        }
        false => too_many_bytes(bytes, limit),
    }
}

/// What a member's bytes are by its extension.
fn content_of(
    name: &str,
    extension: &str,
    image: Option<usize>,
    read: std::result::Result<Vec<u8>, Refusal>,
) -> Content {
    let malformed = |what: String| (RejectReason::MalformedRow, format!("`{}` is {what}", shown(name)));
    match image {
        Some(place) => Content::RowImage(place, read.map(Bytes::from)),
        None if extension == "json" => Content::Json(read.and_then(|content| {
            json::from_slice(&content).map_err(|error| malformed(format!("no JSON: {error}")))
        })),
        None => Content::Text(
            read.and_then(|content| text_of(content).ok_or_else(|| malformed("no UTF-8 text".to_owned()))),
        ),
    }
}

/// Text in UTF-8, or in UTF-16 if it begins with the mark of that.
fn text_of(content: Vec<u8>) -> Option<String> {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units = content[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<std::result::Result<String, _>>().ok()
    };
    match content.as_slice() {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(content).ok(),
    }
}

/// A member's bytes; `size` is checked before, so that a header cannot ask for more room than is allowed.
fn read(member: &mut Member<'_>, size: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    member.take(size).read_to_end(&mut content)?;
    match content.len() as u64 == size {
        true => Ok(content),
        false => Err(Error::other("the rest of the member is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_their_mark() {
        assert_eq!(text_of(b"\xef\xbb\xbfa cat".to_vec()).unwrap(), "a cat");
        assert_eq!(text_of(b"\xff\xfea\0b\0".to_vec()).unwrap(), "ab");
        assert_eq!(text_of(b"\xfe\xff\0a\0b".to_vec()).unwrap(), "ab");
        assert!(text_of(b"K\xe4se".to_vec()).is_none());
    }
}
