//! Preparing a sample takes a bounded number of small allocations and none for pixels.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use blip2_dataset::image::RgbImage;
use blip2_dataset::image::transform::{ImageScratch, TrainTransform};
use blip2_dataset::random::KeyedRng;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

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
