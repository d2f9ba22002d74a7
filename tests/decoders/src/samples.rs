//! One row's image, as evaluation and as training read it, and one caption.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use blip2_dataset::text::{TextEncoder, TextEncoding, clean_caption};
use blip2_images::decode::{decode_image, image_dimensions};
use blip2_images::transform::{EvalTransform, ImageScratch, TrainTransform};
use blip2_random::KeyedRng;

/// Larger pictures are not what a decoder is tested with.
pub(crate) const MAX_PIXELS: u64 = 1 << 16;
/// Sides of training pictures: so small that most pictures are decoded at an eighth, a half, and whole.
const SIDES: [usize; 3] = [1, 4, 40];

/// A picture as evaluation reads it.
///
/// # Panics
/// Its size is not the one that its header says.
pub fn image(bytes: &[u8]) -> bool {
    let Ok(picture) = decode_image(bytes, MAX_PIXELS) else { return false };
    let header = image_dimensions(bytes).expect("what is decoded has a size");
    assert_eq!(picture.dimensions(), header, "the size is that of the header");
    EvalTransform::new(32).apply(&picture).is_ok()
}

/// A picture as training reads it: the decoder of JPEG, reduced where the crop allows, and the general one
/// for the rest.
///
/// # Panics
/// Memory that is used again has an influence on the result.
pub fn training_image(bytes: &[u8]) -> bool {
    let mut used = ImageScratch::default();
    SIDES.into_iter().fold(false, |taken, side| {
        let transform = TrainTransform::new(side, [0.5, 1.0], true);
        let apply = |scratch: &mut ImageScratch, fill: u8| {
            let mut out = vec![fill; 3 * side * side];
            let mut random = KeyedRng::new(1, "decoder", &[]);
            transform.apply(bytes, MAX_PIXELS, &mut random, scratch, &mut out).ok().map(|()| out)
        };
        let again = apply(&mut used, 0xaa);
        assert!(again == apply(&mut ImageScratch::default(), 0x55), "the result is the bytes' alone");
        taken | again.is_some()
    })
}

/// A caption on its way to tokens.
///
/// # Panics
/// The tokenizer of the small models is not there.
pub fn caption(bytes: &[u8]) -> bool {
    static TOKENIZER: OnceLock<TextEncoder> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        let folder = repository().join("assets/backbones/qformer-tokenizer");
        TextEncoder::open(&folder, TextEncoding::new(32, 0)).expect("the tokenizer of the small models")
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    tokenizer.encode(&clean_caption(text, 50)).is_ok_and(|tokens| tokens.ids.len() == 32)
}

/// The repository's folder.
fn repository() -> PathBuf {
    // This crate lies two folders below.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
