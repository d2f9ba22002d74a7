//! WebDataset archives: consecutive members whose names share what precedes the first dot are one row.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;

use crate::ingest::fetch::{ObjectReader, StoreFailure};
use crate::ingest::folder::key_of;
use crate::ingest::prepare::too_many_bytes;
use crate::ingest::row::{Picture, Refusal, RejectReason, SourceRow};
use crate::ingest::sources::{RowSender, Rows, from_thread};
use crate::store::Location;

/// Names of picture members, by preference.
const PICTURES: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];
/// Longest member that is text, bytes.
const MAX_TEXT: u64 = 4 << 20;

/// Longest header of a member, its name included, bytes: names are read into memory as long as they say they are.
const MAX_HEADERS: u64 = 1 << 20;

/// A reader that gives no more than `left` bytes.
struct Limited<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| {
            std::io::Error::other(format!("a member's header has more than {MAX_HEADERS} bytes"))
        })?);
        Ok(read)
    }
}

/// The members of one row.
#[derive(Debug, Default)]
struct Group {
    base: String,
    /// Position among [`PICTURES`], and the bytes.
    picture: Option<(usize, Result<Bytes, Refusal>)>,
    text: Option<String>,
    json: Option<Value>,
    fault: Option<Refusal>,
}

pub(super) fn rows(location: &Location, bytes: u64, max_picture_bytes: u64) -> Rows {
    let (reader, failure) = ObjectReader::start(location, 0..bytes);
    from_thread(move |sender| Archive { sender, failure, row: 0, max_picture_bytes }.read(reader))
}

struct Archive {
    sender: RowSender,
    failure: StoreFailure,
    row: u64,
    max_picture_bytes: u64,
}

impl Archive {
    fn read(mut self, reader: ObjectReader) {
        let mut group = Group::default();
        match self.members(reader, &mut group) {
            // Nobody takes rows any more.
            Ok(false) => {}
            Ok(true) => {
                self.send(group);
            }
            Err(error) => match self.failure.take() {
                Some(store) => {
                    self.sender.send(Err(store));
                }
                None => {
                    // The row that was being read is not whole.
                    group.fault = Some((RejectReason::DamagedSource, format!("the archive: {error}")));
                    self.send(group);
                }
            },
        }
    }

    fn members(&mut self, reader: ObjectReader, group: &mut Group) -> std::io::Result<bool> {
        let left = Rc::new(Cell::new(MAX_HEADERS));
        let mut archive = tar::Archive::new(Limited { reader, left: Rc::clone(&left) });
        for member in archive.entries()? {
            let mut member = member?;
            left.set(u64::MAX);
            if member.header().entry_type().is_file() && !self.member(&mut member, group)? {
                return Ok(false);
            }
            // What is left of it is passed over, and then the next header comes. A sparse member says what it would unpack to.
            let sparse = member.header().entry_type().is_gnu_sparse();
            let rest = if sparse { member.header().entry_size()? } else { member.size() };
            left.set(rest.saturating_add(MAX_HEADERS));
        }
        Ok(true)
    }

    /// Puts a member into its row; `false` when nobody takes rows any more.
    fn member(
        &mut self,
        member: &mut tar::Entry<'_, Limited<ObjectReader>>,
        group: &mut Group,
    ) -> std::io::Result<bool> {
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let (base, extension) = split_name(&name);
        if base != group.base {
            let whole = std::mem::take(group);
            if !self.send(whole) {
                return Ok(false);
            }
            group.base = base.to_owned();
        }
        let size = member.size();
        let extension = extension.to_ascii_lowercase();
        if let Some(place) = PICTURES.iter().position(|known| *known == extension) {
            let better = group.picture.as_ref().is_none_or(|(found, _)| place < *found);
            if better {
                let picture = match size > self.max_picture_bytes {
                    true => Err(too_many_bytes(size, self.max_picture_bytes)),
                    false => Ok(read(member, size)?.into()),
                };
                group.picture = Some((place, picture));
            }
        } else if matches!(extension.as_str(), "txt" | "text" | "caption" | "json") {
            if size > MAX_TEXT {
                let detail = format!("`{name}` has {size} bytes, more than {MAX_TEXT}");
                group.fault = Some((RejectReason::MalformedRow, detail));
            } else {
                group.take_text(&name, &extension, read(member, size)?);
            }
        }
        Ok(true)
    }

