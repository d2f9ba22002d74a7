//! Small corpora with whatever pictures and captions a test needs.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::record_batch::RecordBatch;
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use parquet::arrow::ArrowWriter;

/// One row of a corpus.
#[derive(Debug, Clone)]
pub struct Row {
    /// An image file.
    pub image: Vec<u8>,
    /// Its caption.
    pub caption: String,
}

/// Writes rows in the layout of img2dataset, the image column under the given name.
///
/// # Panics
/// When the file cannot be written.
pub fn write(path: &Path, image_column: &str, rows: &[Row]) {
    let column = |name: &str, array: ArrayRef| (name.to_owned(), array);
    let keys: Vec<String> = (0..rows.len()).map(|index| format!("{index:09}")).collect();
    let images: Vec<&[u8]> = rows.iter().map(|row| row.image.as_slice()).collect();
    let captions: Vec<&str> = rows.iter().map(|row| row.caption.as_str()).collect();
    let batch = RecordBatch::try_from_iter([
        column("key", Arc::new(StringArray::from(keys))),
        column("caption", Arc::new(StringArray::from(captions))),
        column("status", Arc::new(StringArray::from(vec!["success"; rows.len()]))),
        column(image_column, Arc::new(BinaryArray::from(images))),
    ])
    .expect("columns of one length");
    let file = File::create(path).expect("the corpus can be created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.close().expect("the footer is written");
}

/// Writes rows as img2dataset does by default: those for which `failed` says so have no picture, and the
/// recorded hashes are not those of the stored pictures.
///
/// # Panics
/// When the file cannot be written.
pub fn write_downloads(path: &Path, rows: &[Row], failed: fn(usize) -> bool) {
    let text = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..rows.len()).map(|row| Some(value(row))).collect::<StringArray>())
    };
    let images: BinaryArray =
        rows.iter().enumerate().map(|(row, content)| (!failed(row)).then_some(&content.image[..])).collect();
    let status = |row| if failed(row) { "failed_to_download" } else { "success" }.to_owned();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("key", text(&|row| format!("{row:09}")), true),
        ("caption", text(&|row| rows[row].caption.clone()), true),
        ("status", text(&status), true),
        ("sha256", text(&|row| format!("{row:064x}")), true),
        ("jpg", Arc::new(images) as ArrayRef, true),
    ])
    .expect("columns of one length");
    let file = File::create(path).expect("the corpus can be created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.close().expect("the footer is written");
}

/// Rows that are in order: a coloured disc each, with its name.
pub fn good_rows(count: usize) -> Vec<Row> {
    let names = ["red disc", "green disc", "blue disc", "white disc"];
    let row = |index: usize| Row {
        image: encoded(&DynamicImage::ImageRgb8(disc(index)), ImageFormat::Jpeg),
        caption: format!("{} number {index}", names[index % names.len()]),
    };
    (0..count).map(row).collect()
}

/// The picture as a file.
///
/// # Panics
/// When the format cannot hold it.
pub fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("the picture can be encoded");
    bytes.into_inner()
}

/// Odd pictures that are in order: 1×1, grey, grey with alpha, alpha, 16 bits, animated.
pub fn odd_pictures() -> Vec<(&'static str, Vec<u8>)> {
    let disc = DynamicImage::ImageRgb8(disc(1));
    let one = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([200, 10, 10])));
    vec![
        ("one pixel", encoded(&one, ImageFormat::Png)),
        ("one pixel as JPEG", encoded(&one, ImageFormat::Jpeg)),
        ("grey", encoded(&disc.to_luma8().into(), ImageFormat::Jpeg)),
        ("grey with alpha", encoded(&disc.to_luma_alpha8().into(), ImageFormat::Png)),
        ("alpha", encoded(&disc.to_rgba8().into(), ImageFormat::Png)),
        ("16 bits", encoded(&disc.to_rgb16().into(), ImageFormat::Png)),
        ("animated", animation()),
        ("webp", encoded(&disc, ImageFormat::WebP)),
    ]
}

/// A BMP whose header promises 20,000 × 20,000 pixels.
pub fn enormous_picture() -> Vec<u8> {
    let small = DynamicImage::ImageRgb8(RgbImage::new(1, 1));
    let mut bytes = encoded(&small, ImageFormat::Bmp);
    let side = 20_000i32.to_le_bytes();
    bytes[18..22].copy_from_slice(&side);
    bytes[22..26].copy_from_slice(&side);
    bytes
}

/// The first half of a JPEG.
pub fn truncated_picture() -> Vec<u8> {
    let whole = encoded(&DynamicImage::ImageRgb8(disc(0)), ImageFormat::Jpeg);
    whole[..whole.len() / 2].to_vec()
}

fn disc(index: usize) -> RgbImage {
    let colours = [[220, 40, 40], [40, 180, 60], [50, 80, 220], [240, 240, 240]];
    let colour = colours[index % colours.len()];
    RgbImage::from_fn(64, 64, |x, y| {
        let (dx, dy) = (x as i32 - 32, y as i32 - 32);
        let inside = dx * dx + dy * dy < 400 + (index as i32 % 16) * 20;
        Rgb(if inside { colour } else { [20, 20, 20] })
    })
}

fn animation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for shade in [0u8, 120, 240] {
        let frame = Frame::new(RgbaImage::from_pixel(16, 16, Rgba([shade, 80, 160, 255])));
        encoder.encode_frame(frame).expect("a frame is encoded");
    }
    drop(encoder);
    bytes
}
