//! `generate`: captions for image files.

use std::path::Path;

use blip2_dataset::{RgbImage, decode_image};
use blip2_model::generate::GenerateOptions;
use blip2_worker::Captioner;
use serde::Serialize;

use super::{print_json, print_text};
use crate::arguments::GenerateArguments;
use crate::error::CliError;
use crate::exit::Exit;

/// Pictures held in memory at a time.
const BATCH: usize = 16;
/// A picture given by name may be as large as a file of the training corpus by default.
const MAX_PIXELS: u64 = 200_000_000;

/// The line of an image.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: &'a str,
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
}

/// Writes one caption an image, in the order given.
pub(crate) async fn run(arguments: GenerateArguments) -> Result<Exit, CliError> {
    tokio::task::spawn_blocking(move || generate(&arguments))
        .await
        .map_err(|error| CliError::failed(format!("the captioning thread failed: {error}")))?
}

fn generate(arguments: &GenerateArguments) -> Result<Exit, CliError> {
    let options = GenerateOptions {
        beams: arguments.beams as usize,
        max_new_tokens: arguments.max_new_tokens as usize,
        ..GenerateOptions::default()
    };
    let captioner = Captioner::open(&arguments.model, arguments.device)?;
    for paths in arguments.image.chunks(BATCH) {
        let images = paths.iter().map(|path| read_image(path)).collect::<Result<Vec<_>, _>>()?;
        let captions = captioner.captions(&images, &arguments.prompt, &options)?;
        for (path, caption) in paths.iter().zip(captions) {
            let image = path.to_string_lossy();
            if arguments.json {
                let (text, tokens) = (&caption.text, &caption.tokens);
                print_json(&Line { image: &image, prompt: &arguments.prompt, text, tokens })?;
            } else {
                print_text(&format!("{image}: {}\n", caption.text))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn read_image(path: &Path) -> Result<RgbImage, CliError> {
    let bytes = std::fs::read(path).map_err(|error| {
        CliError::BadInput(format!("{}: cannot read this image: {error}", path.display()))
    })?;
    decode_image(&bytes, MAX_PIXELS)
        .map_err(|error| CliError::BadInput(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.jpg");
        for content in [None, Some("no image")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = read_image(&path).unwrap_err();
            assert_eq!(error.exit(), Exit::BadInput);
            assert!(error.to_string().contains("broken.jpg"), "{error}");
        }
    }
}
