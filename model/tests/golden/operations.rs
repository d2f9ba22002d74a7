//! Operations of a device against computations in f64 that share nothing with burn.
//!
//! The shapes are those of the model's narrow outputs and of its attention: burn's reports #5122 (a matrix
//! times a column, then element-wise operations) and #4366 (a long chain of operations that is read at its
//! end only) say that fused kernels got such things wrong.

use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::activation::Activation;
use burn::tensor::activation::softmax;
use burn::tensor::module::layer_norm;
use burn::tensor::{Tensor, TensorData};

use crate::fixture::{device, is_cpu};

/// Largest difference of a chain of operations, relative to the largest value.
const CHAIN_TOLERANCE: f64 = 2e-5;

/// Values that look random, in -1..1 and the same everywhere.
fn wave(count: usize, phase: f64) -> Vec<f32> {
    (0..count).map(|i| ((i as f64 * 12.9898 + phase).sin() * 4375.85).fract() as f32).collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn assert_chain<const D: usize>(what: &str, got: Tensor<D>, want: &[f64]) {
    let got = floats(got).unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let apart = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs());
    // A value that is not a number is as far as can be.
    let apart = apart.fold(0.0_f64, |most, apart| if apart >= most || apart.is_nan() { apart } else { most });
    let relative = apart / largest;
    println!("{what}: {relative:.1e}");
    assert!(
        relative < CHAIN_TOLERANCE,
        "{what}: differs by {relative} of the largest value; {got:?} not {want:?}"
    );
}

/// `left · right` for matrices of `rows × inner` and `inner × columns`.
fn product(left: &[f64], right: &[f64], inner: usize, columns: usize) -> Vec<f64> {
    let entry = |row: &[f64], column| (0..inner).map(|i| row[i] * right[i * columns + column]).sum();
    left.chunks(inner).flat_map(|row| (0..columns).map(move |column| entry(row, column))).collect()
}

/// `(x - mean) / sqrt(variance + epsilon)` of each row.
fn normed(x: &[f64], width: usize, epsilon: f64) -> Vec<f64> {
    let row = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        row.iter().map(|x| (x - mean) / (variance + epsilon).sqrt()).collect()
    };
    x.chunks(width).flat_map(row).collect()
}

fn gelu_f64(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
}

