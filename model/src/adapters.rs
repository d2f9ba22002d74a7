//! Adapters of a frozen language model (LoRA, arXiv 2106.09685): to each of the maps that are named, two
//! matrices of low rank are added. They are trained, the model stays as it is and may be in bf16.
//!
//! They stand beside the model and not in it: who trains them makes an adapted copy for a pass
//! ([`Adapters::applied`]), which shares all tensors with the model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::language::LanguageModel;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{ADAPTER_DOWN, ADAPTER_UP};
use blip2_tensors::device::cast::{in_f32, in_numbers};
use blip2_tensors::error::TensorError;
use blip2_tensors::nn::adapter::Adapter;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::zeros;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// What adapters are like.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSizes {
    /// Rows of the matrix down, columns of the matrix up.
    pub rank: usize,
    /// What is added is multiplied by this over the rank.
    pub alpha: f64,
    /// The maps that are adapted, by the last part of their names; empty: the queries' and the values'.
    pub targets: Vec<String>,
}

/// The adapters of a language model's maps, in the order in which it lists these; none by default.
#[derive(Debug, Clone, Default)]
pub struct Adapters {
    rank: usize,
    alpha: f64,
    targets: Vec<&'static str>,
    /// How the names of the language model's tensors begin.
    prefix: &'static str,
    are_of_encoder_decoder: bool,
    pairs: Vec<Pair>,
}

/// A map's two matrices.
#[derive(Debug, Clone)]
struct Pair {
    /// The map's name in a whole model.
    map: String,
    /// A, `[rank, in]`.
    down: Param<Tensor<2>>,
    /// B, `[out, rank]`.
    up: Param<Tensor<2>>,
}

impl Adapters {
    /// Adapters of zeros for the language model in a folder or GGUF file, whose weights are not read.
    ///
    /// # Errors
    /// A kind of model that is not one of the families, a target that its layers do not have, rank 0.
    pub fn of_folder(folder: &Path, sizes: &AdapterSizes, device: &Device) -> Result<Self, ModelError> {
        Self::new(&mut LanguageModel::outline(folder)?, sizes, device)
    }

