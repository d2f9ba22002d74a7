//! METEOR 1.5: the program finds what matches, one image at a time.

use std::ffi::OsString;
use std::path::Path;

use crate::error::tools::Result;
use crate::metrics::captions::corpus::{ImageCaptions, TokenCorpus};
use crate::metrics::captions::meteor::{MeteorStatistics, STATISTICS};

use super::java::{Java, Running, Tool};

const TOOL: Tool = Tool { name: "METEOR", jar: "meteor-1.5.jar", subfolder: "meteor" };
/// How far the program's own score of the set may be from the formula's.
const CLOSE: f64 = 1e-6;
/// Images are scored while earlier answers are still on their way, at most this many.
const AHEAD: usize = 64;

/// Of each image the program's counts with the reference that fits best.
///
/// # Errors
/// No Java, no jar, a program that fails, waits, or answers something else; a program whose own score of the
/// set is not the formula's, as one with other weights.
pub fn statistics(corpus: &TokenCorpus, folder: &Path, java: &Java) -> Result<Vec<MeteorStatistics>> {
    let folder = TOOL.folder(folder)?;
    let arguments =
        ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", TOOL.jar, "-", "-", "-stdio", "-l", "en", "-norm"];
    let mut program = java.start(TOOL, &folder, arguments.map(OsString::from))?;
    let (mut statistics, mut evaluated) = (Vec::with_capacity(corpus.images().len()), "EVAL".to_owned());
    let mut asked = corpus.images().iter();
    asked.by_ref().take(AHEAD).for_each(|image| program.write(question(image)));
    for _ in corpus.images() {
        let line = program.line()?;
        let Some(counts) = MeteorStatistics::parse(&line) else {
            return Err(program.unexpected(&line, format!("{STATISTICS} numbers")));
        };
        statistics.push(counts);
        evaluated.extend([" ||| ", line.trim()]);
        asked.next().into_iter().for_each(|image| program.write(question(image)));
    }
    program.write(evaluated + "\n");
    for _ in corpus.images() {
        number(&mut program)?;
    }
    let (own, formula) =
        (number(&mut program)?, statistics.iter().copied().sum::<MeteorStatistics>().score());
    // Both are no number where nothing at all was written; the formula's is zero then.
    if (own - formula).abs() > CLOSE {
        return Err(program.unexpected(&own.to_string(), format!("{formula} for the set")));
    }
    Ok(statistics)
}

/// What asks for an image's counts.
fn question(image: &ImageCaptions) -> String {
    let hypothesis = image.hypothesis.replace("|||", "").replace("  ", " ");
    format!("SCORE ||| {} ||| {hypothesis}\n", image.references.join(" ||| "))
}

fn number(program: &mut Running) -> Result<f64> {
    let line = program.line()?;
    line.trim().parse().map_err(|_| program.unexpected(&line, "a number"))
}
