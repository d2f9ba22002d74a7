//! Cross-entropy with label smoothing: one operation on the CPU, elsewhere a surrogate whose gradient is the
//! loss's.
//!
//! The gradient of cross-entropy with respect to the logits is known, `softmax − target`, so it is computed
//! once outside the graph and the objective is `Σ logits · gradient`: one multiplication in the graph
//! instead of a log-softmax and its backward over the vocabulary.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::device::read_back;
use crate::error::TensorError;
use crate::fused::{self, Targets};

/// Label of a row that does not count.
pub const IGNORED: i32 = -100;

/// A loss to differentiate and its value.
#[derive(Debug)]
pub struct Loss {
    /// Its gradient is the loss's gradient; its value need not be the loss.
    pub objective: Tensor<1>,
    /// The loss.
    pub value: LossValue,
}

/// The value of a loss, still on the device: whoever wants it waits for the device then, and any thread may.
#[derive(Debug, Clone)]
pub struct LossValue {
    /// Of each row, without autodiff.
    rows: Tensor<1>,
}

impl LossValue {
    /// Reads the value: the rows' losses, added up in their order in f64.
    ///
    /// # Errors
    /// A device that fails.
    pub fn read(self) -> Result<f64, TensorError> {
        let [value] = Self::read_all([self])?;
        Ok(value)
    }

    /// Reads several values in one go.
    ///
    /// # Errors
    /// As [`LossValue::read`].
    pub fn read_all<const N: usize>(values: [Self; N]) -> Result<[f64; N], TensorError> {
        let rows = read_back::all_floats(values.map(|value| value.rows))?;
        let sum = |rows: &Vec<f32>| rows.iter().copied().map(f64::from).sum();
        Ok(std::array::from_fn(|at| rows.get(at).map_or(f64::NAN, sum)))
    }
}

/// Rows of `labels` that count.
pub fn counted(labels: &[i32]) -> usize {
    labels.iter().filter(|label| **label != IGNORED).count()
}

/// `Σ_rows scale · [(1-ε)·nll + ε/V·Σ_v −log p_v]` over the rows whose label is not [`IGNORED`]
/// (PyTorch's `CrossEntropyLoss` with `label_smoothing` and `reduction="sum"`, times `scale`).
///
/// # Shapes
/// - logits `[rows, classes]`; one label a row
pub fn cross_entropy(
    logits: Tensor<2>,
    labels: &[i32],
    smoothing: f64,
    scale: f64,
) -> Result<Loss, TensorError> {
    check_labels(&logits, labels)?;
    let targets = Targets { labels: labels.to_vec(), smoothing: smoothing as f32, scale: scale as f32 };
    if let Some(losses) = fused::cross_entropy(&logits, targets) {
        let value = LossValue { rows: losses.clone().inner() };
        return Ok(Loss { value, objective: losses.sum() });
    }
    surrogate(logits, labels, smoothing, scale)
}

/// [`cross_entropy`] without smoothing, where each row has a weight of its own.
///
/// # Shapes
/// - logits `[rows, classes]`; one label and one weight a row
///
/// # Errors
/// Labels or weights that do not fit.
pub fn weighted_cross_entropy(
    logits: Tensor<2>,
    labels: &[i32],
    weights: &[f32],
) -> Result<Loss, TensorError> {
    check_labels(&logits, labels)?;
    let rows = labels.len();
    if weights.len() != rows {
        return Err(TensorError::input("weights", format!("{} weights for {rows} rows", weights.len())));
    }
    let targets = Targets { labels: labels.to_vec(), smoothing: 0.0, scale: 1.0 };
    let Some(losses) = fused::cross_entropy(&logits, targets) else {
        return Ok(composed(logits, labels, 0.0, weights));
    };
    let weights = Tensor::<1>::from_data(TensorData::new(weights.to_vec(), [rows]), &losses.device());
    let losses = losses * weights;
    let value = LossValue { rows: losses.clone().inner() };
    Ok(Loss { value, objective: losses.sum() })
}

