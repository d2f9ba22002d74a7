//! A session as bytes: what happens, one after the other, so that mutations change messages, order and
//! timing.

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// What.
    pub(super) kind: u8,
    /// To whom, or for how long.
    pub(super) number: u8,
    /// With which message.
    pub(super) payload: &'a [u8],
}

/// Bytes before a record's payload: kind, number, and the payload's length in two bytes, little-endian.
const HEADER: usize = 4;

/// Adds a record.
pub(super) fn push(script: &mut Vec<u8>, kind: u8, number: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).expect("messages of a script are short");
    script.extend([kind, number]);
    script.extend(length.to_le_bytes());
    script.extend(payload);
}

/// The records; the last one's payload may be shorter than announced.
pub(super) fn records(mut script: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (&[kind, number, low, high], rest) = script.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        script = rest;
        Some(Record { kind, number, payload })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written_and_cut_off_ones_too() {
        let mut script = Vec::new();
        push(&mut script, 1, 2, b"abc");
        push(&mut script, 3, 4, b"de");
        let first = Record { kind: 1, number: 2, payload: b"abc" };
        let second = Record { kind: 3, number: 4, payload: b"de" };
        assert_eq!(records(&script).collect::<Vec<_>>(), [first, second]);
        let cut: Vec<_> = records(&script[..script.len() - 1]).collect();
        assert_eq!(cut[1].payload, b"d");
        assert_eq!(records(&script[..9]).count(), 1);
    }
}
