//! The published sizes, counted from shapes: no weight matrix is ever allocated.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::language::llama::{Llama, LlamaConfig};
use crate::language::opt::{Opt, OptConfig};
use crate::language::t5::{T5, T5Config};
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use blip2_tensors::train::flat::FlatLayout;

/// Tensors of so few elements may be there: vectors, and an image encoder's patches and positions.
const SMALL: usize = 1 << 20;

/// Parameters of a model that holds no matrix yet, before and after they are counted.
pub(crate) fn count(mut model: impl NamedTensors) -> usize {
    struct Unallocated;
    impl TensorVisitor for Unallocated {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let small = tensor.lazy_shape().iter().product::<usize>() <= SMALL;
            assert!(small || !tensor.is_initialized(), "{name} was allocated");
            Ok(())
        }
    }
    let count = FlatLayout::of(&mut model).unwrap().len();
    model.visit_tensors("", &mut Unallocated).unwrap();
    count
}

#[test]
fn opt() {
    for (width, depth, heads, want) in [
        (768, 12, 12, 125_239_296_usize),
        (2048, 24, 32, 1_315_758_080),
        (2560, 32, 32, 2_651_596_800),
        (4096, 32, 32, 6_658_473_984),
        (5120, 40, 40, 12_853_473_280),
        (7168, 48, 56, 29_974_540_288),
        (9216, 64, 72, 65_719_701_504),
    ] {
        let config = OptConfig::of_sizes(width, depth, heads);
        assert_eq!(count(Opt::new(&config, &Device::flex()).unwrap()), want, "width {width}");
    }
    assert_eq!(count(Opt::new(&OptConfig::opt_350m(), &Device::flex()).unwrap()), 331_196_416);
}

#[test]
fn flan_t5() {
    for (name, width, intermediate, depth, heads, want) in [
        ("small", 512, 1024, 8, 6, 76_961_152_usize),
        ("base", 768, 2048, 12, 12, 247_577_856),
        ("large", 1024, 2816, 24, 16, 783_150_080),
        ("XL", 2048, 5120, 24, 32, 2_849_757_184),
        ("XXL", 4096, 10240, 24, 64, 11_135_332_352),
    ] {
        let config = T5Config::flan(width, intermediate, depth, heads);
        assert_eq!(count(T5::new(&config, &Device::flex()).unwrap()), want, "{name}");
    }
}

#[test]
fn llama() {
    let seven = LlamaConfig::default();
    let thirteen =
        LlamaConfig { width: 5120, depth: 40, heads: 40, intermediate: 13824, ..LlamaConfig::default() };
    for (name, config, want) in [
        ("7B", seven, 6_738_415_616_usize),
        ("13B", thirteen, 13_015_864_320),
        ("SmolLM2-135M", LlamaConfig::smollm2_135m(), 134_515_008),
    ] {
        assert_eq!(count(Llama::new(&config, &Device::flex()).unwrap()), want, "{name}");
    }
}
