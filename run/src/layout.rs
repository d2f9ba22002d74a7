//! The name of everything that lies in a run's folder.
//!
//! | name | what it is |
//! |---|---|
//! | `run.toml` | the configuration, itself a configuration file; it says that the run is complete |
//! | `manifest.parquet` | the pinned corpus |
//! | `epochs/NUMBER.json` | membership epochs |
//! | `checkpoints/STEP-EPOCH/` | a checkpoint: its shards, `quarantine.parquet`, and `COMMIT`, which makes it one |
//! | `quarantine.parquet` | the rows that the run could not use |
//! | `corpus/` | what archives of the corpus were converted to |
//! | `metrics.jsonl`, `faults.jsonl` | committed steps and faults, where the run lies on this machine |
//! | `metrics/EPOCH-STEP.jsonl` | committed steps, where it lies in a store: segments from a step on |
//! | `faults/EPOCH-NUMBER.jsonl` | faults, where it lies in a store: segments of what a coordinator noticed |
//! | `tensorboard/` | committed steps for TensorBoard |
//! | `report.html` | the page of the run |
//! | `logs/` | logs of the processes of one machine, with the run's `token` while it is led there |

use blip2_store::Location;

/// The configuration of a run.
pub const CONFIGURATION: &str = "run.toml";
/// The pinned corpus.
pub const MANIFEST: &str = "manifest.parquet";
/// The folder of the membership epochs.
pub const EPOCHS: &str = "epochs";
/// The folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The object that makes a checkpoint.
pub const COMMIT: &str = "COMMIT";
/// The list of quarantined rows, in a checkpoint's folder and in the run's.
pub const QUARANTINE: &str = "quarantine.parquet";
/// The folder of what archives of the corpus were converted to.
pub const CONVERTED: &str = "corpus";
/// One line for every committed step.
pub const METRICS: &str = "metrics.jsonl";
/// The folder of the segments, for a run in a store.
pub const SEGMENTS: &str = "metrics";
/// The folder of what TensorBoard reads.
pub const TENSORBOARD: &str = "tensorboard";
/// One line for every fault, beside the metrics.
pub const FAULTS: &str = "faults.jsonl";
/// The folder of the segments of faults, for a run in a store.
pub const FAULT_SEGMENTS: &str = "faults";
/// The page of the run.
pub const REPORT: &str = "report.html";
/// The folder of the logs, on the machine that leads the run.
pub const LOGS: &str = "logs";
/// The run's token, among the logs.
pub const TOKEN: &str = "token";

/// The object of a membership epoch, in the folder of the epochs. Names sort as numbers.
pub fn epoch_name(epoch: u64) -> String {
    format!("{epoch:010}.json")
}

/// The epoch of an object in the folder of the epochs.
pub fn parse_epoch_name(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

/// The object of a membership epoch of the run in `run_root`.
pub fn epoch_object(run_root: &Location, epoch: u64) -> Location {
    run_root.join(EPOCHS).join(&epoch_name(epoch))
}

/// The name of the checkpoint after `step` committed steps, written in `epoch`. Names sort as (step, epoch).
pub fn checkpoint_name(step: u64, epoch: u64) -> String {
    format!("{step:08}-{epoch:06}")
}

/// Step and epoch of a checkpoint's name.
pub fn parse_checkpoint_name(name: &str) -> Option<(u64, u64)> {
    let (step, epoch) = name.split_once('-')?;
    Some((step.parse().ok()?, epoch.parse().ok()?))
}

/// The segment of committed steps, or of a coordinator's faults, from number `first` on, begun in `epoch`.
/// Names sort as (epoch, first).
pub fn segment_name(epoch: u64, first: u64) -> String {
    format!("{epoch:010}-{first:010}.jsonl")
}

/// Epoch and first number of a segment's name.
pub fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (epoch, first) = name.strip_suffix(".jsonl")?.split_once('-')?;
    Some((epoch.parse().ok()?, first.parse().ok()?))
}

/// The folder of a checkpoint of the run in `run_root`.
pub fn checkpoint_folder(run_root: &Location, name: &str) -> Location {
    run_root.join(CHECKPOINTS).join(name)
}

/// The name of shard `index` of `count`, in a checkpoint's folder.
pub fn shard_name(index: u32, count: u32) -> String {
    format!("part-{index:05}-of-{count:05}.safetensors")
}

/// Whether a shard's name is that of an object directly in the checkpoint's folder, and of no other object in
/// it.
pub fn is_shard_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name != COMMIT
        && name != QUARANTINE
        && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored runs have these names.
    #[test]
    fn names_are_pinned_and_read_back() {
        assert_eq!(epoch_name(12), "0000000012.json");
        assert_eq!((parse_epoch_name("0000000012.json"), parse_epoch_name("12")), (Some(12), None));
        assert_eq!(checkpoint_name(40, 3), "00000040-000003");
        assert_eq!(parse_checkpoint_name("00000040-000003"), Some((40, 3)));
        assert_eq!((parse_checkpoint_name("latest"), parse_checkpoint_name("40-")), (None, None));
        assert_eq!(segment_name(3, 40), "0000000003-0000000040.jsonl");
        assert_eq!(parse_segment_name("0000000003-0000000040.jsonl"), Some((3, 40)));
        assert_eq!(parse_segment_name("0000000003.jsonl"), None);
        assert_eq!(shard_name(1, 4), "part-00001-of-00004.safetensors");
        let root = Location::parse("/runs/a").expect("a local path");
        assert!(epoch_object(&root, 7).to_string().ends_with("/runs/a/epochs/0000000007.json"));
        assert!(
            checkpoint_folder(&root, "00000040-000003").join(COMMIT).to_string().ends_with("-000003/COMMIT")
        );
    }

    #[test]
    fn a_shard_is_no_other_object_and_leads_nowhere_else() {
        assert!(is_shard_name(&shard_name(0, 1)));
        for name in ["", ".", "..", "a/b", COMMIT, QUARANTINE, "a b", &"x".repeat(129)] {
            assert!(!is_shard_name(name), "{name:?}");
        }
    }
}