/// Requires a label for each row, of a class that there is or ignored.
fn check_labels(logits: &Tensor<2>, labels: &[i32]) -> Result<(), TensorError> {
    let [rows, classes] = logits.dims();
    if labels.len() != rows {
        return Err(TensorError::input("labels", format!("{} labels for {rows} rows", labels.len())));
    }
    match labels.iter().find(|label| **label != IGNORED && !(0..classes as i32).contains(*label)) {
        Some(label) => Err(TensorError::input("labels", format!("label {label} with {classes} classes"))),
        None => Ok(()),
    }
}

/// The loss of logits and labels that fit.
fn surrogate(logits: Tensor<2>, labels: &[i32], smoothing: f64, scale: f64) -> Result<Loss, TensorError> {
    Ok(composed(logits, labels, smoothing, &vec![scale as f32; labels.len()]))
}

/// The same where each row has a weight of its own.
fn composed(logits: Tensor<2>, labels: &[i32], smoothing: f64, weights: &[f32]) -> Loss {
    let [rows, classes] = logits.dims();
    let values = logits.clone().inner();
    let device = values.device();
    let index: Vec<i32> = labels.iter().map(|label| (*label).max(0)).collect();
    let counts = |(label, weight): (&i32, &f32)| if *label == IGNORED { 0.0 } else { *weight };
    let weight: Vec<f32> = labels.iter().zip(weights).map(counts).collect();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [rows, 1]), &device);
    let weight = Tensor::<2>::from_data(TensorData::new(weight, [rows, 1]), &device);

    let max = values.clone().max_dim(1);
    let exponentials = (values.clone() - max.clone()).exp();
    let normaliser = exponentials.clone().sum_dim(1);
    let log_normaliser = normaliser.clone().log() + max;
    let smooth = smoothing / classes as f64;
    let row_loss = log_normaliser
        - values.clone().gather(1, index.clone()) * (1.0 - smoothing)
        - values.sum_dim(1) * smooth;
    let value = LossValue { rows: (row_loss * weight.clone()).reshape([rows]) };

    let gradient = (exponentials / normaliser - smooth) * weight.clone();
    let gradient = gradient.scatter(1, index, weight * -(1.0 - smoothing), IndexingUpdateOp::Add);
    let objective = (logits * gradient).sum();
    Loss { objective, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::device;
    use burn::tensor::Device;

    const LOGITS: [[f32; 4]; 3] = [[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]];

    type Compute = fn(Tensor<2>, &[i32], f64, f64) -> Result<Loss, TensorError>;

    #[test]
    fn equals_the_reference_numbers() {
        for (smoothing, want) in [(0.1, 1.222_519_5), (0.0, 1.141_269_6)] {
            for compute in [cross_entropy as Compute, surrogate] {
                let logits = Tensor::<2>::from_floats(LOGITS, &Device::flex());
                let loss = compute(logits, &[3, 0, IGNORED], smoothing, 0.5).unwrap();
                let value = loss.value.read().unwrap();
                assert!((value - want).abs() < 1e-6, "{value} != {want}");
            }
        }
    }

    #[test]
    fn fused_equals_its_composition() {
        let plain = device();
        let device = plain.clone().autodiff();
        let labels: Vec<i32> =
            (0..130).map(|row| if row % 7 == 3 { IGNORED } else { row * 31 % 501 }).collect();
        let logits = (Tensor::<1, Int>::arange(0..130 * 501, &plain).float() * 0.737).sin() * 6.0;
        let logits = logits.reshape([130, 501]).into_data();
        for smoothing in [0.0, 0.1] {
            // The objective counts three times, as in a sum of losses.
            let run = |compute: Compute| {
                let logits = Tensor::<2>::from_data(logits.clone(), &device).require_grad();
                let loss = compute(logits.clone(), &labels, smoothing, 0.25).unwrap();
                let mut gradients = (loss.objective * 3.0).backward();
                (loss.value.read().unwrap(), logits.grad_remove(&mut gradients).unwrap())
            };
            let ((value, gradient), (want, want_gradient)) = (run(cross_entropy), run(surrogate));
            assert!((value - want).abs() < 1e-5 * want, "{value} != {want}");
            let apart = (gradient - want_gradient).abs().max().into_scalar::<f32>();
            assert!(apart < 1e-5 * 0.75, "{apart}");
            let untracked = Tensor::<2>::from_data(logits.clone(), &plain);
            let unseen = cross_entropy(untracked, &labels, smoothing, 0.25).unwrap().value.read().unwrap();
            assert!((unseen - value).abs() < 1e-6 * value, "{unseen} without a tape");
        }
    }

    #[test]
    fn each_row_counts_by_its_weight() {
        let (labels, weights) = ([3, 0, IGNORED], [0.3, 0.0, 5.0]);
        let of_row = |row: usize| {
            let logits = Tensor::<2>::from_floats([LOGITS[row]], &Device::flex());
            cross_entropy(logits, &labels[row..row + 1], 0.0, 1.0).unwrap().value.read().unwrap()
        };
        let want = 0.3 * of_row(0);
        let device = Device::flex().autodiff();
        type Weighted = fn(Tensor<2>, &[i32], &[f32]) -> Result<Loss, TensorError>;
        let ways: [Weighted; 2] =
            [weighted_cross_entropy, |logits, labels, weights| Ok(composed(logits, labels, 0.0, weights))];
        let [fused, apart] = ways.map(|compute| {
            let logits = Tensor::<2>::from_floats(LOGITS, &device).require_grad();
            let loss = compute(logits.clone(), &labels, &weights).unwrap();
            let value = loss.value.clone().read().unwrap();
            assert!((value - want).abs() < 1e-6, "{value}, {want} is wanted");
            let gradient = logits.grad_remove(&mut loss.objective.backward()).unwrap();
            gradient.into_data().try_to_vec::<f32>().unwrap()
        });
        assert!(fused.iter().zip(&apart).all(|(a, b)| (a - b).abs() < 1e-6), "{fused:?} and {apart:?}");
        assert!(
            fused[..4].iter().any(|value| value.abs() > 0.01) && fused[4..].iter().all(|value| *value == 0.0)
        );
        let logits = Tensor::<2>::from_floats(LOGITS, &device);
        assert!(weighted_cross_entropy(logits, &labels, &weights[..2]).is_err());
    }

    #[test]
    fn gradient_is_that_of_the_loss() {
        let device = Device::flex().autodiff();
        let labels = [3, 0, IGNORED];
        let logits = Tensor::<2>::from_floats(LOGITS, &device).require_grad();
        let loss = cross_entropy(logits.clone(), &labels, 0.1, 0.5).unwrap();
        let mut gradients = loss.objective.backward();
        let gradient = logits.grad_remove(&mut gradients).unwrap().into_data();
        let gradient = gradient.as_slice::<f32>().unwrap();
        let at = |row: usize, column: usize, delta: f32| {
            let mut moved = LOGITS;
            moved[row][column] += delta;
            let logits = Tensor::<2>::from_floats(moved, &Device::flex());
            cross_entropy(logits, &labels, 0.1, 0.5).unwrap().value.read().unwrap()
        };
        for row in 0..3 {
            for column in 0..4 {
                let numeric = (at(row, column, 1e-2) - at(row, column, -1e-2)) / 2e-2;
                let got = f64::from(gradient[row * 4 + column]);
                assert!((got - numeric).abs() < 1e-4, "[{row},{column}]: {got} != {numeric}");
            }
        }
    }

    #[test]
    fn a_label_outside_the_classes_is_refused() {
        let logits = Tensor::<2>::zeros([1, 4], &Device::flex());
        assert!(cross_entropy(logits, &[4], 0.0, 1.0).is_err());
    }
}
