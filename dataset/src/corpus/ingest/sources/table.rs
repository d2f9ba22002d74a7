//! Tables of images' names and captions: CSV and TSV with a header, as spreadsheets and pandas write them.

use std::io::{BufRead, Read};

use arrow::datatypes::{DataType, Field, Schema};
use csv::{ByteRecord, ReaderBuilder};

use super::entry::{Entry, ListError, gather};
use super::json_list::{captions_of, is_url};
use crate::corpus::columns::{Roles, TextRole};
use crate::corpus::ingest::json::from_slice;
use crate::corpus::ingest::kind::IMAGE_ENDINGS;
use crate::corpus::ingest::settings::IngestSettings;
use crate::error::DatasetError;

/// What separates columns, if not what the kind says.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Bytes in which the header has to end.
const LONGEST_HEADER: usize = 64 << 10;

/// Indices of a table's columns.
struct Columns {
    path: Option<usize>,
    url: Option<usize>,
    key: Option<usize>,
    captions: Vec<usize>,
}

/// Reads a table; `file` is what errors name.
pub(super) fn read(
    mut reader: impl BufRead,
    separator: u8,
    settings: &IngestSettings,
    file: &str,
) -> Result<Vec<Entry>, ListError> {
    let unreadable = |reason: String| ListError::Unreadable(reason);
    let mut beginning = Vec::new();
    let header = reader.by_ref().take(LONGEST_HEADER as u64).read_to_end(&mut beginning);
    header.map_err(|error| unreadable(error.to_string()))?;
    if beginning.starts_with(&[0xff, 0xfe]) || beginning.starts_with(&[0xfe, 0xff]) {
        return Err(unreadable("it is UTF-16; save it as UTF-8".to_owned()));
    }
    if beginning.trim_ascii().is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    let separator = separator_of(&beginning, separator);
    let mut table = ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .from_reader(std::io::Cursor::new(beginning).chain(reader));
    let header = table.byte_headers().map_err(|error| unreadable(error.to_string()))?.clone();
    let columns = columns_of(&header, settings, file).map_err(|error| match data_in(&header) {
        Some(cell) => unreadable(format!(
            "its first line is no header but data (`{cell}`); write the columns' names above it, such as `image,caption`"
        )),
        None => ListError::Columns(error),
    })?;
    let mut entries = Vec::new();
    let mut record = ByteRecord::new();
    loop {
        match table.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => entries.push(entry_of(&record, header.len(), &columns, separator)),
            Err(error) => return Err(unreadable(error.to_string())),
        }
    }
    Ok(gather(entries))
}

/// What separates the header's columns: what the kind says if it is there, else what is there most often.
fn separator_of(beginning: &[u8], usual: u8) -> u8 {
    let header = beginning.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let count = |separator: u8| header.iter().filter(|byte| **byte == separator).count();
    if count(usual) > 0 {
        return usual;
    }
    let most = SEPARATORS.into_iter().max_by_key(|separator| count(*separator));
    most.filter(|found| count(*found) > 0).unwrap_or(usual)
}

fn columns_of(header: &ByteRecord, settings: &IngestSettings, file: &str) -> Result<Columns, DatasetError> {
    let name = |field: &[u8]| String::from_utf8_lossy(field).trim().to_owned();
    let fields: Vec<_> = header.iter().map(|field| Field::new(name(field), DataType::Utf8, true)).collect();
    let schema = Schema::new(fields);
    let roles = Roles { schema: &schema, names: &settings.columns, file };
    let url = roles.optional(TextRole::Url)?;
    let path = match url {
        // Where the images are called by a template, a URL is enough.
        Some(_) if settings.image_name.is_some() => roles.optional(TextRole::Path)?,
        _ => Some(roles.needed(TextRole::Path)?),
    };
    Ok(Columns { path, url, key: roles.named(&settings.columns.key)?, captions: roles.captions()? })
}

/// A cell of a header that is called like an image.
fn data_in(header: &ByteRecord) -> Option<String> {
    let cells = header.iter().filter_map(|cell| std::str::from_utf8(cell).ok());
    let is_image = |cell: &&str| {
        let ending = cell.trim().rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str()))
    };
    cells.filter(is_image).map(str::to_owned).next()
}

