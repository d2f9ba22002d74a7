//! Activations of frozen models in bf16 stay in bf16.

use std::path::{Path, PathBuf};

use blip2_model::language::LanguageModel;
use blip2_model::vision::ImageEncoder;
use blip2_tensors::device::cast::casts;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::error::TensorError;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};

fn backbone(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// Number of linear maps, each of which would cast its input and its output if activations were float32.
fn maps(model: &mut impl NamedTensors) -> usize {
    struct Maps(usize);
    impl TensorVisitor for Maps {
        type Error = TensorError;

        fn visit<const D: usize>(&mut self, name: &str, _: &mut Param<Tensor<D>>) -> Result<(), TensorError> {
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
    for (name, want) in [("eva-tiny", 1 + 6 * 6), ("clip-tiny", 2 + 2 * 6)] {
        let mut encoder = ImageEncoder::open(&backbone(name), &place).unwrap();
        let size = encoder.image_size();
        let pixels = Tensor::zeros([1, 3, size, size], &place.device);
        let casts = casts::during(|| encoder.forward(pixels).unwrap());
        assert_casts(name, &mut encoder, casts, want);
    }
    // OPT has no cast for its activation; T5 has three norms in a layer of its decoder, and casts tables
    // and scores.
    for (name, want) in [("opt-tiny", 2 + 4 * 4 + 2), ("t5-scenes", 38)] {
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
