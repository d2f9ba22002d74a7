//! Where a caption is cut for prefix language modelling.

/// Cuts a caption into the words that an encoder reads and the words that the decoder writes: of `n` words
/// the first `k` are read, `k` uniform in `1..=max(1, n/2)` by `draw`, which is uniform over all its values.
/// A caption of less than two words is written whole.
pub fn split_caption(caption: &str, draw: u64) -> (&str, &str) {
    let caption = caption.trim();
    let words = caption.split_whitespace().count();
    if words < 2 {
        return ("", caption);
    }
    let choices = (words / 2) as u128;
    // The upper bits of the product: below `choices`, as the draw is below 2^64.
    let read = 1 + ((u128::from(draw) * choices) >> u64::BITS) as usize;
    let mut rest = caption;
    for _ in 0..read {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest = rest[end..].trim_start();
    }
    (caption[..caption.len() - rest.len()].trim_end(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_half_of_the_words_are_read() {
        let caption = " a  red bicycle leans on a wall ";
        assert_eq!(split_caption(caption, 0), ("a", "red bicycle leans on a wall"));
        assert_eq!(split_caption(caption, u64::MAX), ("a  red bicycle", "leans on a wall"));
        assert_eq!(split_caption("two words", u64::MAX), ("two", "words"));
    }

    #[test]
    fn every_cut_is_as_likely() {
        let mut counts = [0; 4];
        for step in 0..300u64 {
            let draw = step * (u64::MAX / 300) + u64::MAX / 600;
            counts[split_caption("1 2 3 4 5 6 7", draw).0.split(' ').count()] += 1;
        }
        assert_eq!(counts, [0, 100, 100, 100]);
    }

    #[test]
    fn short_captions_are_written_whole() {
        assert_eq!(split_caption(" wall ", 7), ("", "wall"));
        assert_eq!(split_caption("", 7), ("", ""));
    }
}
