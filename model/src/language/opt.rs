//! OPT, the frozen decoder-only language model of the generate task: learned positions.

mod config;
mod ends;
mod layer;

pub use config::OptConfig;

use super::decoder_only::DecoderOnly;
use layer::OptLayer;

/// An OPT language model; its names start with `opt_model`.
pub(crate) type Opt = DecoderOnly<OptLayer>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::filled::filled;
    use crate::language::decoder_only::tests::{in_pieces_as_at_once, padded_as_not, tokens};
    use blip2_tensors::device::read_back::floats;
    use burn::tensor::{Device, Int, Tensor};

    fn sizes() -> OptConfig {
        OptConfig {
            width: 8,
            depth: 2,
            heads: 2,
            intermediate: 16,
            vocab_size: 11,
            max_position_embeddings: 12,
            ..OptConfig::default()
        }
    }

    pub(crate) fn small() -> Opt {
        filled(Opt::new(&sizes(), &Device::flex()).unwrap())
    }

    /// The layout of OPT-350M.
    pub(crate) fn small_350m() -> Opt {
        let config = OptConfig { embed_width: Some(4), pre_norm: false, ..sizes() };
        filled(Opt::new(&config, &Device::flex()).unwrap())
    }

    /// Scores at the second and the last of five positions, computed by `transformers`' `OPTForCausalLM` with
    /// the same weights.
    const REFERENCE_350M: [[f32; 11]; 2] = [
        [
            0.72626, -0.50735, 0.2646, -0.00942, -0.24621, 0.49026, -0.71129, 0.89889, -1.04425, 1.14055,
            -1.18325,
        ],
        [
            0.71017, -0.49366, 0.25395, -0.00232, -0.24943, 0.48946, -0.70648, 0.89031, -1.03231, 1.12581,
            -1.1664,
        ],
    ];
    const REFERENCE_WITHOUT_FINAL_NORM: [[f32; 11]; 2] = [
        [
            -3.24893, 2.25503, 7.34016, 11.0619, 12.72899, 12.03177, 9.09974, 4.47751, -0.9764, -6.24891,
            -10.3608,
        ],
        [
            -5.10337, -0.44461, 4.29676, 8.24003, 10.65278, 11.08687, 9.46165, 6.07901, 1.56723, -3.23562,
            -7.43754,
        ],
    ];

    #[test]
    fn norms_behind_the_layers_and_projected_embeddings_equal_the_reference() {
        let bare = OptConfig { no_final_norm: true, ..sizes() };
        let bare = filled(Opt::new(&bare, &Device::flex()).unwrap());
        for (model, want) in [(small_350m(), REFERENCE_350M), (bare, REFERENCE_WITHOUT_FINAL_NORM)] {
            let ids = Tensor::<2, Int>::from_ints([[2, 5, 6, 7, 8]], &Device::flex());
            let logits = model.forward(model.embed(ids.clone()), ids.ones_like()).unwrap();
            for (position, want) in [1, 4].into_iter().zip(want) {
                let want = Tensor::<1>::from_floats(want, &Device::flex()).reshape([1, 1, 11]);
                // The reference's numbers have five decimals.
                within(2e-5, logits.clone().narrow(1, position, 1), want);
            }
        }
    }

    fn within(bound: f32, got: Tensor<3>, want: Tensor<3>) {
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference < bound, "{difference}");
    }

    #[test]
    fn reading_in_pieces_equals_reading_at_once() {
        [small(), small_350m()].iter().for_each(in_pieces_as_at_once);
    }

    #[test]
    fn left_padding_changes_nothing() {
        padded_as_not(&small());
    }

    #[test]
    fn the_gradient_reaches_the_inputs_and_no_weight() {
        let model = small();
        let (ids, mask) = tokens([[2, 5, 6, 7, 8], [2, 8, 9, 3, 4]]);
        let embeds = Tensor::<3>::from_inner(model.embed(ids)).require_grad();
        let logits = model.forward(embeds.clone(), mask).unwrap();
        let mut gradients = logits.narrow(1, 2, 1).square().sum().backward();
        let gradient = embeds.grad_remove(&mut gradients).unwrap();
        let of = |position: usize| floats(gradient.clone().narrow(1, position, 1)).unwrap();
        assert!(of(0).iter().any(|value| value.abs() > 1e-6));
        assert!(of(3).iter().all(|value| value.abs() < 1e-6), "a later token has no influence");
        assert!(model.embed_tokens.weight.val().grad(&gradients).is_none());
    }

    #[test]
    fn sequences_beyond_the_position_table_are_refused() {
        let model = small();
        let mask = Tensor::<2, Int>::ones([1, 13], &Device::flex());
        let embeds = Tensor::<3>::zeros([1, 13, 8], &Device::flex());
        let error = model.forward(embeds, mask).unwrap_err().to_string();
        assert!(error.contains("13 positions") && error.contains("12"), "{error}");
    }
}
