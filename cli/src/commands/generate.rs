//! `generate`: texts for image files.

use std::path::{Path, PathBuf};

use blip2_evaluation::captioning::{Captioner, PromptPair};
use blip2_images::RgbImage;
use blip2_images::decode::decode_image;
use blip2_run::exit::Exit;
use clap::Args;
use serde::Serialize;

use super::{print_json, print_text};
use crate::decoding::WriterArguments;
use crate::error::CliError;
use crate::places::typed_model;

#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) writer: WriterArguments,
    /// Image file; may be repeated.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) image: Vec<PathBuf>,
    /// Text that is continued; a Q-Former that reads what is asked reads it too.
    #[arg(long, default_value = "")]
    pub(crate) prompt: String,
    /// Question that is answered, put into the prompt that the model was trained with.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    pub(crate) question: Option<String>,
    /// Texts for each image, with `--sample`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000), value_name = "N")]
    pub(crate) samples: u64,
    /// Print one JSON line a text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Pictures held in memory at a time.
const BATCH: usize = 16;
/// Bytes of an image, at most.
const MAX_IMAGE_BYTES: u64 = 1 << 30;
/// A picture given by name may be as large as a file of the training corpus by default.
const MAX_PIXELS: u64 = 200_000_000;

/// The line of a text.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: &'a str,
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
    /// Which of several texts for the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<usize>,
}

/// Writes the texts of each image, in the order given.
pub(crate) async fn run(arguments: GenerateArguments) -> Result<Exit, CliError> {
    let model = typed_model("--model", &arguments.writer.model).await?;
    tokio::task::spawn_blocking(move || generate(&arguments, &model))
        .await
        .map_err(|error| CliError::failed(format!("the captioning thread failed: {error}")))?
}

fn generate(arguments: &GenerateArguments, model: &Path) -> Result<Exit, CliError> {
    let samples = arguments.samples as usize;
    let decoding = arguments.writer.decoding.decoding(samples)?;
    if samples > 1 && decoding.options.sampling.is_none() {
        return Err(CliError::usage("--samples: several texts for an image differ only with --sample"));
    }
    let captioner = Captioner::open(model, arguments.writer.device, arguments.writer.dtype.narrow())?;
    let asked = match &arguments.question {
        Some(question) => captioner.question(question),
        None => PromptPair::both(&arguments.prompt),
    };
    let mut exit = Exit::Done;
    for paths in arguments.image.chunks(BATCH) {
        let (paths, images) = readable(paths, &mut exit);
        if images.is_empty() {
            continue;
        }
        let asked_of_all = vec![asked.clone(); images.len()];
        let captions = captioner.answer(&captioner.encode(&images)?, &asked_of_all, &decoding)?;
        for (path, captions) in paths.iter().zip(captions) {
            let image = path.to_string_lossy();
            for (index, caption) in captions.iter().enumerate() {
                if arguments.json {
                    let (text, tokens) = (&caption.text, &caption.tokens);
                    let sample = (samples > 1).then_some(index);
                    print_json(&Line { image: &image, prompt: &asked.prompt, text, tokens, sample })?;
                } else {
                    print_text(&format!("{image}: {}\n", caption.text))?;
                }
            }
        }
    }
    Ok(exit)
}

/// The pictures that can be read; the others are named, and `exit` says so.
fn readable<'a>(paths: &'a [PathBuf], exit: &mut Exit) -> (Vec<&'a PathBuf>, Vec<RgbImage>) {
    let mut images = (Vec::new(), Vec::new());
    for path in paths {
        match read_image(path) {
            Ok(image) => {
                images.0.push(path);
                images.1.push(image);
            }
            Err(error) => {
                eprintln!("error: {error}");
                *exit = Exit::BadInput;
            }
        }
    }
    images
}

/// A picture of a file that the user has named.
pub(crate) fn read_image(path: &Path) -> Result<RgbImage, CliError> {
    let unread =
        |reason: String| CliError::BadInput(format!("{}: cannot read this image: {reason}", path.display()));
    // Opening a FIFO waits for its writer, and a device has no end.
    let found = std::fs::metadata(path).map_err(|error| unread(error.to_string()))?;
    if !found.is_file() {
        return Err(unread("it is not a file".to_owned()));
    }
    if found.len() > MAX_IMAGE_BYTES {
        return Err(unread(format!("{} bytes are more than {MAX_IMAGE_BYTES}", found.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| unread(error.to_string()))?;
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

    /// A device has no end, and a FIFO may have no beginning.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/zero")] {
            let error = read_image(path).unwrap_err();
            assert!(error.exit() == Exit::BadInput && error.to_string().contains("not a file"), "{error}");
        }
    }

    #[test]
    fn the_others_are_read_where_one_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("none.png"), folder.path().join("red.png")];
        image::RgbImage::from_pixel(2, 2, image::Rgb([255, 0, 0])).save(&paths[1]).unwrap();
        let mut exit = Exit::Done;
        let (read, images) = readable(&paths, &mut exit);
        assert_eq!((read, images.len(), exit), (vec![&paths[1]], 1, Exit::BadInput));
    }
}
