//! One entry for each decoder that reads bytes from outside: it must not panic, hang or allocate without
//! bound.
//!
//! The coverage-guided targets under `fuzz/` and the short deterministic run of `tests/decoders.rs` call the
//! same entries. An entry says whether the bytes were taken, so that a test can tell that mutations start
//! from real input.

mod files;
mod script;
pub mod seeds;
mod sessions;

/// A decoder with the bounds it is held to.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Name of the target and of its folder below `fuzz/corpus`.
    pub name: &'static str,
    /// Feeds it bytes: whether it took them.
    pub decode: fn(&[u8]) -> bool,
    /// Most memory it may hold at a time besides the input, bytes.
    pub memory: usize,
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

const MIB: usize = 1 << 20;

/// All decoders.
pub const DECODERS: [Decoder; 18] = [
    Decoder { name: "coordinator_messages", decode: sessions::coordinator, memory: 16 * MIB, words: &[] },
    Decoder { name: "member_messages", decode: sessions::member, memory: 16 * MIB, words: &[] },
    Decoder { name: "exchange_messages", decode: sessions::exchange, memory: 16 * MIB, words: &[] },
    Decoder { name: "checkpoint_part", decode: files::checkpoint_part, memory: 16 * MIB, words: &JSON },
    Decoder { name: "checkpoint_commit", decode: files::checkpoint_commit, memory: 16 * MIB, words: &JSON },
    Decoder { name: "epoch_record", decode: files::epoch_record, memory: 16 * MIB, words: &JSON },
    Decoder { name: "manifest", decode: blip2_decoders::manifest, memory: 256 * MIB, words: &PARQUET },
    Decoder { name: "quarantine", decode: blip2_decoders::quarantine, memory: 256 * MIB, words: &PARQUET },
    Decoder { name: "corpus", decode: blip2_decoders::corpus, memory: 256 * MIB, words: &PARQUET },
    Decoder {
        name: "verification",
        decode: blip2_decoders::verification,
        memory: 256 * MIB,
        words: &RECORDED,
    },
    Decoder { name: "archive", decode: blip2_decoders::archive, memory: 16 * MIB, words: &ARCHIVES },
    Decoder { name: "caption_list", decode: blip2_decoders::caption_list, memory: 16 * MIB, words: &LISTS },
    Decoder {
        name: "caption_lines",
        decode: blip2_decoders::caption_lines,
        memory: 16 * MIB,
        words: &["\t", "\n"],
    },
    // A TIFF's header may announce a list of 256 MiB, for which room is made before it is read.
    Decoder { name: "image", decode: blip2_decoders::image, memory: 320 * MIB, words: &PICTURES },
    Decoder {
        name: "training_image",
        decode: blip2_decoders::training_image,
        memory: 320 * MIB,
        words: &PICTURES,
    },
    Decoder {
        name: "caption",
        decode: blip2_decoders::caption,
        memory: 16 * MIB,
        words: &["[SEP]", "[unused0]", "\u{301}"],
    },
    Decoder { name: "configuration", decode: files::configuration, memory: 16 * MIB, words: &TOML },
    Decoder { name: "token", decode: files::token, memory: MIB, words: &["\u{feff}", "\r\n", "\0"] },
];

const JSON: [&str; 8] = ["{}", "[]", "null", "-1", "1e999", "\"\\ud800\"", "18446744073709551616", "\"F32\""];
const PARQUET: [&str; 3] = ["PAR1", "ARROW:schema", "parquet-rs"];
const RECORDED: [&str; 4] = ["PAR1", "blip2.row_groups", "\"offset\":", "\"blake3\":"];
const ARCHIVES: [&str; 4] = ["ustar", "././@LongLink", "0000777", ".jpg"];
const LISTS: [&str; 6] = ["{\"images\":[", "\"caption\":", "[[[[", "null", "\"\\ud800\"", "1e999"];
const PICTURES: [&str; 8] = ["IHDR", "IDAT", "RIFF", "VP8X", "GIF89a", "\u{7f}", "II*\0", "MM\0*"];
const TOML: [&str; 8] = ["[[a]]", "a.b.c.d=", "\"\"\"", "inf", "nan", "1979-05-27", "{ a = [", "base = "];

/// The decoder of this name.
pub fn decoder(name: &str) -> Option<&'static Decoder> {
    DECODERS.iter().find(|decoder| decoder.name == name)
}

/// Feeds bytes to the decoder of this name, for a coverage-guided target.
///
/// # Panics
/// There is no such decoder, or it has a fault.
pub fn fuzz(name: &str, bytes: &[u8]) {
    let decoder = decoder(name).expect("the target is named as in the table");
    (decoder.decode)(bytes);
}
