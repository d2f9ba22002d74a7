//! What is read from the files and objects of a run.

use std::path::Path;

use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochRecord;
use blip2_worker::{NamedState, WorkerConfig, config_hash};
use bytes::Bytes;

use crate::process::repository;

pub(super) fn checkpoint_part(bytes: &[u8]) -> bool {
    match NamedState::decode("part", &[Bytes::copy_from_slice(bytes)]) {
        Ok(state) => !state.digest().is_empty(),
        Err(_) => false,
    }
}

pub(super) fn checkpoint_commit(bytes: &[u8]) -> bool {
    CheckpointRecord::parse("00000012-000002", bytes).is_ok()
}

pub(super) fn epoch_record(bytes: &[u8]) -> bool {
    EpochRecord::parse("0000000002.json", bytes).is_ok()
}

/// A file of the command line, a stored run's, and what a coordinator sends to its workers.
pub(super) fn configuration(bytes: &[u8]) -> bool {
    // The folders of the models are looked for last, and not here.
    let complete = |checked: Result<(), String>| {
        checked.err().is_none_or(|message| message.contains("there is no such folder"))
    };
    let stored = complete(blip2_cli::check_run_file(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Ok(config) = toml::from_str::<WorkerConfig>(text) {
        config_hash(&config);
    }
    complete(blip2_cli::check_configuration(text)) || stored
}

pub(super) fn token(bytes: &[u8]) -> bool {
    blip2_cli::check_token(bytes).is_ok()
}

/// Where the kept inputs of a decoder lie.
pub(super) fn corpus_folder(name: &str) -> std::path::PathBuf {
    Path::new(&repository()).join("fuzz/corpus").join(name)
}
