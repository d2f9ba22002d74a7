//! The contrastive loss of the global batch, its gradient with respect to the similarities, and the weights
//! of hard negatives (BLIP-2, arXiv 2301.12597, section 3.2; ALBEF, arXiv 2107.07651, section 3.2).
//!
//! Everything here is plain float64 arithmetic over an `N × N` matrix in a fixed order, so that every member
//! of a run computes the same bits.

use std::collections::BTreeMap;

use blip2_tensors::nn::attention::BLOCKED;

/// How the contrastive loss is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradientMode {
    /// The gradient of the global-batch loss.
    Exact,
    /// A feature has a gradient as a query only, not as a key for others: the reference's gradient.
    KeysDetached,
}

/// Which side of a pair is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An image for a text.
    Image,
    /// A text for an image.
    Text,
}

/// The contrastive loss of `N` pairs.
#[derive(Debug, Clone)]
pub struct Contrast {
    rows: usize,
    /// For each row, the first row with the same image.
    images: Vec<usize>,
    /// Similarity of image `i` and text `t`, over the temperature, at `i·N + t`.
    similarity: Vec<f32>,
    /// Gradient of the image-to-text half, laid out as `similarity`.
    image_to_text: Vec<f32>,
    /// Gradient of the text-to-image half, laid out as `similarity`.
    text_to_image: Vec<f32>,
    /// The loss: the mean of both directions' cross-entropies.
    pub loss: f64,
}

impl Contrast {
    /// Of similarities (image-major, already divided by the temperature) whose diagonal holds the pairs.
    ///
    /// # Panics
    /// When `similarity` is not `rows × rows`.
    pub fn new(similarity: Vec<f32>, rows: usize, smoothing: f64) -> Self {
        Self::of(similarity, (0..rows).collect(), smoothing)
    }

    /// The same where some rows have the same image, by its id: each of them is the others' pair too, and
    /// none of them their negative.
    ///
    /// # Panics
    /// When `similarity` is not square with a row for each id.
    pub fn of_images(similarity: Vec<f32>, ids: &[u64], smoothing: f64) -> Self {
        let mut first = BTreeMap::new();
        let images = ids.iter().enumerate().map(|(row, id)| *first.entry(id).or_insert(row)).collect();
        Self::of(similarity, images, smoothing)
    }

    fn of(similarity: Vec<f32>, images: Vec<usize>, smoothing: f64) -> Self {
        let rows = images.len();
        assert_eq!(similarity.len(), rows * rows, "similarities of {rows} pairs");
        let (image_loss, image_to_text) = half(&images, smoothing, |i, t| similarity[i * rows + t]);
        let (text_loss, transposed) = half(&images, smoothing, |t, i| similarity[i * rows + t]);
        let mut text_to_image = vec![0.0; rows * rows];
        for text in 0..rows {
            for image in 0..rows {
                text_to_image[image * rows + text] = transposed[text * rows + image];
            }
        }
        Self { rows, images, similarity, image_to_text, text_to_image, loss: image_loss + text_loss }
    }

    /// Number of pairs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `∂loss/∂similarity` of image rows `own` against all texts, `[own, N]`, for the images' features.
    pub fn image_gradient(&self, own: std::ops::Range<usize>, mode: GradientMode) -> Vec<f32> {
        let range = own.start * self.rows..own.end * self.rows;
        match mode {
            GradientMode::KeysDetached => self.image_to_text[range].to_vec(),
            GradientMode::Exact => range.map(|i| self.image_to_text[i] + self.text_to_image[i]).collect(),
        }
    }

    /// `∂loss/∂similarity` of all images against texts `own`, `[N, own]`, for the texts' features.
    pub fn text_gradient(&self, own: std::ops::Range<usize>, mode: GradientMode) -> Vec<f32> {
        (0..self.rows)
            .flat_map(|image| own.clone().map(move |text| image * self.rows + text))
            .map(|at| match mode {
                GradientMode::KeysDetached => self.text_to_image[at],
                GradientMode::Exact => self.image_to_text[at] + self.text_to_image[at],
            })
            .collect()
    }

