//! JSON as programs write it who do not keep to the letter: a byte order mark, `NaN` and `Infinity`, line
//! breaks within texts, half of a surrogate pair, bytes that are no UTF-8. None of it is to end a list.

use std::io::{BufRead, Read};

use serde::de::DeserializeOwned;

/// What stands in the place of what is no character.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
/// Longest run of letters that is looked at as a word.
const LONGEST_WORD: usize = 16;

/// One value out of tolerant JSON.
pub(super) fn from_slice<T: DeserializeOwned>(content: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_reader(TolerantJson::new(content))
}

/// Gives JSON to the letter of what a reader has.
pub(super) struct TolerantJson<R> {
    reader: R,
    place: Place,
    /// Bytes that belong together and are not whole yet.
    held: Vec<u8>,
    ready: Vec<u8>,
    given: usize,
}

/// Where in the text the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the very beginning, with so many bytes of a byte order mark seen.
    Start,
    Outside,
    /// In a word: a number, `null`, `NaN`. It is in `held`.
    Word,
    Text,
    /// Behind a `\` in a text.
    Escape,
    /// Behind `\u`, whose digits are in `held`; with the first half of a pair, if one came before.
    Unicode(Option<u16>),
    /// Behind the first half of a pair, and behind the `\` that follows it.
    Half(u16),
    HalfEscape(u16),
    /// In a character of several bytes, which are in `held`.
    Character,
}

impl<R: BufRead> TolerantJson<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, place: Place::Start, held: Vec::new(), ready: Vec::new(), given: 0 }
    }

    fn feed(&mut self, byte: u8) {
        match self.place {
            Place::Start => self.start(byte),
            Place::Outside => self.outside(byte),
            Place::Word => self.word(byte),
            Place::Text => self.text(byte),
            Place::Escape => self.escape(byte),
            Place::Unicode(first) => self.unicode(byte, first),
            Place::Half(first) if byte == b'\\' => self.place = Place::HalfEscape(first),
            Place::Half(_) => {
                self.ready.extend_from_slice(REPLACEMENT);
                self.text(byte);
            }
            Place::HalfEscape(first) if byte == b'u' => self.place = Place::Unicode(Some(first)),
            Place::HalfEscape(_) => {
                self.ready.extend_from_slice(REPLACEMENT);
                self.escape(byte);
            }
            Place::Character => self.character(byte),
        }
    }

    fn start(&mut self, byte: u8) {
        self.held.push(byte);
        let mark = "\u{feff}".as_bytes();
        if self.held == mark {
            self.held.clear();
            self.place = Place::Outside;
        } else if !mark.starts_with(&self.held) {
            self.place = Place::Outside;
            for byte in std::mem::take(&mut self.held) {
                self.outside(byte);
            }
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.ready.push(byte);
                self.place = Place::Text;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.' => {
                self.held.push(byte);
                self.place = Place::Word;
            }
            _ => {
                self.ready.push(byte);
                self.place = Place::Outside;
            }
        }
    }

    fn word(&mut self, byte: u8) {
        let goes_on = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if goes_on && self.held.len() < LONGEST_WORD {
            self.held.push(byte);
            return;
        }
        self.end_word();
        self.outside(byte);
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.held);
        let value: &[u8] = match word.trim_ascii_start() {
            b"NaN" | b"nan" | b"NAN" | b"None" | b"undefined" => b"null",
            b"Infinity" | b"-Infinity" | b"+Infinity" | b"inf" | b"-inf" | b"Inf" | b"-Inf" => b"null",
            b"True" => b"true",
            b"False" => b"false",
            word => word,
        };
        self.ready.extend_from_slice(value);
        self.place = Place::Outside;
    }

    fn text(&mut self, byte: u8) {
        self.place = Place::Text;
        match byte {
            b'"' => {
                self.ready.push(byte);
                self.place = Place::Outside;
            }
            b'\\' => self.place = Place::Escape,
            0..0x20 => self.ready.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            0x80.. => {
                self.held.push(byte);
                self.place = Place::Character;
                self.whole_character();
            }
            _ => self.ready.push(byte),
        }
    }

    fn character(&mut self, byte: u8) {
        if byte & 0xc0 != 0x80 {
            // It ended too early.
            self.held.clear();
            self.ready.extend_from_slice(REPLACEMENT);
            self.text(byte);
            return;
        }
        self.held.push(byte);
        self.whole_character();
    }

    /// Gives the character that is held, once it has all its bytes.
    fn whole_character(&mut self) {
        let length = match self.held[0] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        if self.held.len() < length {
            return;
        }
        let whole = std::mem::take(&mut self.held);
        let is_text = std::str::from_utf8(&whole).is_ok();
        self.ready.extend_from_slice(if is_text { &whole } else { REPLACEMENT });
        self.place = Place::Text;
    }

    fn escape(&mut self, byte: u8) {
        self.place = Place::Text;
        match byte {
            b'u' => self.place = Place::Unicode(None),
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.ready.extend([b'\\', byte]),
            // No escape at all: both are characters.
            _ => {
                self.ready.extend_from_slice(b"\\\\");
                self.text(byte);
            }
        }
    }

    fn unicode(&mut self, byte: u8, first: Option<u16>) {
        if !byte.is_ascii_hexdigit() {
            // Too few digits: what was there is no character.
            self.held.clear();
            self.ready.extend_from_slice(REPLACEMENT);
            self.text(byte);
            return;
        }
        self.held.push(byte);
        if self.held.len() < 4 {
            return;
        }
        let digits = std::mem::take(&mut self.held);
        // Four hexadecimal digits.
        let unit = digits.iter().fold(0u16, |unit, digit| {
            (unit << 4) | char::from(*digit).to_digit(16).map_or(0, |digit| digit as u16)
        });
        self.place = Place::Text;
        let is_second = (0xdc00..0xe000).contains(&unit);
        match (first, unit) {
            (Some(first), second) if is_second => {
                self.ready.extend_from_slice(format!("\\u{first:04x}\\u{second:04x}").as_bytes());
            }
            (first, unit) => {
                if first.is_some() {
                    self.ready.extend_from_slice(REPLACEMENT);
                }
                match unit {
                    0xd800..0xdc00 => self.place = Place::Half(unit),
                    _ if is_second => self.ready.extend_from_slice(REPLACEMENT),
                    unit => self.ready.extend_from_slice(format!("\\u{unit:04x}").as_bytes()),
                }
            }
        }
    }

    /// What is held when nothing follows.
    fn end(&mut self) {
        match self.place {
            Place::Word => self.end_word(),
            _ => self.ready.append(&mut self.held),
        }
    }
}

