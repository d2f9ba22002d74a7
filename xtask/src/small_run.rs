//! A training run of a few steps on the corpus of the quick start, for checks of devices.

use std::path::{Path, PathBuf};
use std::process::Command;

const SETTINGS: [&str; 9] = [
    "train.slots=2",
    "stage1.batch=8",
    "stage2.batch=8",
    "stage1.optimizer.warmup_steps=2",
    "stage2.optimizer.warmup_steps=2",
    "model.qformer.layers=2",
    "checkpoint.every_steps=100",
    "launch.threads_per_worker=2",
    "launch.restarts=0",
];

/// Gives `program`, which runs `blip2`, the arguments of a run of `steps` steps of both stages at `root`.
pub(crate) fn train(program: &mut Command, device: &str, root: &Path, steps: [usize; 2]) {
    program.args(["train", "--config", "configs/quickstart.toml", "--workers", "1", "--device", device]);
    program.args(["--set", &format!("run.root={}", root.display())]);
    for (stage, steps) in ["stage1", "stage2"].into_iter().zip(steps) {
        program.args(["--set", &format!("{stage}.steps={steps}")]);
    }
    for setting in SETTINGS {
        program.args(["--set", setting]);
    }
}

/// The folder of the repository.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo, in the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Where cargo put this program: the folder of its profile.
pub(crate) fn profile_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_path_buf())
}
