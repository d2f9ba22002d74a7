//! The folders of reference numbers and how they are compared.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use blip2_model_files::error::ModelError;
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::buckets::GradientBuckets;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::tape::{Segment, Tape};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Largest difference of an activation.
pub(crate) const ACTIVATION_TOLERANCE: f64 = 5e-5;

/// Largest difference of a gradient, relative to its norm.
pub(crate) const GRADIENT_TOLERANCE: f64 = 1e-4;

/// Largest difference, relative to its norm, of a gradient that is computed in another order.
const SAME_TOLERANCE: f64 = 1e-6;

/// The same on other devices, where a tape that is cut elsewhere is fused to other kernels, with other
/// roundings.
const SAME_ON_DEVICES: f64 = 1e-5;

/// Below this norm a gradient is noise: the reference's own is zero in exact arithmetic.
const GRADIENT_NOISE: f64 = 1e-7;

/// The device that all tests of this folder compute on, without autodiff: what `BLIP2_TEST_DEVICE` names, or
/// the CPU.
pub(crate) fn device() -> Device {
    device_name().open().unwrap_or_else(|error| panic!("BLIP2_TEST_DEVICE: {error}"))
}

/// Whether that device is the CPU.
pub(crate) fn is_cpu() -> bool {
    device_name() == DeviceName::Cpu
}

fn device_name() -> DeviceName {
    static DEVICE: LazyLock<DeviceName> = LazyLock::new(|| {
        let name = std::env::var("BLIP2_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
        name.parse().unwrap_or_else(|error| panic!("BLIP2_TEST_DEVICE: {error}"))
    });
    *DEVICE
}

/// One folder of reference numbers.
pub(crate) struct Fixture {
    folder: PathBuf,
}

/// The cases whose folder names start with `prefix`.
///
/// # Panics
/// If there is none: a test that compares nothing must not pass.
pub(crate) fn cases(prefix: &str) -> Vec<Fixture> {
    let root = std::env::var_os("BLIP2_GOLDEN_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"), PathBuf::from);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{}: no case {prefix}*", root.display());
    folders.into_iter().map(|folder| Fixture { folder }).collect()
}

impl Fixture {
    /// The folder's name.
    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A folder in the folder, where it exists.
    pub(crate) fn part(&self, name: &str) -> Option<Fixture> {
        let folder = self.folder.join(name);
        folder.is_dir().then_some(Fixture { folder })
    }

    /// A JSON file.
    pub(crate) fn json(&self, file: &str) -> Value {
        let path = self.path(file);
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A safetensors file.
    pub(crate) fn tensors(&self, file: &str) -> Tensors {
        let path = self.path(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Tensors { path, bytes }
    }
}

/// The tensors of one file.
pub(crate) struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.file().names().into_iter().map(str::to_string).collect();
        names.sort();
        names
    }

    /// Number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.file().len()
    }

    /// The values of a float tensor, if it is there.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<f32>> {
        let file = self.file();
        let view = file.tensor(name).ok()?;
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }

    fn shape<const D: usize>(&self, name: &str) -> [usize; D] {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        view.shape().try_into().unwrap_or_else(|_| panic!("{name} has shape {:?}", view.shape()))
    }

    /// A float tensor.
    pub(crate) fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, values) = self.values::<D>(name);
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    /// Shape and values of a float tensor, which no device touches.
    pub(crate) fn values<const D: usize>(&self, name: &str) -> ([usize; D], Vec<f32>) {
        (self.shape::<D>(name), self.find(name).unwrap())
    }

    /// The values of an integer tensor.
    pub(crate) fn ints(&self, name: &str) -> Vec<i32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect()
    }

    /// An integer tensor.
    pub(crate) fn int_tensor<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let shape = self.shape::<D>(name);
        Tensor::from_data(TensorData::new(self.ints(name), shape), &device())
    }

    /// Images, token ids and mask of step `index` of a trajectory.
    pub(crate) fn batch(&self, index: usize) -> (Tensor<4>, Vec<i32>, Vec<i32>) {
        let name = |part: &str| format!("step{index}.{part}");
        (self.tensor::<4>(&name("image")), self.ints(&name("input_ids")), self.ints(&name("attention_mask")))
    }
}