impl<R: BufRead> Read for TolerantJson<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            let chunk = self.reader.fill_buf()?.to_vec();
            if chunk.is_empty() {
                self.end();
                if self.ready.is_empty() {
                    return Ok(0);
                }
                break;
            }
            chunk.iter().for_each(|byte| self.feed(*byte));
            self.reader.consume(chunk.len());
        }
        let length = buffer.len().min(self.ready.len() - self.given);
        buffer[..length].copy_from_slice(&self.ready[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use serde_json::{Value, json};

    use super::*;

    /// Read whole, and byte by byte.
    fn read(content: &[u8]) -> Result<Value, serde_json::Error> {
        let at_once = from_slice::<Value>(content)?;
        let bytewise: Value =
            serde_json::from_reader(TolerantJson::new(BufReader::with_capacity(1, content)))?;
        assert_eq!(at_once, bytewise);
        Ok(at_once)
    }

    #[test]
    fn json_to_the_letter_stays_as_it_is() {
        let text = r#"{"a":[1,-2.5e+10,true,false,null,"NaN, \"x\" \\ \u00e9 \ud83d\ude00 ü \n"],"b":{}}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_programs_write_is_read() {
        for (content, wanted) in [
            (&b"\xef\xbb\xbf{\"a\":1}"[..], json!({"a": 1})),
            (b"[NaN,Infinity,-Infinity,None,True]", json!([null, null, null, null, true])),
            (b"{\"a\":NaN,\"b\":\"NaN\"}", json!({"a": null, "b": "NaN"})),
            (b"[\"a\nb\tc\"]", json!(["a\nb\tc"])),
            (b"[\"a\\ud83d\"]", json!(["a\u{fffd}"])),
            (b"[\"\\ud83dx\"]", json!(["\u{fffd}x"])),
            (b"[\"\\ud83d\\n\"]", json!(["\u{fffd}\n"])),
            (b"[\"\\ude00\\ud83d\\ud83d\\ude00\"]", json!(["\u{fffd}\u{fffd}\u{1f600}"])),
            (b"[\"caf\xe9\", \"\xe2\x82\"]", json!(["caf\u{fffd}", "\u{fffd}"])),
            (b"[\"it\\'s \\x\"]", json!(["it\\'s \\x"])),
            (b"NaN", json!(null)),
        ] {
            assert_eq!(read(content).unwrap(), wanted, "{}", String::from_utf8_lossy(content));
        }
        for content in [&b""[..], b"\xef\xbb", b"[", b"[1,]", b"[\"a", b"{\"a\":nonsense}", b"[\"\\u12"] {
            assert!(read(content).is_err(), "{}", String::from_utf8_lossy(content));
        }
    }
}
