//! A training run of a few steps on the corpus of the quick start, for checks of devices.

use std::path::Path;
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
