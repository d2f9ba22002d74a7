//! SPICE 1.0: the program reads a file and writes one.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::tools::{Result, ToolError};
use crate::metrics::captions::corpus::TokenCorpus;

use super::java::{Java, Tool};

const TOOL: Tool = Tool { name: "SPICE", jar: "spice-1.0.jar", subfolder: "spice" };

/// An image as the program reads it, named by its place.
#[derive(Serialize)]
struct Question<'a> {
    image_id: usize,
    test: &'a str,
    refs: &'a [String],
}

/// What the program writes of an image.
#[derive(Deserialize)]
struct Answer {
    image_id: usize,
    scores: Scores,
}

#[derive(Deserialize)]
struct Scores {
    #[serde(rename = "All")]
    all: F1,
}

#[derive(Deserialize)]
struct F1 {
    /// Null where neither caption says anything.
    f: Option<f64>,
}

/// SPICE of each image, 0 to 1. The program loads a parser that has to lie beside its jar, and takes long:
/// the deadline is for all of its work.
///
/// # Errors
/// No Java, no jar, a program that fails or takes too long, or writes other images.
pub fn scores(corpus: &TokenCorpus, folder: &Path, java: &Java) -> Result<Vec<f64>> {
    let folder = TOOL.folder(folder)?;
    let io = |source| ToolError::Io { tool: TOOL.name, source };
    let work = tempfile::tempdir().map_err(io)?;
    let [input, output, cache] = ["input.json", "output.json", "cache"].map(|name| work.path().join(name));
    std::fs::create_dir(&cache).map_err(io)?;
    let questions: Vec<Question<'_>> = corpus
        .images()
        .iter()
        .enumerate()
        .map(|(image_id, image)| Question { image_id, test: &image.hypothesis, refs: &image.references })
        .collect();
    std::fs::write(&input, serde_json::to_vec(&questions).map_err(|error| io(error.into()))?).map_err(io)?;

    let arguments = ["-Xmx8G", "-Dfile.encoding=UTF-8", "-jar", TOOL.jar].map(OsString::from).into_iter();
    let files = [input.into(), "-cache".into(), cache.into(), "-out".into(), output.clone().into()];
    let arguments = arguments.chain(files).chain(["-subset", "-silent"].map(OsString::from));
    let mut program = java.start(TOOL, &folder, arguments)?;
    program.finish()?;

    let written = std::fs::read_to_string(&output).map_err(io)?;
    let answers: Vec<Answer> = serde_json::from_str(&written)
        .map_err(|error| program.unexpected(&written, format!("a list of scores ({error})")))?;
    let mut values = vec![None; questions.len()];
    for answer in answers {
        if let Some(value) = values.get_mut(answer.image_id) {
            *value = Some(answer.scores.all.f.unwrap_or(0.0));
        }
    }
    let found = values.iter().flatten().count();
    let all: Option<Vec<f64>> = values.into_iter().collect();
    let expected = format!("one for each of {} images", questions.len());
    all.ok_or_else(|| program.unexpected(&format!("{found} scores"), expected))
}
