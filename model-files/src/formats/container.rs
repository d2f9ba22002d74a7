//! Named tensors in files, whatever the kind of file; only the tensor asked for is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::encoding::{Encoding, separate_halves};
use crate::error::ModelError;

/// Bytes that are converted at a time.
const CHUNK: usize = 1 << 20;

/// The tensors of a file or of a folder of shards, by the names in the files.
#[derive(Debug, Default)]
pub(crate) struct Container {
    tensors: BTreeMap<String, Stored>,
}

/// One tensor in a file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Its name in the file.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) encoding: Encoding,
    pub(crate) place: Place,
}

/// Where a tensor's numbers are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// One after the other in a file.
    File { file: Arc<OpenFile>, start: u64 },
    /// The same, with the rows of each attention head in llama.cpp's order.
    Interleaved { file: Arc<OpenFile>, start: u64, heads: usize },
    /// Somewhere in a PyTorch file.
    Pytorch { path: PathBuf, tensor: pytorch_reader::Tensor },
}

/// An open file and its name.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) size: u64,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
        let size = file.metadata().map_err(|e| ModelError::io(path, e))?.len();
        Ok(Self { path: path.to_path_buf(), file, size })
    }

    /// An error about this file.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Format { path: self.path.clone(), reason: reason.into() }
    }

    /// `length` bytes from `start` on, which must be in the file.
    pub(crate) fn bytes(&self, start: u64, length: usize) -> Result<Vec<u8>, ModelError> {
        if start.saturating_add(length as u64) > self.size {
            let reason = format!("{length} bytes at {start} in a file of {}: truncated?", self.size);
            return Err(self.error(reason));
        }
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, start)?;
        Ok(bytes)
    }

    fn read_at(&self, bytes: &mut [u8], start: u64) -> Result<(), ModelError> {
        self.file.read_exact_at(bytes, start).map_err(|e| ModelError::io(&self.path, e))
    }
}

impl Container {
    /// Adds a tensor; one that is there already comes from another shard.
    pub(crate) fn add(&mut self, name: String, tensor: Stored) {
        self.tensors.insert(name, tensor);
    }

    /// The same tensors by other names. Where two get the same one, both keep theirs.
    pub(crate) fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
        for name in self.tensors.keys() {
            *wanted.entry(rename(name)).or_default() += 1;
        }
        let new = |name: String| match rename(&name) {
            other if wanted.get(&other) == Some(&1) => other,
            _ => name,
        };
        Self { tensors: self.tensors.into_iter().map(|(name, tensor)| (new(name), tensor)).collect() }
    }

    /// The tensor called `name` in the files.
    pub(crate) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// The tensor called `name` in the files, with its name.
    pub(crate) fn entry(&self, name: &str) -> Option<(&str, &Stored)> {
        self.tensors.get_key_value(name).map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensors in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Moves all tensors out.
    pub(crate) fn into_tensors(self) -> BTreeMap<String, Stored> {
        self.tensors
    }
}

impl Stored {
    /// A tensor whose numbers lie one after the other in `file`.
    ///
    /// # Errors
    /// Numbers beyond the end of the file, or that are not as many bytes as the shape asks for.
    pub(crate) fn in_file(
        name: &str,
        shape: Vec<usize>,
        encoding: Encoding,
        file: &Arc<OpenFile>,
        start: u64,
        length: Option<u64>,
    ) -> Result<Self, ModelError> {
        let numbers = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let numbers =
            numbers.ok_or_else(|| file.error(format!("tensor `{name}` of shape {shape:?} is too large")))?;
        let asked = encoding.block().and_then(|(block, bytes)| {
            numbers.is_multiple_of(block).then(|| (numbers / block).checked_mul(bytes)).flatten()
        });
        if encoding.block().is_some() && asked.is_none() {
            return Err(file.error(format!("tensor `{name}` of shape {shape:?} is not made of whole blocks")));
        }
        let length = length.or(asked.map(|bytes| bytes as u64)).unwrap_or(0);
        if asked.is_some_and(|asked| asked as u64 != length) {
            return Err(file.error(format!("tensor `{name}` of shape {shape:?} has {length} bytes")));
        }
        if start.saturating_add(length) > file.size {
            return Err(file.error(format!("tensor `{name}` ends beyond the file: truncated?")));
        }
        let place = Place::File { file: file.clone(), start };
        Ok(Self { name: name.into(), shape, encoding, place })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// All values in row-major order.
    ///
    /// # Errors
    /// Numbers of a kind that is not supported, or that are infinite or no numbers: the model would compute
    /// nothing else.
    pub(crate) fn values(&self) -> Result<Vec<f32>, ModelError> {
        if let Encoding::Other(kind) = &self.encoding {
            let reason = format!(
                "tensor `{}` is of type {kind}, which is not supported; use F32, F16 or BF16 (in GGUF also Q8_0 and \
                 Q4_1)",
                self.name
            );
            return Err(self.error(reason));
        }
        let values = self.read()?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let (name, shape, value) = (&self.name, &self.shape, values[at]);
                let bad = values.iter().filter(|value| !value.is_finite()).count();
                Err(self.error(format!(
                    "tensor `{name}` {shape:?} has {bad} values that are no finite numbers, the first is {value} at \
                     place {at}: the weights are damaged, or come from a training that diverged"
                )))
            }
        }
    }

    /// An error about the file that holds it.
    fn error(&self, reason: String) -> ModelError {
        ModelError::Format { path: self.path().to_path_buf(), reason }
    }

    fn read(&self) -> Result<Vec<f32>, ModelError> {
        match &self.place {
            Place::File { file, start } => self.read_from(file, *start),
            Place::Interleaved { file, start, heads } => {
                let mut values = self.read_from(file, *start)?;
                separate_halves(&mut values, &self.shape, *heads);
                Ok(values)
            }
            Place::Pytorch { path, tensor } => {
                let bytes = tensor.read().map_err(|e| ModelError::io(path, e))?;
                let mut values = vec![0.0; self.len()];
                self.encoding.decode(&bytes, &mut values);
                Ok(values)
            }
        }
    }

    /// The file that holds it.
    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            Place::File { file, .. } | Place::Interleaved { file, .. } => &file.path,
            Place::Pytorch { path, .. } => path,
        }
    }

    fn read_from(&self, file: &OpenFile, start: u64) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0_f32; self.len()];
        if self.encoding == Encoding::F32 {
            // Straight into place: float32 takes no second copy.
            file.read_at(bytemuck::cast_slice_mut(&mut values), start)?;
            values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            return Ok(values);
        }
        let (numbers, bytes) = self.encoding.block().unwrap_or((1, 1));
        let blocks = (CHUNK / bytes).max(1);
        let mut chunk = vec![0; blocks * bytes];
        let mut start = start;
        for part in values.chunks_mut(blocks * numbers) {
            let chunk = &mut chunk[..part.len() / numbers * bytes];
            file.read_at(chunk, start)?;
            self.encoding.decode(chunk, part);
            start += chunk.len() as u64;
        }
        Ok(values)
    }
}
