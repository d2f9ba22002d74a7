//! The first frame of a GIF on its canvas, as Pillow reads it.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder};
use image::RgbImage;

use super::super::guard::check_pixels;

/// The canvas with the first frame on it. Where the frame has no pixels the canvas is of the transparent
/// colour, or of the palette's first; a frame that reaches beyond it makes it larger.
pub(super) fn decode(encoded: &[u8], max_pixels: u64) -> Result<RgbImage, String> {
    let mut decoder = open(encoded)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let (width, height) = canvas(&mut decoder)?;
    check_pixels(width, height, max_pixels)?;
    let Some(frame) = decoder.current_frame_info() else { return Err("it has no frame".to_owned()) };
    let place = [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let background = frame.transparent.unwrap_or(0);
    let palette = frame.palette.clone().or(global).unwrap_or_default();
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(|error| error.to_string())?;
    // Behind the palette's end all is black, but for a palette that says of every index that it is that grey.
    let is_ramp = palette.chunks_exact(3).zip(0u8..=255).all(|(rgb, index)| rgb == [index; 3]);
    let colour = |index: u8| match palette.get(3 * usize::from(index)..3 * usize::from(index) + 3) {
        Some(rgb) => image::Rgb([rgb[0], rgb[1], rgb[2]]),
        None => image::Rgb([if is_ramp { index } else { 0 }; 3]),
    };
    let mut image = RgbImage::from_pixel(width, height, colour(background));
    let [left, top, frame_width, frame_height] = place;
    if indices.len() as u64 != u64::from(frame_width) * u64::from(frame_height) {
        return Err("its first frame is not whole".to_owned());
    }
    for (place, index) in indices.into_iter().enumerate() {
        let (x, y) = (place as u32 % frame_width, place as u32 / frame_width);
        image.put_pixel(left + x, top + y, colour(index));
    }
    Ok(image)
}

/// Width and height of the canvas; no pixel is decoded.
pub(super) fn dimensions(encoded: &[u8]) -> Result<(u32, u32), String> {
    canvas(&mut open(encoded)?)
}

fn open(encoded: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, String> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // The canvas is bounded before anything is decoded.
    options.set_memory_limit(gif::MemoryLimit::Unlimited);
    options.read_info(Cursor::new(encoded)).map_err(|error| error.to_string())
}

/// The canvas that the header names and the first frame fit on.
fn canvas(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<(u32, u32), String> {
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    match decoder.next_frame_info().map_err(|error| error.to_string())? {
        Some(frame) => Ok((
            width.max(u32::from(frame.left) + u32::from(frame.width)),
            height.max(u32::from(frame.top) + u32::from(frame.height)),
        )),
        None => Err("it has no frame".to_owned()),
    }
}
