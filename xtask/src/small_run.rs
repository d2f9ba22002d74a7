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

/// Where and how long is trained.
pub(crate) struct SmallRun<'a> {
    pub(crate) device: &'a str,
    pub(crate) workers: usize,
    pub(crate) root: &'a Path,
    /// Of each stage.
    pub(crate) steps: [usize; 2],
}

/// Gives `program`, which runs `blip2`, the arguments of a run.
pub(crate) fn train(program: &mut Command, run: &SmallRun<'_>) {
    let SmallRun { device, workers, root, steps } = run;
    program.args(["train", "--config", "configs/quickstart.toml", "--device", device]);
    program.args(["--workers", &workers.to_string()]);
    program.args(["--set", &format!("run.root={}", root.display())]);
    for (stage, steps) in ["stage1", "stage2"].into_iter().zip(steps) {
        program.args(["--set", &format!("{stage}.steps={steps}")]);
    }
    for setting in SETTINGS {
        program.args(["--set", setting]);
    }
}