    /// Sends a row, if there is one; `false` when nobody takes rows any more.
    fn send(&mut self, group: Group) -> bool {
        if group.base.is_empty() && group.fault.is_none() {
            return true;
        }
        let row = group.into_row(self.row);
        self.row += 1;
        self.sender.send(Ok(row))
    }
}

/// A member's bytes; `size` is checked before, so that a header cannot ask for more room than is allowed.
fn read(member: &mut impl Read, size: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    member.take(size).read_to_end(&mut content)?;
    match content.len() as u64 == size {
        true => Ok(content),
        false => Err(std::io::Error::other("it ends within a member")),
    }
}

/// Folder and name up to the first dot, and what follows it.
fn split_name(path: &str) -> (&str, &str) {
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name_at..].find('.') {
        Some(dot) => (&path[..name_at + dot], &path[name_at + dot + 1..]),
        None => (path, ""),
    }
}

impl Group {
    fn take_text(&mut self, name: &str, extension: &str, content: Vec<u8>) {
        let malformed = |what: String| Some((RejectReason::MalformedRow, format!("`{name}` is {what}")));
        if extension == "json" {
            match serde_json::from_slice(&content) {
                Ok(value) => self.json = Some(value),
                Err(error) => self.fault = malformed(format!("no JSON: {error}")),
            }
        } else {
            match String::from_utf8(content) {
                Ok(text) => self.text = Some(text),
                Err(_) => self.fault = malformed("no UTF-8 text".to_owned()),
            }
        }
    }

    fn into_row(self, row: u64) -> SourceRow {
        let field = |name: &str| match self.json.as_ref()?.get(name)? {
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        let listed: Vec<String> = self.json.iter().flat_map(captions_of).collect();
        let captions = if listed.is_empty() { self.text.clone().into_iter().collect() } else { listed };
        let key = match self.base.rsplit('/').next() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => key_of(row),
        };
        let url = field("url");
        let refused = field("status").filter(|status| status != "success");
        let picture = match (self.fault, refused, self.picture) {
            (Some(fault), ..) => Err(fault),
            (_, Some(status), _) => Err((RejectReason::NotDownloaded, format!("status is `{status}`"))),
            (_, _, Some((_, picture))) => picture.map(Picture::Bytes),
            (_, _, None) => Err((RejectReason::NoPicture, "it has no member that is a picture".to_owned())),
        };
        SourceRow { row, key, captions, url, picture }
    }
}

/// Captions of a member that is JSON: a list of texts, of objects with `caption`, or one such object.
fn captions_of(json: &Value) -> Vec<String> {
    match json {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(captions_of).collect(),
        Value::Object(fields) => {
            let found = fields.get("captions").or_else(|| fields.get("caption"));
            found.map(texts_of).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_first_dot_of_the_last_segment() {
        assert_eq!(split_name("a.b/0001.seg.png"), ("a.b/0001", "seg.png"));
        assert_eq!(split_name("0001"), ("0001", ""));
    }

    #[test]
    fn captions_are_found_in_every_form() {
        let found = |text: &str| captions_of(&serde_json::from_str(text).unwrap());
        assert_eq!(found(r#"["a","b"]"#), ["a", "b"]);
        assert_eq!(found(r#"[{"caption":"a"},{"caption":"b"}]"#), ["a", "b"]);
        assert_eq!(found(r#"{"caption":"a","other":1}"#), ["a"]);
        assert_eq!(found(r#"{"captions":["a",3,"b"]}"#), ["a", "b"]);
        assert!(found("[[[]]]").is_empty() && found("7").is_empty());
    }
}
