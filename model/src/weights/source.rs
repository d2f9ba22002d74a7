//! Reading tensors of a safetensors file or a folder of shards, one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::names::NameStyle;
use crate::ModelError;

/// A set of named tensors in files; only the tensor asked for is in memory.
#[derive(Debug)]
pub struct WeightSource {
    origin: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Entry>,
    style: NameStyle,
}

#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    length: usize,
}

impl WeightSource {
    /// Opens a `.safetensors` file, or a folder with `model.safetensors` or numbered shards.
    pub fn open(path: &Path, style: NameStyle) -> Result<Self, ModelError> {
        let paths = if path.is_dir() { shards(path)? } else { vec![path.to_path_buf()] };
        let mut source =
            Self { origin: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new(), style };
        for path in paths {
            source.add_file(path)?;
        }
        Ok(source)
    }

    /// Opens the weights of a Hugging Face folder, whose names carry no prefix of another model.
    ///
    /// # Errors
    /// No weights, or files that cannot be read.
    pub fn open_huggingface(folder: &Path) -> Result<Self, ModelError> {
        Self::open(folder, NameStyle::HuggingFace { prefix: String::new() })
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let format = |reason: String| ModelError::Format { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(|e| ModelError::io(&path, e))?;
        let size = file.metadata().map_err(|e| ModelError::io(&path, e))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|e| format(format!("no header: {e}")))?;
        let header_length = u64::from_le_bytes(length);
        if header_length > size.saturating_sub(8) {
            return Err(format(format!("a header of {header_length} bytes in a file of {size}: truncated?")));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(|e| ModelError::io(&path, e))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| format(format!("header: {e}")))?;
        for (name, info) in metadata.tensors() {
            let start = 8 + header_length + info.data_offsets.0 as u64;
            let length = info.data_offsets.1 - info.data_offsets.0;
            if start + length as u64 > size {
                return Err(format(format!("tensor `{name}` ends beyond the file: truncated?")));
            }
            let entry =
                Entry { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), start, length };
            self.tensors.insert(name, entry);
        }
        self.files.push((path, file));
        Ok(())
    }

    /// The names in the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the model's tensor `name` is here under one of its spellings.
    pub fn contains(&self, name: &str) -> bool {
        self.style.spellings(name).iter().any(|spelling| self.tensors.contains_key(spelling))
            || self
                .style
                .fused_bias(name)
                .is_some_and(|(q, v)| self.tensors.contains_key(&q) && self.tensors.contains_key(&v))
    }

    /// The shape of the tensor stored for the model's `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let spellings = self.style.spellings(name);
        spellings.iter().find_map(|spelling| self.tensors.get(spelling)).map(|entry| entry.shape.as_slice())
    }

    /// The values of the model's tensor `name` as float32, in row-major order.
    ///
    /// Dimensions of size one may be missing or additional in the file.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let spellings = self.style.spellings(name);
        if let Some(entry) = spellings.iter().find_map(|spelling| self.tensors.get(spelling)) {
            let squeezed = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
            if squeezed(&entry.shape) != squeezed(shape) {
                return Err(ModelError::Shape {
                    origin: self.origin.display().to_string(),
                    name: name.into(),
                    found: entry.shape.clone(),
                    expected: shape.to_vec(),
                });
            }
            return self.values(entry);
        }
        if let Some((query, value)) = self.style.fused_bias(name)
            && let (Some(query), Some(value)) = (self.tensors.get(&query), self.tensors.get(&value))
        {
            let mut bias = self.values(query)?;
            bias.resize(2 * bias.len(), 0.0);
            bias.extend(self.values(value)?);
            return Ok(bias);
        }
        Err(ModelError::MissingTensor {
            origin: self.origin.display().to_string(),
            name: name.into(),
            shape: shape.to_vec(),
            tried: spellings,
        })
    }

    fn values(&self, entry: &Entry) -> Result<Vec<f32>, ModelError> {
        let (path, file) = &self.files[entry.file];
        let mut bytes = vec![0; entry.length];
        file.read_exact_at(&mut bytes, entry.start).map_err(|e| ModelError::io(path, e))?;
        let halves = |convert: fn([u8; 2]) -> f32| {
            bytes.chunks_exact(2).map(|b| convert([b[0], b[1]])).collect::<Vec<f32>>()
        };
        match entry.dtype {
            Dtype::F32 => {
                Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::F16 => Ok(halves(|b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(halves(|b| bf16::from_le_bytes(b).to_f32())),
            other => Err(ModelError::Format {
                path: path.clone(),
                reason: format!("tensors of type {other:?} are not supported; use F32, F16 or BF16"),
            }),
        }
    }
}

fn shards(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| ModelError::io(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| ModelError::io(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(ModelError::Format {
            path: folder.into(),
            reason: "no .safetensors file in the folder".into(),
        });
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn file(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> tempfile::NamedTempFile {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (name.to_string(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            })
            .collect();
        let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        safetensors::serialize_to_file(views, None, file.path()).unwrap();
        file
    }

    #[test]
    fn half_precision_is_widened_and_shapes_checked() {
        let bytes = f16::from_f32(1.5).to_le_bytes().repeat(2);
        let file = file(&[("a.weight", Dtype::F16, vec![1, 2], bytes)]);
        let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
        assert_eq!(source.read("a.weight", &[2]).unwrap(), vec![1.5, 1.5]);
        let error = source.read("a.weight", &[3]).unwrap_err().to_string();
        assert!(error.contains("a.weight") && error.contains("[3]"), "{error}");
        let error = source.read("b.weight", &[3]).unwrap_err().to_string();
        assert!(error.contains("b.weight") && error.contains("missing"), "{error}");
    }

    #[test]
    fn separate_query_and_value_biases_fuse_around_a_zero_key_bias() {
        let one = 1f32.to_le_bytes().to_vec();
        let two = 2f32.to_le_bytes().to_vec();
        let file = file(&[
            ("visual_encoder.blocks.0.attn.q_bias", Dtype::F32, vec![1], one),
            ("visual_encoder.blocks.0.attn.v_bias", Dtype::F32, vec![1], two),
        ]);
        let source = WeightSource::open(file.path(), NameStyle::Lavis).unwrap();
        let bias = source.read("visual_encoder.blocks.0.attn.qkv.bias", &[3]).unwrap();
        assert_eq!(bias, vec![1.0, 0.0, 2.0]);
    }

    #[test]
    fn a_truncated_file_is_named() {
        let full = file(&[("a", Dtype::F32, vec![4], vec![0; 16])]);
        let bytes = std::fs::read(full.path()).unwrap();
        let cut = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(cut.path(), &bytes[..bytes.len() - 4]).unwrap();
        let error = WeightSource::open(cut.path(), NameStyle::Lavis).unwrap_err().to_string();
        assert!(error.contains("truncated"), "{error}");
    }
}
