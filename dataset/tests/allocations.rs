//! Preparing a sample takes a bounded number of small allocations and none for pixels; refusing one takes
//! next to none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use blip2_images::RgbImage;
use blip2_images::decode::decode_image;
use blip2_images::transform::{ImageScratch, TrainTransform};
use blip2_random::KeyedRng;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Whose allocations are counted.
static TURN: Mutex<()> = Mutex::new(());

struct Counting;

// Counts and passes on to the system's allocator, whose contract is thereby kept.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_image_takes_few_allocations_once_memory_is_there() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let image = RgbImage::from_fn(500, 375, |x, y| {
        image::Rgb([(x * 3 % 256) as u8, (y * 5 % 256) as u8, ((x ^ y) % 256) as u8])
    });
    let mut encoded = Cursor::new(Vec::new());
    image.write_to(&mut encoded, image::ImageFormat::Jpeg).unwrap();
    let transform = TrainTransform::new(224, [0.5, 1.0], true);
    let mut scratch = ImageScratch::default();
    let mut out = vec![0; 3 * 224 * 224];
    let mut apply = |sample: u64| {
        let mut rng = KeyedRng::new(1, "augment", &[1, sample]);
        transform.apply(encoded.get_ref(), 1 << 20, &mut rng, &mut scratch, &mut out).unwrap();
    };
    (0..8).for_each(&mut apply);
    let before = (COUNT.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let images = 32;
    (8..8 + images as u64).for_each(&mut apply);
    let count = (COUNT.load(Ordering::Relaxed) - before.0) / images;
    let bytes = (BYTES.load(Ordering::Relaxed) - before.1) / images;
    // Two for every row and column of the result are the resampler's coefficients, of a few bytes each.
    assert!(count <= 2 * 224 + 120, "{count} allocations a picture");
    // Tables and rows of the decoder; the image itself has 562,500 bytes.
    assert!(bytes < 400_000, "{bytes} bytes a picture");
}

/// Encoded images whose headers promise 400 million pixels.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    const SIDE: u16 = 20_000;
    let encoded = |format| {
        let mut out = Cursor::new(Vec::new());
        RgbImage::from_pixel(8, 8, image::Rgb([9, 90, 200])).write_to(&mut out, format).unwrap();
        out.into_inner()
    };
    let mut png = encoded(image::ImageFormat::Png);
    png[16..20].copy_from_slice(&u32::from(SIDE).to_be_bytes());
    png[20..24].copy_from_slice(&u32::from(SIDE).to_be_bytes());
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let mut gif = encoded(image::ImageFormat::Gif);
    gif[6..8].copy_from_slice(&SIDE.to_le_bytes());
    gif[8..10].copy_from_slice(&SIDE.to_le_bytes());
    let mut bmp = encoded(image::ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&u32::from(SIDE).to_le_bytes());
    bmp[22..26].copy_from_slice(&u32::from(SIDE).to_le_bytes());
    let mut jpeg = encoded(image::ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&SIDE.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&SIDE.to_be_bytes());
    vec![("PNG", png), ("GIF", gif), ("BMP", bmp), ("JPEG", jpeg)]
}

/// PNG's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            (state >> 1) ^ (0xedb8_8320 & (state & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_header_that_promises_too_much_is_refused_before_there_is_memory_for_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, encoded) in bombs() {
        let before = BYTES.load(Ordering::Relaxed);
        let error = decode_image(&encoded, 200_000_000).unwrap_err().to_string();
        let bytes = BYTES.load(Ordering::Relaxed) - before;
        assert!(error.contains("20000x20000"), "{name}: {error}");
        // Its pixels would be 1.2 GB.
        assert!(bytes < 200_000, "{name}: {bytes} bytes for a refusal");
    }
}
