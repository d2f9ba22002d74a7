//! `report.html`: what a run learnt, in one file that needs nothing beside it.

mod bars;
mod chart;
mod document;
mod histogram;
mod page;
mod run_page;

use std::path::Path;

pub(crate) use bars::{Bar, group as bar_group};
pub(crate) use chart::Series;
pub(crate) use document::{document, facts, tile};
pub(crate) use histogram::Histogram;
pub(crate) use page::{CaptionLosses, CaptionedPicture, Report, RetrievalScores, render};
pub(crate) use run_page::{Chart, RunReport, Table, Tile, render_run};

use crate::error::CliError;

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
