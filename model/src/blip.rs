//! BLIP: the captioner that writes synthetic captions and the filter that judges captions (arXiv 2201.12086);
//! both frozen, for curation.

mod by_image;
mod captioner;
mod config;
mod open;
mod retrieval;
mod text;
mod vision;

pub use captioner::BlipCaptioner;
pub use config::BlipConfig;
pub use retrieval::{BlipRetrieval, MatchedImages};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filled::filled;
    use crate::language::generation::{GenerateOptions, Sampling};
    use crate::qformer::QFormerConfig;
    use crate::vision::EvaConfig;
    use blip2_tensors::nn::tensors::NamedTensors;
    use blip2_tensors::train::flat::FlatLayout;
    use burn::tensor::{Device, Int, Tensor};

    fn config(vision: EvaConfig, text: QFormerConfig) -> BlipConfig {
        BlipConfig { vision, text, projection: 256, start_token: 5, end_token: 3, pad_token: 0 }
    }

    /// ViT-L/16 at 384 px and BERT-base.
    fn large() -> BlipConfig {
        let vision = EvaConfig {
            width: 1024,
            depth: 24,
            heads: 16,
            intermediate: 4096,
            image_size: 384,
            patch_size: 16,
            layer_norm_eps: 1e-5,
        };
        config(vision, QFormerConfig::new(1024).with_vocab(30524).with_cross_attention_frequency(1))
    }

    fn small() -> BlipConfig {
        let vision = EvaConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            image_size: 8,
            patch_size: 4,
            layer_norm_eps: 1e-5,
        };
        let text = QFormerConfig::new(8).with_hidden(8).with_layers(2).with_heads(2).with_intermediate(8);
        config(vision, text.with_vocab(12).with_max_positions(6).with_cross_attention_frequency(1))
    }

    fn count(mut model: impl NamedTensors) -> usize {
        FlatLayout::of(&mut model).unwrap().len()
    }

    #[test]
    fn the_large_models_have_the_published_number_of_parameters() {
        let device = Device::flex();
        assert_eq!(count(BlipCaptioner::new(&large(), &device)), 446_290_492);
        assert_eq!(count(BlipRetrieval::new(&large(), &device)), 446_128_642);
    }

    #[test]
    fn a_filter_ignores_padding_and_sees_the_image() {
        let device = Device::flex();
        let model = filled(BlipRetrieval::new(&small(), &device));
        let wave = |phase: f32| (Tensor::<1, Int>::arange(0..192, &device).float() + phase).sin();
        let features = |phase| model.image_features(wave(phase).reshape([1, 3, 8, 8])).unwrap();
        let logits = |features: &Tensor<3>, ids: [i32; 4], mask: [i32; 4]| {
            let tensor = |row: [i32; 4]| Tensor::<2, Int>::from_ints([row], &device);
            model.match_logits(features, tensor(ids), tensor(mask)).unwrap()
        };
        let difference = |a: Tensor<2>, b: Tensor<2>| (a - b).abs().max().into_scalar::<f32>();
        let (one, other) = (features(0.0), features(1.0));
        let base = logits(&one, [2, 7, 3, 0], [1, 1, 1, 0]);
        assert!(difference(base.clone(), logits(&one, [2, 7, 3, 9], [1, 1, 1, 0])) < 1e-5);
        assert!(difference(base, logits(&other, [2, 7, 3, 0], [1, 1, 1, 0])) > 1e-4);
    }

    /// Two images, of which the second is asked about twice, in an order that is not that of the images.
    #[test]
    fn texts_share_a_image_as_if_each_had_its_own() {
        let device = Device::flex();
        let model = filled(BlipRetrieval::new(&small(), &device));
        let pixels = Tensor::<1, Int>::arange(0..384, &device).float().sin().reshape([2, 3, 8, 8]);
        let features = model.image_features(pixels).unwrap();
        let ids = Tensor::<2, Int>::from_ints([[2, 7, 3, 0], [2, 8, 9, 3], [2, 4, 3, 0]], &device);
        let mask = ids.clone().not_equal_elem(0).int();
        let images = [1, 0, 1];
        let shared = model.match_logits_of(&model.look(&features), &images, ids.clone(), mask.clone());
        let own = Tensor::<1, Int>::from_ints(images, &device);
        let own = model.match_logits(&features.clone().select(0, own), ids.clone(), mask.clone()).unwrap();
        assert!((shared.unwrap() - own).abs().max().into_scalar::<f32>() < 1e-6);
        for images in [&[0, 1][..], &[0, 1, 2]] {
            let seen = model.look(&features);
            let error = model.match_logits_of(&seen, images, ids.clone(), mask.clone()).unwrap_err();
            assert!(error.to_string().contains("of 2 pictures"), "{error}");
        }
    }

    /// Rows leave while others go on, so that images lose some of their texts and then all.
    #[test]
    fn texts_of_a_image_are_those_that_are_written_one_by_one() {
        const TEXTS: usize = 3;
        let device = Device::flex();
        let model = filled(BlipCaptioner::new(&small(), &device));
        let pixels = Tensor::<1, Int>::arange(0..384, &device).float().sin().reshape([2, 3, 8, 8]);
        let features = model.image_features(pixels).unwrap();
        let written = |features: Tensor<3>, texts, numbers: Vec<u64>| {
            let sampling = Sampling { temperature: 5.0, seed: 3, numbers, ..Sampling::default() };
            let sampling = Some(sampling);
            let options =
                GenerateOptions { max_new_tokens: 4, eos: vec![10], sampling, ..GenerateOptions::default() };
            model.generate_several(features, &[7], texts, &options).unwrap()
        };
        let all = 2 * TEXTS as u64;
        let together = written(features.clone(), TEXTS, (0..all).map(|row| 40 + row).collect());
        let lengths: std::collections::BTreeSet<usize> = together.iter().map(Vec::len).collect();
        assert!(lengths.len() > 1, "all texts end together: {together:?}");
        for row in 0..2 * TEXTS {
            let image = features.clone().narrow(0, row / TEXTS, 1);
            assert_eq!(written(image, 1, vec![40 + row as u64]), together[row..=row]);
        }
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let model = filled(BlipCaptioner::new(&small(), &device));
        let features = model.image_features(Tensor::ones([1, 3, 8, 8], &device)).unwrap();
        let error = |ids: Tensor<2, Int>| {
            let mask = Tensor::ones(ids.dims(), &device);
            model.logits(features.clone(), ids, mask).unwrap_err().to_string()
        };
        assert!(error(Tensor::ones([1, 7], &device)).contains("7 tokens"));
        assert!(error(Tensor::from_ints([[1, 12]], &device)).contains("token 12"));
        assert!(error(Tensor::ones([2, 2], &device)).contains("[2, 2]"));
    }
}
