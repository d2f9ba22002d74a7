//! Lines that end with LF, CR LF or CR, as the readers of these lists take them.

use std::io::BufRead;

/// Longest line that is used, bytes.
pub(super) const MAX_LINE: usize = 1 << 20;

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    /// Bytes that it takes, with its end.
    pub(super) length: u64,
    /// Its text, or why it cannot be used.
    pub(super) text: Result<String, String>,
}

/// The next line; `None` at the end.
pub(super) fn next(reader: &mut impl BufRead) -> std::io::Result<Option<Line>> {
    let mut content = Vec::new();
    let mut length = 0u64;
    let mut long = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.unwrap_or(buffer.len());
        let room = MAX_LINE.saturating_sub(content.len());
        long |= taken > room;
        content.extend_from_slice(&buffer[..taken.min(room)]);
        let return_ends_it = end.is_some_and(|end| buffer[end] == b'\r');
        let used = end.map_or(taken, |end| end + 1);
        reader.consume(used);
        length += used as u64;
        if end.is_some() {
            if return_ends_it && reader.fill_buf()?.first() == Some(&b'\n') {
                reader.consume(1);
                length += 1;
            }
            break;
        }
    }
    if length == 0 {
        return Ok(None);
    }
    let text = match long {
        true => Err(format!("the line is longer than {MAX_LINE} bytes")),
        false => String::from_utf8(content).map_err(|error| match error.as_bytes() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the list is UTF-16; save it as UTF-8".to_owned(),
            _ => "the line is no UTF-8 text".to_owned(),
        }),
    };
    Ok(Some(Line { length, text }))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn every_end_of_a_line_is_one() {
        let content = b"a\nb\r\nc\rd\r\r\n\ne";
        for capacity in [1, 2, 100] {
            let mut reader = BufReader::with_capacity(capacity, &content[..]);
            let (mut lines, mut total) = (Vec::new(), 0);
            while let Some(line) = next(&mut reader).unwrap() {
                total += line.length;
                lines.push(line.text.unwrap());
            }
            assert_eq!(lines, ["a", "b", "c", "d", "", "", "e"], "{capacity}");
            assert_eq!(total, content.len() as u64);
        }
    }

    #[test]
    fn lines_that_cannot_be_used_are_passed_over_whole() {
        let long = [b"x".repeat(3 << 20), b"\nok\n\xff\xfea\n\xe9\n".to_vec()].concat();
        let mut reader = &long[..];
        let mut reason = || next(&mut reader).unwrap().map(|line| line.text);
        assert!(reason().unwrap().unwrap_err().contains("longer"));
        assert_eq!(reason().unwrap().unwrap(), "ok");
        assert!(reason().unwrap().unwrap_err().contains("UTF-16"));
        assert!(reason().unwrap().unwrap_err().contains("no UTF-8"));
        assert!(reason().is_none());
    }
}
