//! Safetensors files, one tensor in memory at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::plan::{Plan, Target, TensorFiles, pour};
use super::staging::write_json;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::tensors::NamedTensors;

/// A tensor's place in the files.
struct Placed<'a> {
    target: &'a Target,
    shard: usize,
    /// First byte after the header of its shard.
    start: u64,
    bytes: u64,
}

/// Writes the tensors of `plan` to `folder`: one file `model.safetensors`, or numbered shards with an index
/// where a file would exceed `shard_bytes`.
pub(super) fn write_folder(
    folder: &Path,
    model: &mut impl NamedTensors,
    plan: &Plan,
    shard_bytes: u64,
) -> Result<(), ModelError> {
    let placed = place(plan, shard_bytes);
    let shards = placed.last().map_or(1, |last| last.shard + 1);
    let names = (0..shards).map(|shard| shard_name(shard, shards)).collect();
    write(folder, names, &placed, model, plan)?;
    if shards > 1 {
        write_index(folder, &placed, shards)?;
    }
    Ok(())
}

/// Writes the tensors of `plan` to the single file `path`.
pub(super) fn write_file(path: &Path, model: &mut impl NamedTensors, plan: &Plan) -> Result<(), ModelError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    write(folder, vec![name], &place(plan, u64::MAX), model, plan)
}

fn write(
    folder: &Path,
    names: Vec<String>,
    placed: &[Placed<'_>],
    model: &mut impl NamedTensors,
    plan: &Plan,
) -> Result<(), ModelError> {
    let dtype = plan.precision.safetensors();
    let mut writer = Writer { folder, names, placed, dtype, next: 0, file: None };
    pour(model, plan, &mut writer)?;
    writer.finish()
}

fn place(plan: &Plan, shard_bytes: u64) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for target in plan.targets() {
        let (mut shard, mut start) =
            placed.last().map_or((0, 0), |last| (last.shard, last.start + last.bytes));
        let bytes = plan.precision.bytes() * target.len() as u64;
        if start > 0 && start + bytes > shard_bytes {
            (shard, start) = (shard + 1, 0);
        }
        placed.push(Placed { target, shard, start, bytes });
    }
    placed
}

fn shard_name(shard: usize, shards: usize) -> String {
    match shards {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
    }
}

/// Writes the tensors in the order of the plan, which is that of the visit.
struct Writer<'a> {
    folder: &'a Path,
    /// One for each shard.
    names: Vec<String>,
    placed: &'a [Placed<'a>],
    dtype: &'static str,
    next: usize,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Writer<'_> {
    fn begin_shard(&mut self, shard: usize) -> Result<(), ModelError> {
        self.finish()?;
        let path = self.folder.join(&self.names[shard]);
        let file = File::create(&path).map_err(|e| ModelError::io(&path, e))?;
        let mut file = BufWriter::new(file);
        let header = header(self.placed.iter().filter(|placed| placed.shard == shard), self.dtype);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(header.as_bytes()))
            .map_err(|e| ModelError::io(&path, e))?;
        self.file = Some((path, file));
        Ok(())
    }

    /// Closes the present file; it is on the disk when this returns.
    fn finish(&mut self) -> Result<(), ModelError> {
        if let Some((path, file)) = self.file.take() {
            let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error);
            synced.and_then(|file| file.sync_all()).map_err(|e| ModelError::io(path, e))?;
        }
        Ok(())
    }
}

impl TensorFiles for Writer<'_> {
    fn begin(&mut self, _target: &Target) -> Result<(), ModelError> {
        let Placed { shard, start, .. } = self.placed[self.next];
        self.next += 1;
        if self.file.is_none() || start == 0 { self.begin_shard(shard) } else { Ok(()) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let Some((path, file)) = &mut self.file else {
            return Err(ModelError::input("weights", "no file is open"));
        };
        file.write_all(bytes).map_err(|e| ModelError::io(path.as_path(), e))
    }
}

/// The JSON header, padded to a multiple of eight bytes.
fn header<'a>(tensors: impl Iterator<Item = &'a Placed<'a>>, dtype: &str) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    for placed in tensors {
        let offsets = [placed.start, placed.start + placed.bytes];
        let entry = json!({"dtype": dtype, "shape": placed.target.shape, "data_offsets": offsets});
        entries.insert(placed.target.name.clone(), entry);
    }
    let mut header = Value::Object(entries).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

fn write_index(folder: &Path, placed: &[Placed<'_>], shards: usize) -> Result<(), ModelError> {
    let total: u64 = placed.iter().map(|placed| placed.bytes).sum();
    let files: BTreeMap<&str, String> =
        placed.iter().map(|placed| (placed.target.name.as_str(), shard_name(placed.shard, shards))).collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": files});
    write_json(&folder.join("model.safetensors.index.json"), &index)
}

#[cfg(test)]
mod tests {
    use super::super::precision::Precision;
    use super::*;
    use blip2_model_files::weights::{NameStyle, WeightSource, load};
    use blip2_tensors::nn::layers::Linear;
    use blip2_tensors::train::flat::FlatLayout;
    use burn::tensor::Device;

    fn linear(flat: &[f32]) -> Linear {
        let device = Device::flex();
        let mut linear = Linear::new(3, 2, true, &device);
        FlatLayout::of(&mut linear).unwrap().write(&mut linear, flat, &device).unwrap();
        linear
    }

    fn round_trip(shard_bytes: u64, precision: Precision) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let flat: Vec<f32> = (0..8).map(|i| half::bf16::from_f32((i as f32).sin()).to_f32()).collect();
        let mut model = linear(&flat);
        let layout = |name: &str, shape: &[usize]| vec![Target::whole(format!("out.{name}"), shape)];
        let plan = Plan::new(&mut model, &layout, precision).unwrap();
        write_folder(folder.path(), &mut model, &plan, shard_bytes).unwrap();
        let mut files: Vec<String> = (std::fs::read_dir(folder.path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let style = NameStyle::HuggingFace { prefix: "out.".into() };
        let source = WeightSource::open(folder.path(), style).unwrap();
        let mut read = linear(&[0.0; 8]);
        load(&mut read, "", &source, Device::flex()).unwrap();
        assert_eq!(FlatLayout::of(&mut read).unwrap().read(&mut read).unwrap(), flat);
        files
    }

    #[test]
    fn one_file_holds_a_small_model() {
        assert_eq!(round_trip(100, Precision::F32), ["model.safetensors"]);
    }

    #[test]
    fn a_large_model_is_cut_into_shards_with_an_index() {
        let want = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(round_trip(24, Precision::F32), want);
        // Half as many bytes.
        assert_eq!(round_trip(12, Precision::Bf16), want);
    }
}
