//! `report.html`: what a run learnt, in one file that needs nothing beside it.

mod bars;
mod chart;
mod histogram;
mod page;
mod run_page;

use std::path::Path;

pub(crate) use bars::{Bar, group as bar_group};
pub(crate) use chart::Series;
pub(crate) use histogram::Histogram;
pub(crate) use page::{document, facts, render};
pub(crate) use run_page::{Chart, RunReport, Table, Tile, render_run};

use crate::error::CliError;

/// All that the report shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) retrieval: RetrievalScores,
    /// For each stage its title, and the losses of every step.
    pub(crate) stages: Vec<(String, Vec<Series>)>,
    /// Absent where no stage writes captions.
    pub(crate) caption_losses: Option<CaptionLosses>,
    pub(crate) pictures: Vec<CaptionedPicture>,
    /// Name and value, in the order shown.
    pub(crate) facts: Vec<(String, String)>,
}

/// Recall at 1, 5 and 10 of held-out names, image to text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RetrievalScores {
    pub(crate) ours: [f64; 3],
    /// The frozen CLIP, if there is one to compare with.
    pub(crate) clip: Option<[f64; 3]>,
    pub(crate) chance: [f64; 3],
    /// Distinct names that are told apart.
    pub(crate) names: usize,
    pub(crate) pictures: usize,
}

/// Mean loss of held-out captions, in nats per token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaptionLosses {
    pub(crate) with_images: f64,
    /// The same captions, each with another caption's picture.
    pub(crate) shuffled: f64,
    /// The language model without any picture.
    pub(crate) language_model: f64,
}

/// A held-out picture, what it is called and what was written for it.
#[derive(Debug, Clone)]
pub(crate) struct CaptionedPicture {
    /// The file's bytes, in a format that browsers show.
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    pub(crate) name: String,
    pub(crate) written: String,
}

/// Writes the report whole or not at all: to a file beside it that is then renamed.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), CliError> {
    write_page(&render(report), path)
}

/// Writes a page whole or not at all.
pub(crate) fn write_page(html: &str, path: &Path) -> Result<(), CliError> {
    let beside = path.with_extension("html.part");
    std::fs::write(&beside, html)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| CliError::failed(format!("{}: cannot write the report: {error}", path.display())))
}
