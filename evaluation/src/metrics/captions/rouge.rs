//! ROUGE-L as the caption toolkit has it (Lin 2004, `rouge.py` of coco-caption).
//!
//! With `L` the longest common subsequence of the generated caption `h` and a reference `r`, `P` is the
//! largest `L / |h|` and `R` the largest `L / |r|` over the references, each by itself;
//! `F = (1 + β²) P R / (R + β² P)` with `β = 1.2`, and 0 where `P` or `R` is 0.

use super::ngrams::Word;

/// What recall weighs against precision.
const BETA: f64 = 1.2;

/// What the toolkit sees in a caption without words: one word, which is empty.
const NOTHING: [Word; 1] = [0];

/// ROUGE-L of a caption, from 0 to 1, in words of one vocabulary. As in the toolkit a caption without words
/// is found in a reference without words.
pub fn rouge_l(hypothesis: &[Word], references: &[Vec<Word>]) -> f64 {
    let hypothesis = or_nothing(hypothesis);
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let reference = or_nothing(reference);
        let common = longest_common_subsequence(hypothesis, reference) as f64;
        precision = precision.max(common / hypothesis.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn or_nothing(words: &[Word]) -> &[Word] {
    if words.is_empty() { &NOTHING } else { words }
}

/// The length of the longest sequence of words that both have in this order.
fn longest_common_subsequence(one: &[Word], other: &[Word]) -> usize {
    // Of the words so far: at `n` the length with the first `n` of the other.
    let mut lengths = vec![0; other.len() + 1];
    for word in one {
        let mut diagonal = 0;
        for (at, candidate) in other.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = if word == candidate { diagonal + 1 } else { above.max(lengths[at]) };
            diagonal = above;
        }
    }
    lengths[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_may_come_from_different_references() {
        // Precision 1 from the long reference, recall 1 from the short one.
        assert_eq!(rouge_l(&[1, 2], &[vec![1, 7, 2, 8, 9], vec![1]]), 1.0);
        assert_eq!(rouge_l(&[1, 2], &[vec![3]]), 0.0);
    }

    #[test]
    fn order_counts() {
        assert_eq!(longest_common_subsequence(&[1, 2, 3, 4], &[2, 1, 3, 7, 4]), 3);
        assert_eq!(longest_common_subsequence(&[1], &[]), 0);
    }

    #[test]
    fn no_words_match_no_words() {
        assert_eq!(rouge_l(&[], &[vec![1, 2], vec![]]), 1.0);
        assert_eq!(rouge_l(&[], &[vec![1, 2]]), 0.0);
    }
}
