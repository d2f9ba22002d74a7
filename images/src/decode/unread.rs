//! Names of what is not read, by its first bytes.

/// What the bytes are, if it is known and not read.
pub(super) fn name_of(encoded: &[u8]) -> Option<&'static str> {
    // Files of ISO's base format name their kind behind a length.
    if encoded.get(4..8) == Some(b"ftyp".as_slice()) {
        return match encoded.get(8..12)? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => Some("HEIF"),
            b"jp2 " | b"jpx " => Some("JPEG 2000"),
            _ => Some("a film"),
        };
    }
    let known: [(&[u8], &str); 22] = [
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\xff\xd8\xff\xf7", "JPEG-LS"),
        (b"<svg", "SVG"),
        (b"<?xml", "XML"),
        (b"<!DOCTYPE", "a web page"),
        (b"<!doctype", "a web page"),
        (b"<html", "a web page"),
        (b"%PDF", "PDF"),
        (b"8BPS", "a Photoshop document"),
        (b"\0\0\x01\0", "an icon"),
        (b"P4", "PNM"),
        (b"P5", "PNM"),
        (b"P6", "PNM"),
        (b"DDS ", "DDS"),
        (b"v/1\x01", "OpenEXR"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"\x1aE\xdf\xa3", "a film"),
    ];
    let start = encoded.trim_ascii_start();
    known
        .into_iter()
        .find(|(magic, _)| encoded.starts_with(magic) || start.starts_with(magic))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_has_a_name() {
        for (encoded, name) in [
            (&b"\0\0\0\x1cftypavif\0\0\0\0"[..], "AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\n <svg xmlns", "SVG"),
            (b"<!DOCTYPE html>", "a web page"),
        ] {
            assert_eq!(name_of(encoded), Some(name));
        }
        for encoded in [&b""[..], b"\xff\xd8\xff\xe0", b"ftyp", b"\0\0\0\x1cftyp"] {
            assert_eq!(name_of(encoded), None, "{encoded:?}");
        }
    }
}
