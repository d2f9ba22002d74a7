//! Files of every kind read back, and what is said of damaged ones.

use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorView;
use half::f16;

use burn::tensor::Device;

use super::*;
use blip2_tensors::nn::layers::Linear;
use blip2_tensors::train::flat::FlatLayout;

type Tensors<'a> = &'a [(&'a str, Dtype, Vec<usize>, Vec<u8>)];

fn write(path: &Path, tensors: Tensors<'_>) {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (name.to_string(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    ::safetensors::serialize_to_file(views, None, path).unwrap();
}

fn file(tensors: Tensors<'_>) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    write(file.path(), tensors);
    file
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats<'a>(name: &'a str, shape: &[usize], values: &[f32]) -> (&'a str, Dtype, Vec<usize>, Vec<u8>) {
    (name, Dtype::F32, shape.to_vec(), bytes(values))
}

fn error_of(path: &Path) -> String {
    WeightSource::open(path, NameStyle::Lavis).unwrap_err().to_string()
}

#[test]
fn half_precision_is_widened_and_shapes_checked() {
    let bytes = f16::from_f32(1.5).to_le_bytes().repeat(2);
    let file = file(&[("a.weight", Dtype::F16, vec![1, 2], bytes)]);
    let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
    assert_eq!(source.read("a.weight", &[2]).unwrap(), vec![1.5, 1.5]);
    let error = source.read("a.weight", &[3]).unwrap_err().to_string();
    assert!(error.contains("a.weight") && error.contains("[3]"), "{error}");
    let error = source.read("a.weights", &[3]).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("closest name there is `a.weight`"), "{error}");
}

#[test]
fn separate_query_and_value_biases_fuse_around_a_zero_key_bias() {
    let file = file(&[
        floats("visual_encoder.blocks.0.attn.q_bias", &[1], &[1.0]),
        floats("visual_encoder.blocks.0.attn.v_bias", &[1], &[2.0]),
    ]);
    let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
    let name = "visual_encoder.blocks.0.attn.qkv.bias";
    assert_eq!(source.read(name, &[3]).unwrap(), vec![1.0, 0.0, 2.0]);
    let error = source.read(name, &[6]).unwrap_err().to_string();
    assert!(error.contains("q_bias") && error.contains("[2]"), "{error}");
}

#[test]
fn a_truncated_file_is_named() {
    let full = file(&[floats("a", &[4], &[0.0; 4])]);
    let bytes = std::fs::read(full.path()).unwrap();
    let cut = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(cut.path(), &bytes[..bytes.len() - 4]).unwrap();
    assert!(error_of(cut.path()).contains("truncated"));
    std::fs::write(cut.path(), "GGUF").unwrap();
    assert!(error_of(cut.path()).contains("GGUF header at byte 4"), "{}", error_of(cut.path()));
    std::fs::write(cut.path(), [255; 40]).unwrap();
    assert!(error_of(cut.path()).contains("not one of .safetensors, .gguf"), "{}", error_of(cut.path()));
}

#[test]
fn numbers_that_are_no_weights_cannot_be_read() {
    let file = file(&[("ids", Dtype::I64, vec![1], vec![0; 8])]);
    let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
    let error = source.read("ids", &[1]).unwrap_err().to_string();
    assert!(error.contains("`ids` is of type I64"), "{error}");
}

/// A folder with an index and two shards, of which the second is `second`.
fn sharded(second: &str, names: [&str; 2]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("one.safetensors"), &[floats("a", &[1], &[1.0])]);
    if !second.is_empty() {
        write(&folder.path().join(second), &[floats("b", &[2], &[2.0, 3.0])]);
    }
    let map = serde_json::json!({"weight_map": {names[0]: "one.safetensors", names[1]: "two.safetensors"}});
    std::fs::write(folder.path().join("model.safetensors.index.json"), map.to_string()).unwrap();
    folder
}

#[test]
fn an_index_leads_to_its_shards() {
    let folder = sharded("two.safetensors", ["a", "b"]);
    let source = WeightSource::open(folder.path(), NameStyle::Lavis).unwrap();
    assert_eq!(source.read("b", &[2]).unwrap(), [2.0, 3.0]);
    let absent = error_of(sharded("", ["a", "b"]).path());
    assert!(absent.contains("`two.safetensors`, which holds 1 tensors, is missing"), "{absent}");
    let elsewhere = error_of(sharded("two.safetensors", ["a", "c"]).path());
    assert!(elsewhere.contains("`c` is not in its shard `two.safetensors`"), "{elsewhere}");
    let outside = sharded("two.safetensors", ["a", "b"]);
    let index = serde_json::json!({"weight_map": {"a": "../one.safetensors"}}).to_string();
    std::fs::write(outside.path().join("model.safetensors.index.json"), index).unwrap();
    assert!(error_of(outside.path()).contains("not the name of a file"));
}

