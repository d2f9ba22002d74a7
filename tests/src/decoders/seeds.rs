//! Inputs as the program's own encoders write them, from which mutations start.

mod files;
mod seed;
mod sessions;
mod sources;

use std::path::PathBuf;

use super::files::corpus_folder;
pub use seed::Seed;
use seed::{refused, taken};

/// What the encoders write for the decoder of this name.
///
/// # Panics
/// There is no such decoder.
pub fn encoded(name: &str) -> Vec<Seed> {
    match name {
        "coordinator_messages" => sessions::coordinator(),
        "member_messages" => sessions::member(),
        "exchange_messages" => sessions::exchange(),
        "checkpoint_part" => files::checkpoint_parts(),
        "checkpoint_commit" => files::commits(),
        "epoch_record" => files::epochs(),
        "manifest" => files::manifests(),
        "quarantine" => files::quarantines(),
        "corpus" => files::corpora(),
        "verification" => sources::verified_files(),
        "archive" => sources::archives(),
        "caption_list" => sources::caption_lists(),
        "caption_lines" => sources::caption_lines(),
        "image" | "training_image" => files::images(),
        "caption" => files::captions(),
        "configuration" => files::configurations(),
        "token" => vec![taken("token", "a long secret\n"), refused("empty", "\n")],
        _ => panic!("{name}: no such decoder"),
    }
}

/// The kept inputs of a decoder: path and bytes, in the order of their names.
///
/// # Panics
/// They cannot be read.
pub fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus_folder(name);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; BLIP2_BLESS=1 writes it", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file's name").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a kept input"))).collect()
}

/// Keeps what the encoders write.
///
/// # Panics
/// It cannot be written.
pub fn bless(name: &str) {
    let folder = corpus_folder(name);
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for seed in encoded(name) {
        std::fs::write(folder.join(&seed.name), &seed.bytes).expect("the input can be written");
    }
}
