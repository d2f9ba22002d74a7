//! Stanford's tokenizer itself, for numbers that are to be published.

use std::ffi::OsString;
use std::path::Path;

use crate::error::tools::Result;
use crate::metrics::captions::corpus::{Corpus, TokenCorpus};
use crate::metrics::captions::ptb::{REMOVED, one_line};

use super::java::{Java, Tool};

const TOOL: Tool =
    Tool { name: "the PTB tokenizer", jar: "stanford-corenlp-3.4.1.jar", subfolder: "tokenizer" };

/// The captions as words, found by the program in this folder as the caption toolkit runs it: first all
/// references, then all generated captions, one a line.
///
/// # Errors
/// No Java, no jar, a program that fails, waits, or prints another number of lines.
pub fn tokenized(corpus: &Corpus, folder: &Path, java: &Java) -> Result<TokenCorpus> {
    let folder = TOOL.folder(folder)?;
    let arguments = [
        "-Dfile.encoding=UTF-8",
        "-cp",
        TOOL.jar,
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    ];
    let mut program = java.start(TOOL, &folder, arguments.map(OsString::from))?;
    let references = corpus.images().iter().flat_map(|image| &image.references);
    let generated = corpus.images().iter().map(|image| &image.hypothesis);
    for caption in references.clone().chain(generated.clone()) {
        program.write(one_line(caption) + "\n");
    }
    program.end_input();
    let mut read = |captions: usize| -> Result<Vec<String>> {
        let words = |_| Ok(without_marks(&program.line()?));
        (0..captions).map(words).collect()
    };
    let mut references = read(references.count())?.into_iter();
    let mut generated = read(generated.count())?.into_iter();
    program.finish()?;
    let of_images = corpus.images().iter().flat_map(|image| {
        let own: Vec<String> = references.by_ref().take(image.references.len()).collect();
        own.into_iter().chain(generated.next())
    });
    Ok(corpus.with_words(of_images.collect())?)
}

/// A line of the program as the toolkit takes it.
fn without_marks(line: &str) -> String {
    let words = line.trim_end().split(' ').filter(|word| !word.is_empty() && !REMOVED.contains(word));
    words.collect::<Vec<_>>().join(" ")
}