fn entry_of(record: &ByteRecord, width: usize, columns: &Columns, separator: u8) -> Entry {
    if record.len() != width {
        return Entry::faulty(format!("the line has {} columns, the header {width}", record.len()));
    }
    let swallowed = |field: &[u8]| separator == b'\t' && field.contains(&b'\t') && field.contains(&b'\n');
    if record.iter().any(swallowed) {
        return Entry::faulty("a quotation mark that is not closed takes in the lines behind it");
    }
    let cell = |place: usize| std::str::from_utf8(record.get(place).unwrap_or_default());
    let read = || -> Result<Entry, std::str::Utf8Error> {
        let text = |place: Option<usize>| -> Result<Option<String>, std::str::Utf8Error> {
            let text = place.map(cell).transpose()?.map(str::trim);
            Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        let (mut name, mut url) = (text(columns.path)?, text(columns.url)?);
        if name.as_deref().is_some_and(is_url) {
            url = url.or(name.take());
        }
        let mut captions = Vec::new();
        for place in &columns.captions {
            captions = captions_in(cell(*place)?);
            if !captions.is_empty() {
                break;
            }
        }
        Ok(Entry {
            key: text(columns.key)?.or_else(|| name.clone()),
            names: name.into_iter().collect(),
            url,
            captions,
            fault: None,
        })
    };
    read().unwrap_or_else(|_| Entry::faulty("the line is no UTF-8 text"))
}

/// A cell's captions: a list, if it is one in JSON (Flickr30k's), else its text.
fn captions_in(cell: &str) -> Vec<String> {
    let trimmed = cell.trim();
    if trimmed.starts_with("[\"")
        && let Ok(list) = from_slice::<serde_json::Value>(trimmed.as_bytes())
    {
        return captions_of(&list);
    }
    if trimmed.is_empty() { Vec::new() } else { vec![cell.to_owned()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::ingest::kind::SourceKind;

    fn table(text: impl AsRef<[u8]>, separator: u8) -> Result<Vec<Entry>, ListError> {
        read(text.as_ref(), separator, &IngestSettings::new(SourceKind::Csv), "list.csv")
    }

    fn pairs(entries: &[Entry]) -> Vec<(String, String)> {
        entries.iter().map(|entry| (entry.names.join(""), entry.captions.join("|"))).collect()
    }

    fn pair(name: &str, caption: &str) -> (String, String) {
        (name.to_owned(), caption.to_owned())
    }

    #[test]
    fn lines_of_every_end_pair_alike() {
        let lines = [
            "image,caption",
            "a.jpg,\"one, two\"",
            "b.jpg,\"with \"\"quotes\"\"\"",
            "c.jpg,\"two\nlines\"",
            "",
        ];
        for end in ["\n", "\r\n", "\r"] {
            let entries = table(lines.join(end), b',').unwrap();
            let wanted =
                [pair("a.jpg", "one, two"), pair("b.jpg", "with \"quotes\""), pair("c.jpg", "two\nlines")];
            assert_eq!(pairs(&entries), wanted, "{end:?}");
        }
    }

    #[test]
    fn columns_are_found_by_name_and_separator() {
        for (text, separator) in [
            ("\u{feff}caption;file_name\none;a b.jpg\n", b','),
            ("path\tTEXT\na b.jpg\tone\n", b'\t'),
            ("image_name| comment_number| comment\na b.jpg| 0| one\n", b','),
            ("url,filepath,alt_text\nhttp://h/1,a b.jpg,one\n", b','),
            ("raw,filename\n\"[\"\"one\"\"]\",a b.jpg\n", b','),
        ] {
            let entries = table(text, separator).unwrap();
            let found: Vec<_> =
                pairs(&entries).into_iter().map(|(name, text)| (name, text.trim().to_owned())).collect();
            assert_eq!(found, [pair("a b.jpg", "one")], "{text}");
        }
        let error = table("image,captoin\na,b\n", b',').unwrap_err();
        assert!(
            matches!(&error, ListError::Columns(error) if error.to_string().contains("captoin")),
            "{error:?}"
        );
        let error = table("caption,caption,image\na,b,c\n", b',').unwrap_err();
        assert!(matches!(error, ListError::Columns(DatasetError::RepeatedColumn { .. })));
        let error = table("a.jpg,one\nb.jpg,two\n", b',').unwrap_err();
        assert!(matches!(&error, ListError::Unreadable(reason) if reason.contains("no header")), "{error:?}");
        assert!(table("", b',').is_err() && table([0xff, 0xfe, b'a', 0], b',').is_err());
    }

    #[test]
    fn odd_lines_are_rows_of_their_own() {
        let text = b"image,caption\na.jpg,one\nb.jpg\nc.jpg,caf\xe9\nd.jpg,four,more\na.jpg,five\n,none\n";
        let entries = table(text, b',').unwrap();
        assert_eq!(entries[0].captions, ["one", "five"]);
        assert_eq!(entries.iter().filter(|entry| entry.fault.is_some()).count(), 3);
        let swallowing = "image\tcaption\na.jpg\t\"one\nb.jpg\ttwo\nc.jpg\tthree\"\nd.jpg\tfour\n";
        let entries = table(swallowing, b'\t').unwrap();
        assert!(entries[0].fault.as_deref().unwrap().contains("quotation mark"), "{entries:?}");
        assert_eq!(pairs(&entries[1..]), [pair("d.jpg", "four")]);
    }
}
