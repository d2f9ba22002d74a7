//! What is read from files, objects and rows.

use std::path::Path;
use std::sync::OnceLock;

use blip2_coordinator::{CheckpointRecord, EpochRecord};
use blip2_dataset::{
    ColumnNames, EvalTransform, Manifest, Plan, PlanKey, QuarantineList, TextEncoder, TextEncoding,
    clean_caption, decode_image, read_all,
};
use blip2_worker::{NamedState, WorkerConfig, config_hash};
use bytes::Bytes;

use crate::process::repository;

/// Larger pictures are not what a decoder is tested with.
const MAX_PIXELS: u64 = 1 << 16;
/// Row groups up to which a plan is drawn up.
const PLANNED_GROUPS: usize = 1 << 16;

pub(super) fn checkpoint_part(bytes: &[u8]) -> bool {
    match NamedState::decode("part", &[Bytes::copy_from_slice(bytes)]) {
        Ok(state) => {
            state.digest();
            state.stage() > 0
        }
        Err(_) => false,
    }
}

pub(super) fn checkpoint_commit(bytes: &[u8]) -> bool {
    CheckpointRecord::parse("00000012-000002", bytes).is_ok()
}

pub(super) fn epoch_record(bytes: &[u8]) -> bool {
    EpochRecord::parse("0000000002.json", bytes).is_ok()
}

pub(super) fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::from_parquet(Bytes::copy_from_slice(bytes)) else { return false };
    manifest.digest();
    let groups: usize = manifest.files.iter().map(|file| file.row_groups.len()).sum();
    if groups > PLANNED_GROUPS {
        return true;
    }
    if let Ok(plan) = Plan::new(&manifest, PlanKey { seed: 1, stage: 1 }, 4, 2) {
        for position in [0, 1, plan.part_rows(), u64::from(u32::MAX)] {
            plan.locate(3, position);
        }
    }
    true
}

pub(super) fn quarantine(bytes: &[u8]) -> bool {
    let Ok(list) = QuarantineList::from_parquet(Bytes::copy_from_slice(bytes)) else { return false };
    list.to_parquet().is_ok()
}

pub(super) fn corpus(bytes: &[u8]) -> bool {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder for the file");
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("corpus.parquet");
        std::fs::write(&path, bytes).expect("the file can be written");
        let sources = [path.to_str().expect("temporary folders have UTF-8 names").to_owned()];
        let read =
            RUNTIME.with(|runtime| runtime.block_on(read_all(&sources, &ColumnNames::default(), MAX_PIXELS)));
        read.is_ok_and(|set| !set.samples.is_empty())
    })
}

pub(super) fn image(bytes: &[u8]) -> bool {
    let Ok(picture) = decode_image(bytes, MAX_PIXELS) else { return false };
    EvalTransform::new(32).apply(&picture).is_ok()
}

pub(super) fn caption(bytes: &[u8]) -> bool {
    static TOKENIZER: OnceLock<TextEncoder> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        let folder = repository().join("assets/backbones/qformer-tokenizer");
        TextEncoder::open(&folder, TextEncoding::new(32, 0)).expect("the tokenizer of the small models")
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    tokenizer.encode(&clean_caption(text, 50)).is_ok()
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
