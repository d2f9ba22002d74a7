//! A small training run in a folder of its own.

use std::path::{Path, PathBuf};

use crate::process::{Ended, Running, blip2, finish, poll, repository, start};

/// Steps of each stage.
pub const STEPS: u64 = 20;
/// Steps of each stage of a short run.
pub const SHORT_STEPS: u64 = 6;

/// A run's folder and configuration file.
#[derive(Debug)]
pub struct SmallRun {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl SmallRun {
    /// Both stages on the emoji corpus with the small backbones: 20 steps each, batch 8 in 4 slots.
    pub fn new() -> Self {
        Self::on(&[format!("{}/assets/corpus/train-*.parquet", repository().display())])
    }

    /// The same on another corpus.
    pub fn on(corpus: &[String]) -> Self {
        Self::with(corpus, STEPS, "[checkpoint]\nevery_steps = 7\n")
    }

    /// Six steps a stage with a checkpoint every three, for many runs; `settings` is TOML besides.
    pub fn short(settings: &str) -> Self {
        Self::of(SHORT_STEPS, &format!("[checkpoint]\nevery_steps = 3\n{settings}"))
    }

    /// So many steps a stage; `settings` is TOML besides.
    pub fn of(steps: u64, settings: &str) -> Self {
        let corpus = format!("{}/assets/corpus/test-*.parquet", repository().display());
        Self::with(&[corpus], steps, settings)
    }

    fn with(corpus: &[String], steps: u64, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the run");
        let config = folder.path().join("run.toml");
        let text = format!(
            "base = \"{repository}/configs/quickstart.toml\"\n\
             [run]\nroot = \"{root}\"\n\
             [data]\ntrain = {corpus:?}\n\
             [stage1]\nsteps = {steps}\nbatch = 8\n\
             [stage1.optimizer]\nwarmup_steps = 2\n\
             [stage2]\nsteps = {steps}\nbatch = 8\n\
             [stage2.optimizer]\nwarmup_steps = 2\n\
             [model.qformer]\ndropout = 0.1\n\
             {settings}",
            repository = repository().display(),
            root = folder.path().join("run").display(),
        );
        std::fs::write(&config, text).expect("the configuration can be written");
        Self { folder, config }
    }

    /// The run's root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// A folder for other files of the test.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> &str {
        self.config.to_str().expect("temporary folders have UTF-8 names")
    }

    /// Starts `train` with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Running {
        start(blip2(&[&["train", "--config", self.config()], arguments].concat()))
    }

    /// Trains to the end.
    pub fn train(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Waits until so many steps are committed.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_for_step(&self, step: usize) {
        let reached = poll(|| (self.committed() >= step).then_some(()));
        assert!(reached.is_some(), "step {step} was not reached; {} are committed", self.committed());
    }

    /// Committed steps so far.
    pub fn committed(&self) -> usize {
        let text = std::fs::read_to_string(self.root().join("metrics.jsonl")).unwrap_or_default();
        text.lines().count()
    }

    /// The steps of the lines of its metrics, in their order.
    pub fn recorded(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.root().join("metrics.jsonl")).unwrap_or_default();
        let step = |line| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64();
        text.lines().filter_map(step).collect()
    }

    /// The newest membership epoch's number; 0 when there is none.
    pub fn epoch(&self) -> u64 {
        let objects = std::fs::read_dir(self.root().join("epochs")).into_iter().flatten().flatten();
        let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".json")?.parse().ok();
        objects.filter_map(|object| number(object.file_name())).max().unwrap_or(0)
    }

    /// `checkpoint digest` of the newest checkpoint: hash and step.
    pub fn digest(&self) -> (String, u64) {
        let root = self.root();
        let root = root.to_str().expect("temporary folders have UTF-8 names");
        let ended = finish(blip2(&["checkpoint", "digest", root])).expect(0);
        let (hash, step) = ended.stdout.trim().split_once("  ").expect("hash, two spaces, step");
        assert_eq!(hash.len(), 64, "{hash}");
        (hash.to_owned(), step.parse().expect("a step"))
    }
}

impl Default for SmallRun {
    fn default() -> Self {
        Self::new()
    }
}