    /// Whether rows have a negative: all of them do, unless they all have the same image.
    pub fn has_negatives(&self) -> bool {
        self.images.iter().any(|image| *image != 0)
    }

    /// Whether two rows have the same image.
    fn are_pairs(&self, row: usize, other: usize) -> bool {
        self.images[row] == self.images[other]
    }

    /// The negative that `uniform` in `[0, 1)` draws for `row`, as [`Contrast::negative_weights`] has it;
    /// none where all rows have the same image.
    pub fn negative(&self, side: Side, row: usize, uniform: f64) -> Option<usize> {
        self.has_negatives()
            .then(|| draw(&self.negative_weights(side, row), uniform, |other| !self.are_pairs(row, other)))
    }

    /// Weights with which a negative for `row` is drawn: the softmax of its similarities with its own pairs
    /// blocked. [`Side::Image`]: of the images, for text `row`; [`Side::Text`]: of the texts, for image
    /// `row`.
    pub fn negative_weights(&self, side: Side, row: usize) -> Vec<f64> {
        let logits: Vec<f64> = (0..self.rows)
            .map(|other| match side {
                _ if self.are_pairs(row, other) => f64::from(BLOCKED),
                Side::Image => f64::from(self.similarity[other * self.rows + row]),
                Side::Text => f64::from(self.similarity[row * self.rows + other]),
            })
            .collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = logits.iter().map(|logit| libm::exp(logit - max)).collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.into_iter().map(|e| e / sum).collect()
    }

    /// The index that `uniform` in `[0, 1)` draws from `weights`, never `row` itself.
    pub fn draw(weights: &[f64], row: usize, uniform: f64) -> usize {
        draw(weights, uniform, |index| index != row)
    }
}

/// The index that `uniform` in `[0, 1)` draws from the `weights` of those that are `allowed`.
fn draw(weights: &[f64], uniform: f64, allowed: impl Fn(usize) -> bool) -> usize {
    let (mut below, mut last) = (0.0, 0);
    for (index, weight) in weights.iter().enumerate().filter(|(index, _)| allowed(*index)) {
        last = index;
        below += weight;
        if uniform < below {
            return index;
        }
    }
    // The weights sum to just under one: the rounding belongs to the last.
    last
}

