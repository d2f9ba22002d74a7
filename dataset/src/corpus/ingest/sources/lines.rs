//! Conceptual Captions: a caption and a URL on a line, with a tab between.

use std::io::{BufRead, BufReader};

use blip2_store::Location;

use super::json_list::is_url;
use super::line_reader;
use super::rows::{Rows, from_thread};
use crate::corpus::ingest::fetch::ObjectReader;
use crate::corpus::ingest::folder::{NameTemplate, key_of};
use crate::corpus::ingest::row::{RejectReason, RowImage, SourceRow};
use crate::corpus::ingest::unit::Unit;
use crate::error::{DatasetError, Result};

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
    while let Some(line) = line_reader::next(&mut reader)? {
        offset += line.length;
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
    // A byte order mark is no part of the first line.
    let unmarked = |line: String| match line.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => line,
    };
    from_thread(move |sender| {
        let mut reader = BufReader::new(reader);
        for row in first_row.. {
            match line_reader::next(&mut reader) {
                Ok(None) => return,
                Ok(Some(line)) => {
                    let line = if row == 0 { line.text.map(unmarked) } else { line.text };
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

fn parse(row: u64, line: Result<String, String>, order: Order, template: Option<&NameTemplate>) -> SourceRow {
    let fields = line.and_then(|line| fields_of(&line, order));
    let key = key_of(row);
    match fields {
        Ok((caption, url)) => {
            let name = template.map(|template| template.fill(row, Some(&url)));
            let image = Ok(RowImage::Named(name.into_iter().collect()));
            SourceRow { row, key, captions: vec![caption], url: Some(url), image }
        }
        Err(reason) => {
            let image = Err((RejectReason::MalformedRow, reason));
            SourceRow { row, key, captions: Vec::new(), url: None, image }
        }
    }
}

/// A line's caption and URL. A caption may have tabs of its own, and other columns may follow.
fn fields_of(line: &str, order: Order) -> Result<(String, String), String> {
    let cut = match order {
        Order::CaptionUrl => {
            line.rmatch_indices('\t').map(|(tab, _)| tab).find(|tab| is_url(&line[tab + 1..]))
        }
        Order::UrlCaption => line.find('\t'),
    };
    let (first, second) = match cut.or_else(|| line.find('\t')) {
        Some(tab) => (&line[..tab], &line[tab + 1..]),
        None => return Err("the line has no tab".to_owned()),
    };
    let (caption, url) = match order {
        Order::CaptionUrl => (first, second.split('\t').next().unwrap_or_default()),
        Order::UrlCaption => (second, first),
    };
    match is_url(url) {
        true => Ok((caption.to_owned(), url.trim().to_owned())),
        false => {
            let short: String = url.chars().take(40).collect();
            Err(format!("`{short}` is no URL; cc3m has the caption first, cc12m the URL"))
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
        while let Some(line) = line_reader::next(&mut reader).unwrap() {
            rows.push(parse(rows.len() as u64, line.text, Order::CaptionUrl, None));
        }
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[0].captions, ["a"]);
        assert_eq!(rows[5].url.as_deref(), Some("https://h/2"));
        let reason = |row: usize| rows[row].image.clone().unwrap_err().1;
        assert!(reason(1).contains("no tab") && reason(2).contains("longer") && reason(3).contains("no URL"));
        assert!(reason(4).contains("no tab"));
        assert!(cut(0, &b""[..], 4).unwrap().is_empty());
    }

    #[test]
    fn captions_with_tabs_and_columns_behind() {
        let fields = |line, order| fields_of(line, order).unwrap();
        let pair = |caption: &str, url: &str| (caption.to_owned(), url.to_owned());
        assert_eq!(fields("a\tb\thttp://h/1", Order::CaptionUrl), pair("a\tb", "http://h/1"));
        assert_eq!(fields("a\thttp://h/1\tmore", Order::CaptionUrl), pair("a", "http://h/1"));
        assert_eq!(fields("http://h/1\ta\tb", Order::UrlCaption), pair("a\tb", "http://h/1"));
    }

    #[test]
    fn units_are_cut_at_every_end_of_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a\thttp://h/1", "b\thttp://h/2", "c\thttp://h/3", ""].join(end);
            let units = cut(0, text.as_bytes(), 2).unwrap();
            let rows: Vec<_> = units.iter().map(|unit| (unit.first_row, unit.rows)).collect();
            assert_eq!(rows, [(0, Some(2)), (2, Some(1))], "{end:?}");
            let second = &text[units[1].bytes.clone().unwrap().start as usize..];
            assert!(second.starts_with("c\t"), "{end:?}: {second:?}");
        }
    }
}
