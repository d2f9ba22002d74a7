//! A model that a configuration names and that cannot be used: bad configuration by its key, whichever part
//! it is of and whatever is wrong with it.

use std::path::Path;

use blip2_run::exit::ExitClass as _;
use blip2_worker::{Result, TrainState, WorkerConfig};
use serde_json::{Value, json};

/// What a file is that Git LFS has not fetched.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
const BAD_CONFIGURATION: u32 = 78;

/// A part: its key, its folder among the assets, and a size in its configuration.
struct Part {
    key: &'static str,
    asset: &'static str,
    size: Option<&'static str>,
}

const PARTS: [Part; 4] = [
    Part { key: "model.image_encoder", asset: "eva-tiny", size: Some("hidden_size") },
    Part { key: "model.language_model", asset: "opt-tiny", size: Some("hidden_size") },
    Part { key: "model.qformer_tokenizer", asset: "qformer-tokenizer", size: None },
    Part { key: "model.qformer_init", asset: "bert-tiny", size: None },
];

/// What is done to a copy of a part's folder; whether it has what this is done to.
type Damage = fn(&Path, &Part) -> bool;

const KINDS: [(&str, Damage); 9] = [
    ("no such folder", |folder, _| {
        std::fs::remove_dir_all(folder).unwrap();
        true
    }),
    ("no file in it", |folder, _| {
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::create_dir(folder).unwrap();
        true
    }),
    ("a configuration that is no JSON", |folder, part| {
        part.size.is_some() && replace(&folder.join("config.json"), b"{\"model_type\": ")
    }),
    ("a size that is out of range", |folder, part| {
        part.size.is_some_and(|key| set_size(&folder.join("config.json"), key))
    }),
    ("a pointer of Git LFS", |folder, _| replace(&largest(folder), POINTER.as_bytes())),
    ("a file that is cut", |folder, _| {
        let content = std::fs::read(largest(folder)).unwrap();
        replace(&largest(folder), &content[..content.len() / 2])
    }),
    ("a tokenizer that is no JSON", |folder, part| {
        // Of the Q-Former's beginning only the weights are read.
        part.key != "model.qformer_init" && replace(&folder.join("tokenizer.json"), b"{\"model\": {}}")
    }),
    ("a value that is no number", |folder, _| {
        with_weights(folder, |header, values| {
            for tensor in tensors_of(header) {
                let (at, dtype) = (tensor["data_offsets"][0].as_u64().unwrap() as usize, &tensor["dtype"]);
                let nan = if dtype == "F16" { vec![0, 0x7e] } else { f32::NAN.to_le_bytes().to_vec() };
                values[at..at + nan.len()].copy_from_slice(&nan);
            }
        })
    }),
    ("another shape", |folder, _| {
        with_weights(folder, |header, _| {
            for tensor in tensors_of(header) {
                let shape: Vec<Value> = tensor["shape"].as_array().unwrap().iter().rev().cloned().collect();
                tensor["shape"] = json!([shape, vec![json!(1)]].concat());
            }
        })
    }),
];

/// Whether the file was there to be replaced.
fn replace(file: &Path, content: &[u8]) -> bool {
    let there = file.exists();
    if there {
        std::fs::write(file, content).unwrap();
    }
    there
}

/// The weights, or the tokenizer where there are none.
fn largest(folder: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap()
}

fn set_size(file: &Path, key: &str) -> bool {
    let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(config[key].is_number(), "{config}");
    config[key] = json!(1_000_000_000_000u64);
    replace(file, config.to_string().as_bytes())
}

fn tensors_of(header: &mut Value) -> impl Iterator<Item = &mut Value> {
    header
        .as_object_mut()
        .unwrap()
        .iter_mut()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(_, value)| value)
}

/// Whether the folder has weights, which are changed.
fn with_weights(folder: &Path, change: impl Fn(&mut Value, &mut [u8])) -> bool {
    let file = folder.join("model.safetensors");
    let Ok(content) = std::fs::read(&file) else { return false };
    let length = u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&content[8..8 + length]).unwrap();
    let mut values = content[8 + length..].to_vec();
    change(&mut header, &mut values);
    let header = header.to_string().into_bytes();
    replace(&file, &[&(header.len() as u64).to_le_bytes()[..], &header, &values].concat())
}

fn asset(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// The quick start's parts, of which one is a copy in `folder`.
fn config(part: &Part, folder: &Path) -> WorkerConfig {
    let mut config = WorkerConfig::default();
    let model = &mut config.model;
    for (key, place) in [
        ("model.image_encoder", &mut model.image_encoder),
        ("model.language_model", &mut model.language_model),
        ("model.qformer_tokenizer", &mut model.qformer_tokenizer),
        ("model.qformer_init", &mut model.qformer_init),
    ] {
        let path = match PARTS.iter().find(|other| other.key == key).unwrap() {
            other if other.key == part.key => folder.to_path_buf(),
            other => asset(other.asset),
        };
        *place = path.display().to_string();
    }
    let sizes = &mut model.qformer;
    (sizes.hidden, sizes.heads, sizes.layers, sizes.intermediate) = (128, 4, 2, 512);
    (sizes.queries, sizes.embed_dim, sizes.max_positions) = (3, 8, 32);
    config.stages.iter_mut().for_each(|stage| stage.steps = 1);
    config
}

/// What a worker does before its first step.
fn begin(config: WorkerConfig) -> Result<TrainState> {
    let frozen = config.frozen_models()?;
    TrainState::fresh(&config, frozen.sizes, &frozen.device.clone().autodiff())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn every_part_that_cannot_be_used_is_bad_configuration() {
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for part in &PARTS {
        let whole = tempfile::tempdir().unwrap();
        let folder = whole.path().join(part.asset);
        copy(&asset(part.asset), &folder);
        begin(config(part, &folder)).unwrap();
        for (kind, damage) in KINDS {
            let place = tempfile::tempdir().unwrap();
            let folder = place.path().join(part.asset);
            copy(&asset(part.asset), &folder);
            if !damage(&folder, part) {
                continue;
            }
            tried += 1;
            match begin(config(part, &folder)) {
                Err(error)
                    if error.exit().code() == BAD_CONFIGURATION
                        && error.to_string().contains(&format!("{} = ", part.key)) => {}
                Err(error) => wrong.push(format!("{}, {kind}: {} {error}", part.key, error.exit().code())),
                Ok(_) => wrong.push(format!("{}, {kind}: it is taken", part.key)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 26, "{tried} were tried");
}
