//! `curate report`: what was kept and dropped, and why.

use std::path::PathBuf;

use blip2_curation::job::CurationJob;
use blip2_curation::report::CurationFigures;
use clap::Args;

use super::page::render;
use crate::commands::print_json;
use crate::error::CliError;
use crate::places::typed_location;
use crate::report::write_page;
use crate::typed_numbers;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Folder or prefix of the curation.
    #[arg(value_name = "DIR_OR_URL")]
    output: String,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "curation.html")]
    out: PathBuf,
    /// Pictures shown with their texts.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = typed_numbers::count)]
    pictures: usize,
    /// What an hour of all machines costs, for the cost of a million pictures.
    #[arg(long, value_name = "PRICE", value_parser = typed_numbers::price)]
    price_per_hour: Option<f64>,
    /// Print the figures as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Reads the scores and draws the page.
pub(super) async fn run(arguments: ReportArguments) -> Result<Exit, CliError> {
    let job = CurationJob::open(&typed_location(&arguments.output)?).await?;
    let figures = CurationFigures::read(&job, arguments.pictures, arguments.price_per_hour).await?;
    write_page(&render(&figures), &arguments.out)?;
    match arguments.json {
        true => print_json(&figures)?,
        false => eprintln!(
            "{}: {} of {} rows keep a text",
            arguments.out.display(),
            figures.kept_rows,
            figures.scored
        ),
    }
    Ok(Exit::Done)
}
