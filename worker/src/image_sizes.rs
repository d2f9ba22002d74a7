//! Which sizes of images an image encoder can cut into patches.

use blip2_model::vision::EncoderSizes;

/// What is wrong with images of `side` pixels, for an encoder of these sizes.
pub(crate) fn unusable(side: usize, encoder: &EncoderSizes) -> Option<String> {
    let patch = encoder.patch_size().max(1);
    if side > 0 && side.is_multiple_of(patch) {
        return None;
    }
    Some(match side / patch * patch {
        0 => format!(
            "less than a patch of the image encoder, whose side is {patch} pixels: use {patch} or a multiple"
        ),
        below => {
            let above = below + patch;
            format!("no multiple of the side of the image encoder's patches, {patch}: use {below} or {above}")
        }
    })
}

#[cfg(test)]
mod tests {
    use blip2_model::vision::EvaConfig;

    use super::*;

    #[test]
    fn the_next_sizes_are_named() {
        let encoder = EncoderSizes::Eva(EvaConfig::default());
        for side in [224, 364, 490] {
            assert_eq!(unusable(side, &encoder), None);
        }
        assert!(unusable(365, &encoder).unwrap().contains("14: use 364 or 378"));
        assert!(unusable(13, &encoder).unwrap().contains("use 14 or a multiple"));
    }
}