/// A function of one number: its name, on the device, in f64, the range that is looked at, and whether the
/// error is relative to the value (else to 1).
type Function = (&'static str, fn(Tensor<1>) -> Tensor<1>, fn(f64) -> f64, [f64; 2], bool);

const FUNCTIONS: [Function; 9] = [
    ("exp", |x| x.exp(), f64::exp, [-20.0, 10.0], true),
    ("log", |x| x.log(), f64::ln, [1e-3, 1e3], false),
    ("tanh", |x| x.tanh(), f64::tanh, [-5.0, 5.0], false),
    ("erf", |x| x.erf(), libm::erf, [-4.0, 4.0], false),
    ("sqrt", |x| x.sqrt(), f64::sqrt, [1e-4, 1e2], true),
    ("reciprocal", |x| x.recip(), f64::recip, [1e-3, 1e3], true),
    ("square", |x| x.powi_scalar(2), |x| x * x, [-10.0, 10.0], true),
    ("power 1.5", |x| x.powf_scalar(1.5), |x| x.powf(1.5), [1e-2, 1e2], true),
    ("gelu", |x| Activation::Gelu.forward(x), gelu_f64, [-5.0, 5.0], false),
];

#[test]
fn element_wise_functions() {
    // The CPU rounds once or twice. Vulkan asks for no more of exp and log than some units in the last place,
    // and of what has no instruction (the error function) for nothing; burn's is good to 1.5e-7.
    let tolerance = if is_cpu() { 1e-6 } else { 5e-6 };
    let mut too_far = Vec::new();
    for (name, on_device, in_f64, [low, high], relative) in FUNCTIONS {
        let count = 4001;
        let at = |i: usize| (low + (high - low) * i as f64 / (count - 1) as f64) as f32;
        let x: Vec<f32> = (0..count).map(at).collect();
        let got = floats(on_device(tensor(&x, [count]))).unwrap();
        let error = |(x, got): (&f32, &f32)| {
            let want = in_f64(f64::from(*x));
            let scale = if relative { want.abs().max(f64::MIN_POSITIVE) } else { 1.0 };
            let error = (f64::from(*got) - want).abs() / scale;
            if error.is_nan() { f64::INFINITY } else { error }
        };
        let most = x.iter().zip(&got).map(error).fold(0.0, f64::max);
        println!("{name}: {most:.1e}");
        if most > tolerance {
            too_far.push(format!("{name} by {most:.1e}"));
        }
    }
    assert!(too_far.is_empty(), "more than {tolerance:.0e} from f64: {too_far:?}");
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
fn gelu_new_f64(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// The activations' derivatives, by the central difference of the function in f64.
#[test]
fn derivatives_of_activations() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let x: Vec<f32> = (0..2001).map(|i| (i - 1000) as f32 / 200.0).collect();
    let functions: [(Activation, &dyn Fn(f64) -> f64); 4] = [
        (Activation::Gelu, &gelu_f64),
        (Activation::GeluNew, &gelu_new_f64),
        (Activation::QuickGelu, &|x| x * sigmoid(1.702 * x)),
        (Activation::Silu, &|x| x * sigmoid(x)),
    ];
    for (activation, in_f64) in functions {
        let data = TensorData::new(x.clone(), [x.len()]);
        let input = Tensor::<1>::from_data(data, &device().autodiff()).require_grad();
        let mut gradients = activation.forward(input.clone()).sum().backward();
        let got = input.grad_remove(&mut gradients).unwrap();
        let step = 1e-5;
        let slope = |x: &f32| {
            let x = f64::from(*x);
            (in_f64(x + step) - in_f64(x - step)) / (2.0 * step)
        };
        assert_chain(&format!("{activation:?}"), got, &x.iter().map(slope).collect::<Vec<_>>());
    }
}

/// A matrix times a narrow matrix, whose product is used twice in element-wise operations.
#[test]
fn narrow_products_in_element_wise_chains() {
    for (rows, inner, columns) in [
        (4, 3, 1),
        (5, 9, 1),
        (8, 16, 1),
        (12, 32, 1),
        (32, 64, 1),
        (33, 48, 1),
        (256, 64, 1),
        (8, 32, 2),
        (96, 64, 2),
        (1, 64, 33),
        (1, 32, 1),
    ] {
        let what = format!("{rows}x{inner} · {inner}x{columns}");
        let (left, right, bias) = (wave(rows * inner, 0.1), wave(inner * columns, 0.7), wave(columns, 1.9));
        let plain = product(&wide(&left), &wide(&right), inner, columns);
        let out = tensor(&left, [rows, inner]).matmul(tensor(&right, [inner, columns]));
        let doubled: Vec<f64> = plain.iter().map(|x| x + x).collect();
        assert_chain(&format!("{what}, doubled"), out.clone() + out, &doubled);

        let biased = tensor(&left, [rows, inner]).matmul(tensor(&right, [inner, columns]));
        let biased = (biased + tensor(&bias, [1, columns])).tanh();
        let want: Vec<f64> =
            plain.iter().enumerate().map(|(i, x)| (x + f64::from(bias[i % columns])).tanh()).collect();
        assert_chain(&format!("{what}, bias and tanh"), biased, &want);

        // The same as a batch of two, by a matrix that is broadcast, as a linear map does.
        let batch = tensor(&[left.clone(), left].concat(), [2, rows, inner]);
        let out = batch.matmul(tensor(&right, [1, inner, columns]));
        let halves: Vec<f64> = [plain.clone(), plain].concat().iter().map(|x| x * 0.5 + x * x).collect();
        assert_chain(&format!("{what}, batched"), out.clone() * 0.5 + out.clone() * out, &halves);
    }
}

/// Several linear maps with a narrow last one, in one go.
#[test]
fn a_small_network_with_one_output() {
    for rows in [1, 2, 5, 8, 33] {
        let widths = [36, 64, 9, 1];
        let first = wave(rows * widths[0], 0.3);
        let mut want = wide(&first);
        let mut got = tensor(&first, [rows, widths[0]]);
        for (layer, pair) in widths.windows(2).enumerate() {
            let scale = 1.0 / (pair[0] as f32).sqrt();
            let matrix: Vec<f32> =
                wave(pair[0] * pair[1], layer as f64).iter().map(|value| value * scale).collect();
            let bias = wave(pair[1], 5.0 + layer as f64);
            got = (got.matmul(tensor(&matrix, [pair[0], pair[1]])) + tensor(&bias, [1, pair[1]])).tanh();
            let sums = product(&want, &wide(&matrix), pair[0], pair[1]);
            want = sums.iter().enumerate().map(|(i, x)| (x + f64::from(bias[i % pair[1]])).tanh()).collect();
        }
        assert_chain(&format!("{rows} rows"), got, &want);
    }
}

/// A block of a transformer with one head a row: attention with a mask, sum, norm, GELU, norm.
fn block_f64(x: &[f64], mask: &[f64], length: usize, width: usize) -> Vec<f64> {
    let mut attended = Vec::new();
    for row in x.chunks(width) {
        let scale = 1.0 / (width as f64).sqrt();
        let scores: Vec<f64> = (0..length)
            .map(|key| {
                let dot: f64 = row.iter().zip(&x[key * width..]).map(|(a, b)| a * b).sum();
                dot * scale + mask[key]
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (i, own) in row.iter().enumerate() {
            let mixed: f64 = (0..length).map(|key| weights[key] / sum * x[key * width + i]).sum();
            attended.push(mixed + own);
        }
    }
    let inner: Vec<f64> = normed(&attended, width, 1e-6);
    let outer: Vec<f64> = inner.iter().map(|x| gelu_f64(*x) + x).collect();
    normed(&outer, width, 1e-6)
}

/// Blocks one after the other, nothing read before the end; lengths that fill no tile.
#[test]
fn a_long_chain_that_is_read_at_its_end() {
    let depth = 4;
    for (batch, heads, length, width) in [(2, 2, 7, 16), (1, 4, 33, 32), (3, 1, 1, 16), (2, 3, 17, 24)] {
        let count = batch * heads * length * width;
        let first: Vec<f32> = wave(count, 0.9).iter().map(|value| value * 2.0).collect();
        // The last key of the first row is masked, where there is another.
        let masked = |row: usize, key: usize| row == 0 && key > 0 && key + 1 == length;
        let mask: Vec<f32> =
            (0..batch * length).map(|i| if masked(i / length, i % length) { -1e4 } else { 0.0 }).collect();
        let mut want = wide(&first);
        for _ in 0..depth {
            let heads_of = want.chunks(length * width).enumerate();
            want = heads_of
                .flat_map(|(i, x)| {
                    let row = i / heads;
                    block_f64(x, &wide(&mask[row * length..(row + 1) * length]), length, width)
                })
                .collect();
        }
        let (ones, zeros) = (Tensor::ones([width], &device()), Tensor::zeros([width], &device()));
        let bias = tensor(&mask, [batch, 1, 1, length]);
        // In the layout that projections leave: the heads of a position beside each other.
        let mut x = tensor(&first, [batch, heads, length, width]).swap_dims(1, 2);
        for _ in 0..depth {
            let split = x.clone().swap_dims(1, 2);
            let scores = split.clone().matmul(split.clone().swap_dims(2, 3)) * (1.0 / (width as f64).sqrt());
            let mixed = softmax(scores + bias.clone(), 3).matmul(split).swap_dims(1, 2);
            let inner = layer_norm(mixed + x, ones.clone(), Some(zeros.clone()), 1e-6);
            x = layer_norm(
                Activation::Gelu.forward(inner.clone()) + inner,
                ones.clone(),
                Some(zeros.clone()),
                1e-6,
            );
        }
        let what = format!("{batch} rows, {heads} heads, {length} positions of {width}");
        assert_chain(&what, x.swap_dims(1, 2), &want);
    }
}