    /// Adapters of zeros for `model`.
    ///
    /// # Errors
    /// A target that its layers do not have, rank 0.
    pub fn new(model: &mut LanguageModel, sizes: &AdapterSizes, device: &Device) -> Result<Self, ModelError> {
        struct Maps {
            targets: Vec<&'static str>,
            found: Vec<(String, [usize; 2])>,
        }
        impl TensorVisitor for Maps {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                _: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                Ok(())
            }

            fn visit_map(&mut self, name: &str, shape: [usize; 2], _: &mut Option<Adapter>) {
                let last = name.rsplit('.').next().unwrap_or(name);
                if self.targets.contains(&last) {
                    self.found.push((name.to_owned(), shape));
                }
            }
        }
        if sizes.rank == 0 {
            return Err(ModelError::input("adapters", "rank 0, which adapts nothing"));
        }
        let targets = model.adaptable().chosen(model.model_type(), &sizes.targets)?;
        let mut maps = Maps { targets: targets.clone(), found: Vec::new() };
        let prefix = model.prefix();
        model.visit_tensors(prefix, &mut maps)?;
        let pair = |(map, [output, input]): (String, [usize; 2])| Pair {
            map,
            down: zeros([sizes.rank, input], device),
            up: zeros([output, sizes.rank], device),
        };
        let pairs = maps.found.into_iter().map(pair).collect();
        let (rank, alpha, are_of_encoder_decoder) = (sizes.rank, sizes.alpha, model.is_encoder_decoder());
        Ok(Self { rank, alpha, targets, prefix, are_of_encoder_decoder, pairs })
    }

    /// Rows of a matrix down.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// What is added is multiplied by this over the rank.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The maps that are adapted, by the last parts of their names.
    pub fn targets(&self) -> &[&'static str] {
        &self.targets
    }

    /// How their names begin: with that of the language model in a whole model.
    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Whether the language model has a part that reads and another that writes.
    pub fn are_of_encoder_decoder(&self) -> bool {
        self.are_of_encoder_decoder
    }

    fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The maps that are adapted, by their names, each with its outputs and its inputs.
    pub fn maps(&self) -> impl Iterator<Item = (&str, [usize; 2])> {
        self.pairs.iter().map(|pair| {
            (pair.map.as_str(), [pair.up.lazy_shape().dims::<2>()[0], pair.down.lazy_shape().dims::<2>()[1]])
        })
    }

    /// Their numbers, all taken together.
    pub fn parameters(&self) -> usize {
        let of = |tensor: &Param<Tensor<2>>| tensor.lazy_shape().iter().product::<usize>();
        self.pairs.iter().map(|pair| of(&pair.down) + of(&pair.up)).sum()
    }

    /// `model` with these adapters at its maps, each with a mask of its own of what it reads. All tensors are
    /// shared; the adapters' are leaves of a gradient where they are on an autodiff device.
    ///
    /// # Errors
    /// A model that lacks one of the maps.
    pub fn applied(&self, model: &LanguageModel, dropout: &mut Dropout) -> Result<LanguageModel, ModelError> {
        struct Apply<'a> {
            pairs: BTreeMap<&'a str, &'a Pair>,
            scale: f64,
            dropout: &'a mut Dropout,
        }
        impl TensorVisitor for Apply<'_> {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                _: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                Ok(())
            }

            fn visit_map(&mut self, name: &str, [output, input]: [usize; 2], adapter: &mut Option<Adapter>) {
                let Some(pair) = self.pairs.get(name) else { return };
                let (down, up) = (pair.down.val(), pair.up.val());
                if (up.dims()[0], down.dims()[1]) == (output, input) {
                    self.pairs.remove(name);
                    *adapter = Some(Adapter::new(down, up, self.scale, self.dropout));
                }
            }
        }
        let mut adapted = model.clone();
        let prefix = adapted.prefix();
        let mut apply = Apply { pairs: self.by_map(), scale: self.scale(), dropout };
        adapted.visit_tensors(prefix, &mut apply)?;
        match apply.pairs.first_key_value() {
            None => Ok(adapted),
            Some((map, _)) => Err(of_another_model(map)),
        }
    }

    /// `model` with the adapters added to its weights: what it is as a model by itself.
    ///
    /// # Errors
    /// A model that lacks one of the maps.
    pub fn merged(&self, mut model: LanguageModel) -> Result<LanguageModel, ModelError> {
        if self.pairs.is_empty() {
            return Ok(model);
        }
        struct Merge<'a> {
            pairs: BTreeMap<&'a str, &'a Pair>,
            scale: f64,
        }
        impl TensorVisitor for Merge<'_> {
            type Error = ModelError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                let map = name.strip_suffix(".weight").unwrap_or(name);
                let Some(pair) = self.pairs.remove(map) else { return Ok(()) };
                let weight = tensor.val();
                let (down, up) = (pair.down.val().inner(), pair.up.val().inner());
                if weight.dims()[..] != [up.dims()[0], down.dims()[1]] {
                    return Err(of_another_model(map));
                }
                let (numbers, shape) = (weight.dtype(), weight.dims());
                let added = (up.matmul(down) * self.scale).reshape(shape);
                *tensor = Param::initialized(tensor.id, in_numbers(in_f32(weight) + added, numbers));
                Ok(())
            }
        }
        let prefix = model.prefix();
        let mut merge = Merge { pairs: self.by_map(), scale: self.scale() };
        model.visit_tensors(prefix, &mut merge)?;
        match merge.pairs.first_key_value() {
            None => Ok(model),
            Some((map, _)) => Err(of_another_model(map)),
        }
    }

    fn by_map(&self) -> BTreeMap<&str, &Pair> {
        self.pairs.iter().map(|pair| (pair.map.as_str(), pair)).collect()
    }
}

fn of_another_model(map: &str) -> ModelError {
    ModelError::input("adapters", format!("the language model has no map `{map}` of this shape"))
}