/// Files that PyTorch 2 wrote: a folder of two shards, and all in one as LAVIS stores it and in the older
/// format.
#[test]
fn what_torch_saved_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/torch");
    let wave = |count: i32| (1..=count).map(|i| i as f32 * 0.37).collect::<Vec<f32>>();
    let transposed = [0, 3, 1, 4, 2, 5].map(|place| wave(6)[place]);
    for path in [folder.clone(), folder.join("checkpoint.pth"), folder.join("legacy.pth")] {
        let source = WeightSource::open(&path, NameStyle::Lavis).unwrap();
        assert_eq!(source.names().count(), 8, "{}", path.display());
        let read = |name, shape: &[usize]| source.read(name, shape).unwrap();
        assert_eq!(read("a.weight", &[2, 3]), wave(6));
        assert_eq!(read("a.transposed", &[3, 2]), transposed);
        assert_eq!(read("a.part", &[3]), wave(6)[2..5]);
        assert_eq!(read("b.scalar", &[1]), [0.07]);
        assert_eq!(read("b.double", &[3]), wave(3));
        assert_eq!(read("b.parameter", &[2]), wave(2));
        let near =
            |got: Vec<f32>, want: Vec<f32>| got.iter().zip(want).all(|(a, b)| (a / b - 1.0).abs() < 4e-3);
        assert!(near(read("a.half", &[4]), wave(4)) && near(read("b.weight", &[2, 2]), wave(4)));
    }
}

#[test]
fn a_folder_without_weights_says_what_it_lacks() {
    let error = error_of(tempfile::tempdir().unwrap().path());
    assert!(error.contains("pytorch_model.bin.index.json"), "{error}");
}

fn load_linear(tensors: Tensors<'_>, others: &[&str]) -> Result<Vec<f32>, ModelError> {
    let file = file(tensors);
    let source = WeightSource::open(file.path(), NameStyle::Lavis)?;
    let device = Device::flex();
    let mut linear = Linear::new(2, 1, true, &device);
    load_beside(&mut linear, "itm_head", &source, &device, others)?;
    Ok(FlatLayout::of(&mut linear)?.read(&mut linear)?)
}

#[test]
fn tensors_without_a_use_are_named() {
    let whole = [floats("itm_head.weight", &[1, 2], &[1.0, 2.0]), floats("itm_head.bias", &[1], &[3.0])];
    let with = |name| [whole.as_slice(), &[floats(name, &[1], &[0.0])]].concat();
    assert_eq!(load_linear(&whole, &[]).unwrap(), [3.0, 1.0, 2.0]);
    for of_another_part in ["text_proj.bias", "Qformer.bert.embeddings.position_ids", "query_tokens"] {
        load_linear(&with(of_another_part), &[]).unwrap();
    }
    let misspelt = load_linear(&with("itm_head.weights"), &[]).unwrap_err().to_string();
    assert!(misspelt.contains("1 tensors belong to no part"), "{misspelt}");
    assert!(misspelt.contains("`itm_head.weights` [1] (the model has `itm_head.weight`)"), "{misspelt}");
    assert!(load_linear(&with("adapter.weight"), &[]).unwrap_err().to_string().contains("`adapter.weight`"));
    load_linear(&with("adapter.weight"), &["adapter.*"]).unwrap();
}

#[test]
fn both_spellings_are_told_apart() {
    for (name, value) in [("vision_model.post_layernorm.bias", 1.0), ("ln_vision.bias", 2.0)] {
        let file = file(&[floats(name, &[1], &[value])]);
        let source = WeightSource::open_published(file.path()).unwrap();
        assert_eq!(source.read("ln_vision.bias", &[1]).unwrap(), [value]);
    }
}

#[test]
fn numbers_that_are_not_finite_name_their_tensor() {
    for (dtype, value) in [
        (Dtype::F32, f32::NAN.to_le_bytes().to_vec()),
        (Dtype::F32, f32::INFINITY.to_le_bytes().to_vec()),
        (Dtype::F16, f16::NEG_INFINITY.to_le_bytes().to_vec()),
        (Dtype::BF16, half::bf16::NAN.to_le_bytes().to_vec()),
    ] {
        let zeros = vec![0; value.len()];
        let file = file(&[("module.a.weight", dtype, vec![2], [zeros, value].concat())]);
        let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
        let error = source.read("a.weight", &[2]).unwrap_err().to_string();
        assert!(error.contains("`module.a.weight`") && error.contains("place 1"), "{error}");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}

#[test]
fn a_pointer_of_git_lfs_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 9\n";
    for name in ["model.safetensors", "pytorch_model.bin", "eva_vit_g.pth", "x.gguf"] {
        let path = folder.path().join(name);
        std::fs::write(&path, pointer).unwrap();
        let error = error_of(&path);
        assert!(error.contains("Git LFS pointer") && error.contains(name), "{error}");
    }
}

#[test]
fn names_are_those_of_the_model_whatever_is_around_them() {
    let wrapped = file(&[
        floats("module.Qformer.bert.embeddings.LayerNorm.weight", &[1], &[1.0]),
        floats("module.query_tokens", &[1], &[2.0]),
    ]);
    let source = WeightSource::open_published(wrapped.path()).unwrap();
    assert!(source.is_lavis());
    assert_eq!(source.read("query_tokens", &[1, 1, 1]).unwrap(), [2.0]);
    // Both names are there: neither takes the other's place.
    let both = file(&[floats("module.a", &[1], &[1.0]), floats("a", &[1], &[2.0])]);
    let source = WeightSource::open(both.path(), NameStyle::Lavis).unwrap();
    assert_eq!(source.read("module.a", &[1]).unwrap(), [1.0]);
    assert_eq!(source.read("a", &[1]).unwrap(), [2.0]);
}