/// Half the mean cross-entropy of rows whose target is spread evenly over the rows of the same image, the
/// diagonal where all images differ, and its gradient.
fn half(images: &[usize], smoothing: f64, at: impl Fn(usize, usize) -> f32) -> (f64, Vec<f32>) {
    let rows = images.len();
    let scale = 0.5 / rows as f64;
    let smooth = smoothing / rows as f64;
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(rows * rows);
    let mut exponentials = vec![0.0; rows];
    for row in 0..rows {
        let max = (0..rows).map(|column| f64::from(at(row, column))).fold(f64::NEG_INFINITY, f64::max);
        let (mut normaliser, mut sum) = (0.0, 0.0);
        let (mut pairs, mut of_pairs) = (0.0, 0.0);
        for (column, exponential) in exponentials.iter_mut().enumerate() {
            let logit = f64::from(at(row, column));
            *exponential = libm::exp(logit - max);
            normaliser += *exponential;
            sum += logit;
            if images[column] == images[row] {
                pairs += 1.0;
                of_pairs += logit;
            }
        }
        let certainty = (1.0 - smoothing) / pairs;
        let log_normaliser = max + libm::log(normaliser);
        loss += log_normaliser - certainty * of_pairs - smooth * sum;
        gradient.extend(exponentials.iter().enumerate().map(|(column, exponential)| {
            let target = smooth + if images[column] == images[row] { certainty } else { 0.0 };
            ((exponential / normaliser - target) * scale) as f32
        }));
    }
    (loss * scale, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pairs of the specification's section 10.2.
    fn toy() -> Contrast {
        Contrast::new(vec![13.714_286, 11.428_572, 8.571_429, 14.285_714], 2, 0.1)
    }

    #[test]
    fn loss_of_the_toy() {
        assert!((toy().loss - 0.240_454_2).abs() < 1e-6, "{}", toy().loss);
    }

    /// `Σ gradient · feature / temperature`, the chain rule through the arg-max queries.
    fn through(gradient: &[f32], features: [[f64; 2]; 2]) -> [f64; 2] {
        [0, 1].map(|axis| {
            gradient.iter().zip(features).map(|(g, feature)| f64::from(*g) * feature[axis] / 0.07).sum()
        })
    }

    #[test]
    fn gradients_of_the_toy() {
        let near = |got: [f64; 2], want: [f64; 2]| {
            let far = (got[0] - want[0]).abs().max((got[1] - want[1]).abs());
            assert!(far < 2e-6, "{got:?} != {want:?}");
        };
        // Text 1 sees image 0 through its second query and image 1 through its first.
        let seen = [[0.6, 0.8], [0.0, 1.0]];
        near(through(&toy().text_gradient(1..2, GradientMode::KeysDetached), seen), [0.009_243, -0.003_081]);
        near(through(&toy().text_gradient(1..2, GradientMode::Exact), seen), [0.099_914, 0.284_643]);
        // Both texts see image 1 through its first query.
        let texts = [[0.8, 0.6], [0.0, 1.0]];
        near(
            through(&toy().image_gradient(1..2, GradientMode::KeysDetached), texts),
            [-0.133_464, 0.066_732],
        );
        near(through(&toy().image_gradient(1..2, GradientMode::Exact), texts), [-0.259_729, -0.043_372]);
    }

    #[test]
    fn gradient_is_the_derivative_of_the_loss() {
        let similarity = vec![1.0, 0.3, -0.2, 0.5, 2.0, 0.1, -1.0, 0.7, 0.4];
        let contrast = Contrast::new(similarity.clone(), 3, 0.1);
        let gradient = contrast.image_gradient(0..3, GradientMode::Exact);
        for at in 0..9 {
            let loss = |delta: f32| {
                let mut moved = similarity.clone();
                moved[at] += delta;
                Contrast::new(moved, 3, 0.1).loss
            };
            let numeric = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            assert!((f64::from(gradient[at]) - numeric).abs() < 1e-4);
        }
    }

    #[test]
    fn a_negative_is_never_the_pair() {
        let contrast = Contrast::new(vec![50.0, 1.0, 2.0, 3.0, 50.0, 1.0, 0.0, 0.0, 50.0], 3, 0.1);
        for row in 0..3 {
            for side in [Side::Image, Side::Text] {
                let weights = contrast.negative_weights(side, row);
                assert!(weights[row] < 1e-9);
                for uniform in [0.0, 0.3, 0.999_999_999_999] {
                    assert_ne!(Contrast::draw(&weights, row, uniform), row);
                }
            }
        }
        assert_eq!(Contrast::draw(&[0.0, 0.25, 0.75], 0, 0.2), 1);
        assert_eq!(Contrast::draw(&[0.0, 0.25, 0.75], 0, 0.3), 2);
    }

    /// Losses, gradients and weights of five rows as bits.
    fn bits(contrast: &Contrast) -> Vec<u64> {
        let mut bits = vec![contrast.loss.to_bits()];
        for mode in [GradientMode::Exact, GradientMode::KeysDetached] {
            let gradients = [contrast.image_gradient(0..5, mode), contrast.text_gradient(0..5, mode)];
            bits.extend(gradients.concat().into_iter().map(|g| u64::from(g.to_bits())));
        }
        for (side, row) in
            [Side::Image, Side::Text].into_iter().flat_map(|side| (0..5).map(move |row| (side, row)))
        {
            bits.extend(contrast.negative_weights(side, row).into_iter().map(f64::to_bits));
            for uniform in [0.0, 0.2, 0.7, 1.0 - f64::EPSILON / 2.0] {
                let drawn = Contrast::draw(&contrast.negative_weights(side, row), row, uniform);
                assert_eq!(contrast.negative(side, row, uniform), Some(drawn));
            }
        }
        bits
    }

    fn five_rows() -> Vec<f32> {
        (0..25).map(|at| (at as f32 * 0.731).sin() * 9.0).collect()
    }

    /// The smoothed loss of images to texts where the pairs are the diagonal, and its gradient, written down
    /// without ids.
    fn of_diagonal(similarity: &[f32], rows: usize, smoothing: f64) -> (f64, Vec<f32>) {
        let (scale, smooth) = (0.5 / rows as f64, smoothing / rows as f64);
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for (row, logits) in similarity.chunks(rows).enumerate() {
            let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = logits.iter().map(|logit| libm::exp(logit - max)).collect();
            let (mut normaliser, mut sum) = (0.0, 0.0);
            for (exponential, logit) in exponentials.iter().zip(&logits) {
                normaliser += exponential;
                sum += logit;
            }
            loss += max + libm::log(normaliser) - (1.0 - smoothing) * logits[row] - smooth * sum;
            for (column, exponential) in exponentials.iter().enumerate() {
                let target = smooth + if column == row { 1.0 - smoothing } else { 0.0 };
                gradient.push(((exponential / normaliser - target) * scale) as f32);
            }
        }
        (loss * scale, gradient)
    }

    #[test]
    fn ids_that_all_differ_change_no_bit() {
        let contrast = Contrast::of_images(five_rows(), &[9, 0, u64::MAX, 4, 1], 0.1);
        let transposed: Vec<f32> = (0..25).map(|at| five_rows()[at % 5 * 5 + at / 5]).collect();
        let (images, gradient) = of_diagonal(&five_rows(), 5, 0.1);
        let (texts, _) = of_diagonal(&transposed, 5, 0.1);
        assert_eq!(contrast.loss.to_bits(), (images + texts).to_bits());
        assert_eq!(contrast.image_gradient(0..5, GradientMode::KeysDetached), gradient);
        let want = bits(&Contrast::new(five_rows(), 5, 0.1));
        assert_eq!(bits(&Contrast::of_images(five_rows(), &[9, 0, u64::MAX, 4, 1], 0.1)), want);
        assert_ne!(bits(&Contrast::of_images(five_rows(), &[9, 0, 9, 4, 1], 0.1)), want);
    }

    #[test]
    fn rows_of_one_image_share_their_target_and_are_no_negatives() {
        let ids = [7, 3, 7, 3, 7];
        let contrast = Contrast::of_images(five_rows(), &ids, 0.1);
        for row in 0..5 {
            for side in [Side::Image, Side::Text] {
                let weights = contrast.negative_weights(side, row);
                assert!(
                    (0..5).all(|other| (ids[other] == ids[row]) == (weights[other] == 0.0)),
                    "{weights:?}"
                );
                for uniform in [0.0, 0.5, 1.0 - f64::EPSILON / 2.0] {
                    let drawn = contrast.negative(side, row, uniform).unwrap();
                    assert_ne!(ids[drawn], ids[row], "{side:?} {row} {uniform}");
                }
            }
            // A row's gradient sums to zero: the target is a distribution.
            let gradient = contrast.image_gradient(row..row + 1, GradientMode::KeysDetached);
            assert!(gradient.iter().sum::<f32>().abs() < 1e-6, "{gradient:?}");
        }
    }

    #[test]
    fn rows_of_a_single_image_have_no_negative() {
        let contrast = Contrast::of_images(five_rows(), &[7; 5], 0.1);
        assert!(!contrast.has_negatives());
        assert_eq!(contrast.negative(Side::Image, 2, 0.5), None);
        assert!(Contrast::new(five_rows(), 5, 0.1).has_negatives());
    }
}
