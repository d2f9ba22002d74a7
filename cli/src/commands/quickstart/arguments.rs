//! What the command line says of a quick start.

use std::path::PathBuf;

use blip2_tensors::device::DeviceName;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct QuickstartArguments {
    /// What to train on.
    #[arg(long, value_enum, default_value_t = Corpus::Scenes)]
    pub(crate) corpus: Corpus,
    /// Fine-tune on questions about the scenes as well, and answer others.
    #[arg(long, value_enum)]
    pub(crate) with: Option<With>,
    /// Scenes to compose and train on.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(256..=1_000_000))]
    pub(crate) scenes: u64,
    /// Folder that gets `report.html`, `run/` and `export/`.
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Set one value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the quick start in `--out`: what is trained is not trained again; starts it where there is
    /// none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a quick start is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Corpus {
    /// Scenes of one to three things, composed first: captions are learnt and can be checked.
    Scenes,
    /// The emoji corpus of `assets/`, measured on concepts never shown: harder.
    Emoji,
}

/// What a quick start does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum With {
    /// Answers to questions.
    Vqa,
}
