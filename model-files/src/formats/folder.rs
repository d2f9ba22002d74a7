//! Folders: one weight file, or numbered shards with the index that names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::container::Container;
use super::open::open_file;
use crate::error::ModelError;
use crate::read::read_json;

/// File and index of each kind, best first.
const KINDS: &[(&str, &str)] = &[
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// `*.index.json`: the shard of each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(crate) fn open(folder: &Path) -> Result<Container, ModelError> {
    for (single, index) in KINDS {
        let index = folder.join(index);
        if index.is_file() {
            return indexed(folder, &index);
        }
        let single = folder.join(single);
        if single.is_file() {
            return open_file(&single);
        }
    }
    unnamed(folder)
}

/// The shards that an index names.
fn indexed(folder: &Path, path: &Path) -> Result<Container, ModelError> {
    let refuse = |reason: String| ModelError::Format { path: path.to_path_buf(), reason };
    let Index { weight_map } =
        serde_json::from_value(read_json(path)?).map_err(|e| refuse(format!("index: {e}")))?;
    let names: BTreeSet<&String> = weight_map.values().collect();
    let mut container = Container::default();
    for name in names {
        if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
            return Err(refuse(format!("shard `{name}` is not the name of a file in the folder")));
        }
        let shard = folder.join(name);
        if !shard.is_file() {
            let count = weight_map.values().filter(|of| *of == name).count();
            let reason = format!("shard `{name}`, which holds {count} tensors, is missing in the folder");
            return Err(refuse(reason));
        }
        let mut tensors = open_file(&shard)?.into_tensors();
        for (tensor, _) in weight_map.iter().filter(|(_, of)| *of == name) {
            let stored = tensors.remove(tensor);
            let stored =
                stored.ok_or_else(|| refuse(format!("tensor `{tensor}` is not in its shard `{name}`")))?;
            container.add(tensor.clone(), stored);
        }
        for (tensor, stored) in tensors {
            container.add(tensor, stored);
        }
    }
    Ok(container)
}

/// How the names of PyTorch's files end.
const PYTORCH: &[&str] = &["pth", "pt", "bin"];

/// Whether a path has the ending of a file of weights.
pub fn is_weight_file(path: &Path) -> bool {
    ends_with(path, &["safetensors"]) || ends_with(path, PYTORCH)
}

fn ends_with(path: &Path, endings: &[&str]) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
}

/// All safetensors files of a folder without an index, e.g. the parts of a run's checkpoint, or else its only
/// file of PyTorch's.
fn unnamed(folder: &Path) -> Result<Container, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| ModelError::io(folder, e))?;
    let (mut paths, mut pytorch): (Vec<PathBuf>, Vec<PathBuf>) = Default::default();
    for entry in entries {
        let path = entry.map_err(|e| ModelError::io(folder, e))?.path();
        if ends_with(&path, &["safetensors"]) {
            paths.push(path);
        } else if ends_with(&path, PYTORCH) {
            pytorch.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() && pytorch.len() == 1 {
        paths = pytorch;
    }
    if paths.is_empty() {
        let files: Vec<&str> = KINDS.iter().flat_map(|(single, index)| [*single, *index]).collect();
        let reason = format!(
            "no weights in the folder: none of {} and no other .safetensors, nor a single file of PyTorch's",
            files.join(", ")
        );
        return Err(ModelError::Format { path: folder.into(), reason });
    }
    let mut container = Container::default();
    for path in paths {
        for (name, tensor) in open_file(&path)?.into_tensors() {
            container.add(name, tensor);
        }
    }
    Ok(container)
}
