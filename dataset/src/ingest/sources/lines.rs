//! Conceptual Captions: a caption and a URL on a line, with a tab between.

use std::io::{BufRead, BufReader, Read};

use crate::error::{DatasetError, Result};
use crate::ingest::fetch::ObjectReader;
use crate::ingest::folder::{NameTemplate, key_of};
use crate::ingest::job::Unit;
use crate::ingest::row::{Picture, RejectReason, SourceRow};
use crate::ingest::sources::{Rows, from_thread};
use crate::store::Location;

/// Longer lines are not used, bytes.
const MAX_LINE: u64 = 1 << 20;

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    CaptionUrl,
    UrlCaption,
}

/// Cuts a source at ends of lines: it is read once.
pub(super) async fn units(
    source: usize,
    location: &Location,
    bytes: u64,
    unit_rows: u64,
) -> Result<Vec<Unit>> {
    let (reader, failure) = ObjectReader::start(location, 0..bytes);
    let counted = tokio::task::spawn_blocking(move || cut(source, BufReader::new(reader), unit_rows)).await;
    let counted = counted.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
    counted.map_err(|error| {
        let malformed = || DatasetError::Malformed { what: "list", reason: error.to_string() };
        failure.take().unwrap_or_else(malformed)
    })
}

fn cut(source: usize, mut reader: impl BufRead, unit_rows: u64) -> std::io::Result<Vec<Unit>> {
    let mut units = Vec::new();
    let (mut offset, mut start, mut row, mut first_row) = (0u64, 0u64, 0u64, 0u64);
    let mut unit = |first_row, rows, bytes| {
        units.push(Unit { source, first_row, rows: Some(rows), bytes: Some(bytes) });
    };
    loop {
        let length = reader.skip_until(b'\n')? as u64;
        if length == 0 {
            break;
        }
        offset += length;
        row += 1;
        if row - first_row == unit_rows {
            unit(first_row, unit_rows, start..offset);
            (first_row, start) = (row, offset);
        }
    }
    if row > first_row {
        unit(first_row, row - first_row, start..offset);
    }
    Ok(units)
}

pub(super) fn rows(location: &Location, unit: &Unit, order: Order, template: Option<NameTemplate>) -> Rows {
    let (reader, failure) = ObjectReader::start(location, unit.bytes.clone().unwrap_or_default());
    let first_row = unit.first_row;
    from_thread(move |sender| {
        let mut reader = BufReader::new(reader);
        for row in first_row.. {
            match next_line(&mut reader) {
                Ok(None) => return,
                Ok(Some(line)) => {
                    if !sender.send(Ok(parse(row, line, order, template.as_ref()))) {
                        return;
                    }
                }
                Err(error) => {
                    let malformed = || DatasetError::Malformed { what: "list", reason: error.to_string() };
                    sender.send(Err(failure.take().unwrap_or_else(malformed)));
                    return;
                }
            }
        }
    })
}

/// The next line without its end; `Err` inside if it cannot be used.
fn next_line(reader: &mut impl BufRead) -> std::io::Result<Option<Result<String, String>>> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
        return Ok(Some(Err(format!("the line is longer than {MAX_LINE} bytes"))));
    }
    let text = String::from_utf8(line).map_err(|_| "the line is no UTF-8 text".to_owned());
    Ok(Some(text.map(|text| text.trim_end_matches(['\n', '\r']).to_owned())))
}

fn parse(row: u64, line: Result<String, String>, order: Order, template: Option<&NameTemplate>) -> SourceRow {
    let fields = line.and_then(|line| {
        let (first, second) = line.split_once('\t').ok_or("the line has no tab")?;
        let (caption, url) = match order {
            Order::CaptionUrl => (first, second),
            Order::UrlCaption => (second, first),
        };
        match url.starts_with("http://") || url.starts_with("https://") {
            true => Ok((caption.to_owned(), url.trim().to_owned())),
            false => {
                let short: String = url.chars().take(40).collect();
                Err(format!("`{short}` is no URL; cc3m has the caption first, cc12m the URL"))
            }
        }
    });
    let key = key_of(row);
    match fields {
        Ok((caption, url)) => {
            let name = template.map(|template| template.fill(row, Some(&url)));
            let picture = Ok(Picture::Named(name.into_iter().collect()));
            SourceRow { row, key, captions: vec![caption], url: Some(url), picture }
        }
        Err(reason) => {
            let picture = Err((RejectReason::MalformedRow, reason));
            SourceRow { row, key, captions: Vec::new(), url: None, picture }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_read() {
        let long = "x".repeat(3 << 20);
        let text = format!("a\thttp://h/1\r\nno tab\n{long}\n\u{0}b\tftp://h\n\nlast\thttps://h/2");
        let units = cut(0, text.as_bytes(), 4).unwrap();
        let sizes: Vec<_> = units.iter().map(|unit| (unit.first_row, unit.rows)).collect();
        assert_eq!(sizes, [(0, Some(4)), (4, Some(2))]);
        assert_eq!(units[1].bytes.clone().unwrap().end, text.len() as u64);
        let mut reader = text.as_bytes();
        let mut rows = Vec::new();
        while let Some(line) = next_line(&mut reader).unwrap() {
            rows.push(parse(rows.len() as u64, line, Order::CaptionUrl, None));
        }
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[0].captions, ["a"]);
        assert_eq!(rows[5].url.as_deref(), Some("https://h/2"));
        let reason = |row: usize| rows[row].picture.clone().unwrap_err().1;
        assert!(reason(1).contains("no tab") && reason(2).contains("longer") && reason(3).contains("no URL"));
        assert!(reason(4).contains("no tab"));
        assert!(cut(0, &b""[..], 4).unwrap().is_empty());
    }
}
