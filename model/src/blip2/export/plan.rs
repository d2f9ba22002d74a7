//! Which tensors are written, under which names, and the walk over a model that writes them.

use std::ops::Range;

use burn::module::Param;
use burn::tensor::Tensor;

use super::precision::Precision;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// Numbers that are converted at a time.
const CHUNK: usize = 1 << 18;

/// A tensor of a file, made of a range of one of the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

impl Target {
    /// The whole tensor under another name.
    pub(super) fn whole(name: String, shape: &[usize]) -> Self {
        Self { name, shape: shape.to_vec(), range: 0..shape.iter().product() }
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }
}

/// What becomes of a tensor, by its name and shape; nothing for one that the layout has no place for.
pub(super) type Layout<'a> = &'a dyn Fn(&str, &[usize]) -> Vec<Target>;

/// The tensors to be written for each of the model's, in the order of a visit.
pub(super) struct Plan {
    targets: Vec<Vec<Target>>,
    pub(super) precision: Precision,
}

impl Plan {
    /// No tensor is allocated for it.
    pub(super) fn new(
        model: &mut impl NamedTensors,
        layout: Layout<'_>,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        struct Shapes<'a>(Vec<Vec<Target>>, Layout<'a>);
        impl TensorVisitor for Shapes<'_> {
            type Error = ModelError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                self.0.push((self.1)(name, &tensor.lazy_shape()));
                Ok(())
            }
        }
        let mut shapes = Shapes(Vec::new(), layout);
        model.visit_tensors("", &mut shapes)?;
        Ok(Self { targets: shapes.0, precision })
    }

    /// All tensors in the order in which they are written.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().flatten()
    }
}

/// A file or several that tensors are written to, one after the other.
pub(super) trait TensorFiles {
    /// The bytes of the next tensor follow.
    fn begin(&mut self, target: &Target) -> Result<(), ModelError>;
    /// Some of them.
    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelError>;
}

/// Writes the tensors of `plan`.
pub(super) fn pour(
    model: &mut impl NamedTensors,
    plan: &Plan,
    files: &mut impl TensorFiles,
) -> Result<(), ModelError> {
    struct Pour<'a, F> {
        targets: std::slice::Iter<'a, Vec<Target>>,
        precision: Precision,
        files: &'a mut F,
    }
    impl<F: TensorFiles> TensorVisitor for Pour<'_, F> {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            _name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let targets = self.targets.next().map_or(&[][..], Vec::as_slice);
            if targets.is_empty() {
                return Ok(());
            }
            let values = floats(tensor.val())?;
            let mut bytes = Vec::new();
            for target in targets {
                self.files.begin(target)?;
                for chunk in values[target.range.clone()].chunks(CHUNK) {
                    bytes.clear();
                    self.precision.encode(&target.name, chunk, &mut bytes)?;
                    self.files.put(&bytes)?;
                }
            }
            Ok(())
        }
    }
    model.visit_tensors("", &mut Pour { targets: plan.targets.iter(), precision: plan.precision, files })
}