impl NamedTensors for Adapters {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.pairs.iter_mut().try_for_each(|Pair { map, down, up }| {
            let named = |end: &str| join(prefix, &format!("{map}{end}"));
            visitor.visit(&named(ADAPTER_DOWN), down)?;
            visitor.visit(&named(ADAPTER_UP), up)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::llama::LlamaConfig;
    use crate::language::opt::OptConfig;
    use crate::language::t5::T5Config;
    use crate::language::{LanguageSizes, Texts};
    use crate::padded::Padded;
    use blip2_model_files::weights::{InitialValues, initialise};
    use blip2_tensors::device::read_back::floats;
    use blip2_tensors::train::flat::FlatLayout;
    use burn::tensor::{DType, Int};

    fn models() -> [LanguageModel; 3] {
        [
            crate::language::opt::tests::small().into(),
            crate::language::llama::tests::small().into(),
            crate::language::t5::tests::small().into(),
        ]
    }

    fn sizes(targets: &[&str]) -> AdapterSizes {
        AdapterSizes { rank: 2, alpha: 3.0, targets: targets.iter().map(|target| (*target).into()).collect() }
    }

    /// Adapters of all maps.
    fn all(model: &LanguageModel, device: &Device) -> Adapters {
        let sizes = sizes(model.adaptable().all);
        Adapters::new(&mut model.clone(), &sizes, device).unwrap()
    }

    /// Values of waves, with the sizes that initial values have.
    struct Waves;
    impl InitialValues for Waves {
        fn normal(&mut self, _: &str, count: usize) -> Vec<f32> {
            vec![f32::NAN; count]
        }

        fn uniform(&mut self, name: &str, count: usize) -> Vec<f32> {
            (0..count).map(|i| ((i + name.len()) as f32 * 1.37).sin()).collect()
        }
    }

    fn wave(width: usize) -> Tensor<3> {
        Tensor::<1, Int>::arange(0..2 * width as i64, &Device::flex()).float().sin().reshape([1, 2, width])
    }

    fn loss(model: &LanguageModel) -> f64 {
        let prefix = Padded { ids: &[2, 5], mask: &[1, 1] };
        let text = Padded { ids: &[7, 3, 9], mask: &[1; 3] };
        let texts = Texts { rows: 1, prefix, text, labels: &[7, 3, 9], weights: &[] };
        model.caption_loss(Some(wave(8)), &texts, &Device::flex()).unwrap().value.read().unwrap()
    }

    #[test]
    fn adapters_begin_as_nothing_to_the_bit_and_their_map_down_as_peft_draws_it() {
        for model in models() {
            let mut adapters = all(&model, &Device::flex());
            initialise(&mut adapters, "", &mut Waves, &Device::flex()).unwrap();
            let layout = FlatLayout::of(&mut adapters).unwrap();
            let values = layout.read(&mut adapters).unwrap();
            assert_eq!(layout.len(), adapters.parameters());
            for tensor in layout.tensors() {
                let values = &values[tensor.range()];
                if tensor.name.ends_with(ADAPTER_UP) {
                    assert!(values.iter().all(|value| *value == 0.0));
                    continue;
                }
                let largest = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
                assert!(largest <= bound && largest > 0.9 * bound, "{}: {largest}", tensor.name);
            }
            let mut dropout = Dropout::keyed(0.3, 5);
            let adapted = adapters.applied(&model, &mut dropout).unwrap();
            assert_eq!(dropout.calls() as usize, adapters.pairs.len(), "a mask for each");
            assert_eq!(loss(&adapted).to_bits(), loss(&model).to_bits(), "{}", model.model_type());
        }
    }

    #[test]
    fn merged_weights_give_what_the_adapters_give() {
        for model in models() {
            let mut adapters = all(&model, &Device::flex());
            let layout = FlatLayout::of(&mut adapters).unwrap();
            let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.913).sin() * 0.3).collect();
            layout.write(&mut adapters, &values, &Device::flex()).unwrap();
            let adapted = loss(&adapters.applied(&model, &mut Dropout::off()).unwrap());
            let merged = adapters.merged(model.clone()).unwrap();
            assert!(
                (adapted - loss(&merged)).abs() < 1e-4,
                "{}: {adapted}, {}",
                model.model_type(),
                loss(&merged)
            );
            assert!(
                (adapted - loss(&model)).abs() > 1e-2,
                "{}: the adapters do something",
                model.model_type()
            );
            // Without dropout an adapter is the same in every pass, with it another loss.
            let dropped = adapters.applied(&model, &mut Dropout::keyed(0.5, 3)).unwrap();
            assert_eq!(loss(&dropped), loss(&dropped));
            assert_ne!(loss(&dropped), adapted);
        }
    }

    #[test]
    fn the_gradient_reaches_every_adapter_and_no_weight() {
        for mut model in models() {
            let device = Device::flex().autodiff();
            let mut adapters = all(&model, &device);
            let layout = FlatLayout::of(&mut adapters).unwrap();
            let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.913).sin() * 0.3).collect();
            let objective = |adapters: &Adapters, model: &LanguageModel| {
                let prefix = Padded { ids: &[2, 5], mask: &[1, 1] };
                let text = Padded { ids: &[7, 3, 9], mask: &[1; 3] };
                let texts = Texts { rows: 1, prefix, text, labels: &[7, 3, 9], weights: &[] };
                let adapted = adapters.applied(model, &mut Dropout::off()).unwrap();
                adapted.caption_loss(Some(wave(8)), &texts, &Device::flex()).unwrap()
            };
            layout.write(&mut adapters, &values, &device).unwrap();
            let mut gradients = objective(&adapters, &model).objective.backward();
            let mut flat = vec![0.0; layout.len()];
            for pair in &adapters.pairs {
                for (end, tensor) in [(ADAPTER_DOWN, &pair.down), (ADAPTER_UP, &pair.up)] {
                    let gradient = floats(tensor.val().grad_remove(&mut gradients).unwrap()).unwrap();
                    assert!(gradient.iter().any(|value| *value != 0.0), "{}{end}", pair.map);
                    let range = layout.get(&format!("{}{end}", pair.map)).unwrap().range();
                    flat[range].copy_from_slice(&gradient);
                }
            }
            // Differences of the loss along the gradient itself.
            let square: f64 = flat.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
            let step = 1e-2 / square.sqrt() as f32;
            let mut at = |step: f32| {
                let moved: Vec<f32> = values.iter().zip(&flat).map(|(w, g)| w + step * g).collect();
                layout.write(&mut adapters, &moved, &Device::flex()).unwrap();
                objective(&adapters, &model).value.read().unwrap()
            };
            let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
            assert!((slope / square - 1.0).abs() < 2e-2, "{}: {slope} and {square}", model.model_type());
            struct Frozen;
            impl TensorVisitor for Frozen {
                type Error = TensorError;

