//! `quickstart`: all stages on scenes or on the emoji corpus, then export, evaluation and the report.

pub(crate) mod arguments;
mod emoji;
mod ends;
mod facts;
mod preparation;
mod scenes;
mod survival;

use blip2_run::exit::Exit;

use self::arguments::{Corpus, QuickstartArguments};
use crate::error::CliError;

/// Trains, exports, evaluates, reports.
pub(crate) async fn run(mut arguments: QuickstartArguments) -> Result<Exit, CliError> {
    arguments.set.extend(arguments.device.map(|device| format!("train.device={device}")));
    match arguments.corpus {
        Corpus::Scenes => scenes::run(arguments).await,
        Corpus::Emoji if arguments.with.is_some() => Err(CliError::usage(
            "--with vqa: the emoji corpus has no questions; leave --corpus emoji out".to_owned(),
        )),
        Corpus::Emoji => emoji::run(arguments).await,
    }
}
