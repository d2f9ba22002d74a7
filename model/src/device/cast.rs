//! Casts: the one place where values go from one kind of numbers to another.
//!
//! The residual stream of a frozen model that is kept in bf16 is bf16 too. What needs more digits on the way
//! (norms, softmax, activations, rotations) takes it to float32 and rounds its result back, once.

use burn::tensor::{DType, Tensor};

/// The same values as float32; no operation where they are.
pub(crate) fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_numbers(x, DType::F32)
}

/// The values in these numbers; no operation where they are.
pub(crate) fn in_numbers<const D: usize>(x: Tensor<D>, numbers: DType) -> Tensor<D> {
    if x.dtype() == numbers {
        return x;
    }
    #[cfg(test)]
    casts::count();
    x.cast(numbers)
}

/// A function of float32, of values in any numbers, which the result has too.
pub(crate) fn through_f32<const D: usize>(
    x: Tensor<D>,
    function: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let numbers = x.dtype();
    match numbers {
        DType::BF16 => in_numbers(function(in_f32(x)), numbers),
        _ => function(x),
    }
}

/// How many casts there were.
#[cfg(test)]
pub(crate) mod casts {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    /// The casts of this thread in `of`.
    pub(crate) fn during<T>(of: impl FnOnce() -> T) -> usize {
        let before = COUNT.get();
        of();
        COUNT.get() - before
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use burn::module::Param;
    use burn::tensor::{Device, Int};

    use super::*;
    use crate::device::placement::Placement;
    use crate::error::ModelError;
    use crate::language::LanguageModel;
    use crate::nn::tensors::{NamedTensors, TensorVisitor};
    use crate::vision::ImageEncoder;

    fn backbone(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
    }

    #[test]
    fn functions_of_float32_round_once() {
        let x = Tensor::<1>::from_floats([0.1, 1.0, 3.3], &Device::flex());
        let narrow = in_numbers(x.clone(), DType::BF16);
        let want = in_numbers(in_f32(narrow.clone()) * 0.7 + 0.3, DType::BF16);
        assert_eq!(through_f32(narrow, |x| x * 0.7 + 0.3).into_data(), want.into_data());
        assert_eq!(casts::during(|| through_f32(x, |x| x + 1.0)), 0, "float32 is not cast");
    }

    /// Number of linear maps, each of which would cast its input and its output if activations were float32.
    fn maps(model: &mut impl NamedTensors) -> usize {
        struct Maps(usize);
        impl TensorVisitor for Maps {
            fn visit<const D: usize>(
                &mut self,
                name: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                self.0 += usize::from(D == 2 && name.ends_with("weight") && !name.contains("embed"));
                Ok(())
            }
        }
        let mut maps = Maps(0);
        model.visit_tensors("", &mut maps).unwrap();
        maps.0
    }

    /// Casts in a forward pass, fewer than two for each linear map.
    fn assert_casts(name: &str, model: &mut impl NamedTensors, casts: usize, want: usize) {
        let maps = maps(model);
        assert!(casts == want && casts < 2 * maps, "{name}: {casts} casts, expected {want}, {maps} maps");
    }

    #[test]
    fn activations_stay_in_bf16_from_map_to_map() {
        let place = Placement::bf16(&Device::flex()).unwrap();
        // One at the entry, and in each layer two for each norm and two for the activation; CLIP's table of
        // positions.
        for (name, want) in [("eva-tiny", 1 + 6 * 6), ("clip-tiny", 2 + 5 * 6)] {
            let mut encoder = ImageEncoder::open(&backbone(name), &place).unwrap();
            let size = encoder.image_size();
            let pixels = Tensor::zeros([1, 3, size, size], &place.device);
            let casts = casts::during(|| encoder.forward(pixels).unwrap());
            assert_casts(name, &mut encoder, casts, want);
        }
        // OPT has no cast for its activation; T5 has three norms in a layer of its decoder, and casts tables
        // and scores.
        for (name, want) in [("opt-tiny", 2 + 4 * 4 + 2), ("t5-tiny", 65)] {
            let mut model = LanguageModel::open(&backbone(name), &place).unwrap();
            let ids = Tensor::<2, Int>::from_ints([[2, 50, 61, 70]], &place.device);
            let embeds = model.embed(ids.clone());
            let casts = casts::during(|| match model.is_encoder_decoder() {
                true => model.scores_of_written(embeds, ids.ones_like(), ids).unwrap(),
                false => model.forward(embeds, ids.ones_like()).unwrap(),
            });
            assert_casts(name, &mut model, casts, want);
        }
    }
}
