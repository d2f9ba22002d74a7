//! Writing safetensors files one tensor at a time, so that no second copy of the model is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

use super::write_json;
use crate::ModelError;
use crate::host::floats;
use crate::tensors::{NamedTensors, TensorVisitor};

/// A tensor's place in the files.
struct Planned {
    name: String,
    shape: Vec<usize>,
    shard: usize,
    /// First byte after the header of its shard.
    start: u64,
}

impl Planned {
    fn bytes(&self) -> u64 {
        4 * self.shape.iter().product::<usize>() as u64
    }
}

/// Writes all tensors of `model` as float32 to `folder`, each under `name_of` its name: one file
/// `model.safetensors`, or numbered shards with an index where a file would exceed `shard_bytes`.
pub(super) fn write(
    folder: &Path,
    model: &mut impl NamedTensors,
    name_of: fn(&str) -> String,
    shard_bytes: u64,
) -> Result<(), ModelError> {
    let plan = plan(model, name_of, shard_bytes)?;
    let shards = plan.last().map_or(1, |last| last.shard + 1);
    let mut writer = Writer { folder, plan: &plan, shards, next: 0, file: None };
    model.visit_tensors("", &mut writer)?;
    writer.finish()?;
    if shards > 1 {
        write_index(folder, &plan, shards)?;
    }
    Ok(())
}

fn plan(
    model: &mut impl NamedTensors,
    name_of: fn(&str) -> String,
    shard_bytes: u64,
) -> Result<Vec<Planned>, ModelError> {
    struct Plan(Vec<Planned>, fn(&str) -> String, u64);
    impl TensorVisitor for Plan {
        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let (shard, start) = self.0.last().map_or((0, 0), |last| (last.shard, last.start + last.bytes()));
            let mut planned =
                Planned { name: (self.1)(name), shape: tensor.val().dims().to_vec(), shard, start };
            if start > 0 && start + planned.bytes() > self.2 {
                planned.shard += 1;
                planned.start = 0;
            }
            self.0.push(planned);
            Ok(())
        }
    }
    let mut plan = Plan(Vec::new(), name_of, shard_bytes);
    model.visit_tensors("", &mut plan)?;
    Ok(plan.0)
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
    plan: &'a [Planned],
    shards: usize,
    next: usize,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Writer<'_> {
    fn begin_shard(&mut self, shard: usize) -> Result<(), ModelError> {
        self.finish()?;
        let path = self.folder.join(shard_name(shard, self.shards));
        let file = File::create(&path).map_err(|e| ModelError::io(&path, e))?;
        let mut file = BufWriter::new(file);
        let header = header(self.plan.iter().filter(|planned| planned.shard == shard));
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

impl TensorVisitor for Writer<'_> {
    fn visit<const D: usize>(
        &mut self,
        _name: &str,
        tensor: &mut Param<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let planned = &self.plan[self.next];
        self.next += 1;
        if self.file.is_none() || planned.start == 0 {
            self.begin_shard(planned.shard)?;
        }
        let values = floats(tensor.val())?;
        let Some((path, file)) = &mut self.file else {
            return Err(ModelError::input("weights", "no file is open"));
        };
        let mut bytes = Vec::with_capacity(4 * values.len());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        file.write_all(&bytes).map_err(|e| ModelError::io(path.as_path(), e))
    }
}

/// The JSON header, padded to a multiple of eight bytes.
fn header<'a>(tensors: impl Iterator<Item = &'a Planned>) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    for planned in tensors {
        let offsets = [planned.start, planned.start + planned.bytes()];
        let entry = json!({"dtype": "F32", "shape": planned.shape, "data_offsets": offsets});
        entries.insert(planned.name.clone(), entry);
    }
    let mut header = Value::Object(entries).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

fn write_index(folder: &Path, plan: &[Planned], shards: usize) -> Result<(), ModelError> {
    let total: u64 = plan.iter().map(Planned::bytes).sum();
    let files: BTreeMap<&str, String> =
        plan.iter().map(|planned| (planned.name.as_str(), shard_name(planned.shard, shards))).collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": files});
    write_json(&folder.join("model.safetensors.index.json"), &index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Linear;
    use crate::tensors::FlatLayout;
    use crate::weights::{NameStyle, WeightSource, load};
    use burn::tensor::Device;

    fn linear(flat: &[f32]) -> Linear {
        let device = Device::flex();
        let mut linear = Linear::new(3, 2, true, &device);
        FlatLayout::of(&mut linear).unwrap().write(&mut linear, flat, &device).unwrap();
        linear
    }

    fn round_trip(shard_bytes: u64) -> (Vec<String>, Vec<f32>) {
        let folder = tempfile::tempdir().unwrap();
        let flat: Vec<f32> = (0..8).map(|i| (i as f32).sin()).collect();
        write(folder.path(), &mut linear(&flat), |name| format!("out.{name}"), shard_bytes).unwrap();
        let mut files: Vec<String> = (std::fs::read_dir(folder.path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let style = NameStyle::HuggingFace { prefix: "out.".into() };
        let source = WeightSource::open(folder.path(), style).unwrap();
        let mut read = linear(&[0.0; 8]);
        load(&mut read, "", &source, &Device::flex()).unwrap();
        let values = FlatLayout::of(&mut read).unwrap().read(&mut read).unwrap();
        assert_eq!(values, flat);
        (files, values)
    }

    #[test]
    fn one_file_holds_a_small_model() {
        assert_eq!(round_trip(100).0, ["model.safetensors"]);
    }

    #[test]
    fn a_large_model_is_cut_into_shards_with_an_index() {
        let want = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(round_trip(24).0, want);
    }
}
