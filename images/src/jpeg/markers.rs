//! Markers, which begin the segments of a JPEG.

/// Whether a JPEG's segments are followed to its end marker. The decoder fills what is missing with grey, so
/// a truncated file must be found by its structure.
pub(crate) fn jpeg_is_complete(encoded: &[u8]) -> bool {
    let mut at = 2;
    while let Some(marker) = next_marker(encoded, at) {
        let (kind, after) = marker;
        match kind {
            END_OF_IMAGE => return true,
            // Markers without a length: restarts inside the entropy-coded data, and temporary ones.
            0x01 | 0xd0..=0xd8 => at = after,
            _ => match encoded.get(after..after + 2) {
                Some(length) => at = after + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// JPEG's EOI.
const END_OF_IMAGE: u8 = 0xd9;

/// The next marker at or after `at` and the position behind it; entropy-coded bytes (`ff 00`) and fill are
/// passed over.
pub(crate) fn next_marker(encoded: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += memchr::memchr(0xff, encoded.get(at..)?)?;
        match encoded.get(at + 1)? {
            0x00 => at += 2,
            0xff => at += 1,
            kind => return Some((*kind, at + 2)),
        }
    }
}