/// Compares an activation with the reference's, on the host: a device that computes nothing finds no
/// difference.
pub(crate) fn assert_close<const D: usize>(
    fixture: &Fixture,
    name: &str,
    got: Tensor<D>,
    (shape, want): ([usize; D], Vec<f32>),
) {
    let case = fixture.folder.display();
    assert_eq!(got.dims(), shape, "{case}: {name}");
    let difference = largest_difference(&floats(got).unwrap(), &want);
    assert!(difference < ACTIVATION_TOLERANCE, "{case}: {name} differs by {difference}");
}

/// The largest difference of two values; infinite where one of them is not a number.
pub(crate) fn largest_difference(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let differences = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - f64::from(*want)).abs());
    differences.map(|apart| if apart.is_nan() { f64::INFINITY } else { apart }).fold(0.0, f64::max)
}

#[test]
fn differences_are_the_largest_and_what_is_no_number_is_infinitely_far() {
    assert_eq!(largest_difference(&[1.0, -2.0, 0.0], &[1.0, 2.0, 0.5]), 4.0);
    assert_eq!(largest_difference(&[], &[]), 0.0);
    for (got, want) in [(f32::NAN, 0.0), (0.0, f32::NAN), (f32::INFINITY, f32::INFINITY)] {
        assert_eq!(largest_difference(&[got, 0.0], &[want, 0.0]), f64::INFINITY, "{got} and {want}");
    }
}

/// The gradient of `objective` in the model's layout, by parts that are as small as can be.
pub(crate) fn flat_gradient(
    model: &mut impl NamedTensors,
    layout: &FlatLayout,
    tape: Tape,
    objective: Tensor<1>,
) -> Vec<f32> {
    let parts = GradientBuckets::of(layout, 1);
    let mut buffers = parts.buffers();
    let mut flat = vec![0.0; layout.len()];
    let mut complete = 0;
    let collect = |segment, gradients: &mut _| -> Result<(), ModelError> {
        for (part, values) in buffers.take(model, gradients, segment)? {
            parts.buckets()[part].copy_into(&values, &mut flat);
            complete += 1;
        }
        Ok(())
    };
    tape.backward(objective, collect).unwrap();
    assert_eq!(complete, parts.buckets().len());
    flat
}

/// The gradients of a model's tensors in its layout, where nothing was cut.
pub(crate) fn gradients_of(
    model: &mut impl NamedTensors,
    layout: &FlatLayout,
    gradients: &mut Gradients,
) -> Vec<f32> {
    let parts = GradientBuckets::of(layout, usize::MAX);
    let mut flat = vec![0.0; layout.len()];
    for (part, values) in parts.buffers().take(model, gradients, Segment::Inputs).unwrap() {
        parts.buckets()[part].copy_into(&values, &mut flat);
    }
    flat
}

/// Compares two gradients of the same objective.
pub(crate) fn assert_same_gradient(what: &str, layout: &FlatLayout, got: &[f32], want: &[f32]) {
    let tolerance = if is_cpu() { SAME_TOLERANCE } else { SAME_ON_DEVICES };
    for tensor in layout.tensors() {
        let (got, want) = (&got[tensor.range()], &want[tensor.range()]);
        assert_within(tolerance, what, &tensor.name, got, want);
    }
}

/// Compares a gradient, relative to its norm.
pub(crate) fn assert_relative(what: &str, name: &str, got: &[f32], want: &[f32]) {
    assert_within(GRADIENT_TOLERANCE, what, name, got, want);
}

/// Compares a gradient: `tolerance` is relative to its norm.
pub(crate) fn assert_within(tolerance: f64, what: &str, name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: {name}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let size = norm(&mut want.iter().map(|value| f64::from(*value)));
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let allowed = (tolerance * size).max(GRADIENT_NOISE);
    assert!(difference < allowed, "{what}: gradient of {name} differs by {difference}, its norm is {size}");
}