                fn visit<const D: usize>(
                    &mut self,
                    name: &str,
                    tensor: &mut Param<Tensor<D>>,
                ) -> Result<(), TensorError> {
                    assert!(!name.contains(".lora_") && !tensor.val().is_autodiff(), "{name}");
                    Ok(())
                }
            }
            model.visit_tensors("", &mut Frozen).unwrap();
        }
    }

    #[test]
    fn queries_and_values_are_adapted_where_nothing_is_named_and_a_bf16_model_too() {
        for (model, want) in
            models().into_iter().zip([["q_proj", "v_proj"], ["q_proj", "v_proj"], ["q", "v"]])
        {
            let adapters = Adapters::new(&mut model.clone(), &sizes(&[]), &Device::flex()).unwrap();
            let last = |pair: &Pair| pair.map.rsplit('.').next().unwrap().to_owned();
            assert!(adapters.pairs.iter().all(|pair| want.contains(&last(pair).as_str())));
            assert!(
                adapters.pairs.len() >= 4
                    && adapters.pairs.iter().all(|pair| pair.map.starts_with(model.prefix()))
            );
            struct Narrow;
            impl TensorVisitor for Narrow {
                type Error = TensorError;

                fn visit<const D: usize>(
                    &mut self,
                    _: &str,
                    tensor: &mut Param<Tensor<D>>,
                ) -> Result<(), TensorError> {
                    if D == 2 {
                        *tensor = Param::from_tensor(in_numbers(tensor.val(), DType::BF16));
                    }
                    Ok(())
                }
            }
            let mut narrow = model.clone();
            narrow.visit_tensors("", &mut Narrow).unwrap();
            let adapted = adapters.applied(&narrow, &mut Dropout::off()).unwrap();
            assert_eq!(loss(&adapted).to_bits(), loss(&narrow).to_bits(), "adapters of zeros");
        }
    }

    /// The numbers that the documentation names, from shapes alone.
    #[test]
    fn published_sizes_have_so_many_numbers() {
        let count = |sizes: &dyn LanguageSizes, targets: &[&str]| {
            let mut model = LanguageModel::zeros(sizes, &Device::flex()).unwrap();
            let sizes = AdapterSizes { rank: 16, ..self::sizes(targets) };
            Adapters::new(&mut model, &sizes, &Device::flex()).unwrap().parameters()
        };
        let opt =
            OptConfig { width: 2560, depth: 32, heads: 32, intermediate: 10240, ..OptConfig::default() };
        assert_eq!(count(&opt, &[]), 5_242_880);
        assert_eq!(count(&opt, &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]), 23_592_960);
        let t5 = T5Config {
            width: 2048,
            intermediate: 5120,
            depth: 24,
            heads: 32,
            feed_forward_proj: "gated-gelu".into(),
            ..T5Config::default()
        };
        assert_eq!(count(&t5, &[]), 9_437_184);
        assert_eq!(count(&LlamaConfig::default(), &[]), 8_388_608);
    }

    #[test]
    fn what_cannot_be_adapted_is_refused() {
        let [mut opt, llama, mut t5] = models();
        let device = Device::flex();
        let error = |adapters: Result<Adapters, ModelError>| adapters.unwrap_err().to_string();
        let unknown = error(Adapters::new(&mut opt, &sizes(&["q_proj", "gate_proj"]), &device));
        assert!(
            unknown.contains("`gate_proj`") && unknown.contains("opt") && unknown.contains("fc2"),
            "{unknown}"
        );
        let none = AdapterSizes { rank: 0, ..sizes(&[]) };
        assert!(error(Adapters::new(&mut t5, &none, &device)).contains("rank 0"));
        let adapters = Adapters::new(&mut opt, &sizes(&[]), &device).unwrap();
        let other = adapters.applied(&llama, &mut Dropout::off()).unwrap_err().to_string();
        assert!(other.contains("opt_model.model.decoder.layers.0.self_attn.q_proj"), "{other}");
        assert!(adapters.merged(llama).is_err());
    }
}
