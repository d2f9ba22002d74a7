//! The head of a GGUF file: its metadata and its list of tensors.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::ModelError;
use crate::formats::container::OpenFile;

/// How every GGUF file begins.
pub(crate) const MAGIC: &[u8] = b"GGUF";

/// The versions of the format that are read; they differ in nothing that is used here.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;

/// Where tensors begin at multiples of, unless the file says otherwise.
const ALIGNMENT: u64 = 32;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// One tensor of the list.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    /// Slowest dimension first, as everywhere but in the file.
    pub(crate) shape: Vec<usize>,
    /// ggml's number of the type.
    pub(crate) kind: u32,
    /// From the beginning of the file.
    pub(crate) start: u64,
}

/// What stands before the tensors.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) file: Arc<OpenFile>,
    values: BTreeMap<String, Value>,
    pub(crate) tensors: Vec<TensorInfo>,
}

impl Head {
    pub(crate) fn read(path: &Path) -> Result<Self, ModelError> {
        let file = Arc::new(OpenFile::open(path)?);
        let stream = file.file.try_clone().map_err(|e| ModelError::io(path, e))?;
        let mut reader = Reader { stream: BufReader::new(stream).take(file.size), file: &file };
        if reader.array::<4>()? != *MAGIC {
            return Err(file.error("not a GGUF file: it does not begin with `GGUF`"));
        }
        let version = reader.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(file.error(format!("GGUF version {version} is not supported, only 2 and 3")));
        }
        let (tensor_count, value_count) = (reader.u64()?, reader.u64()?);
        let mut values = BTreeMap::new();
        for _ in 0..value_count {
            let name = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind)?;
            values.insert(name, value);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(reader.tensor()?);
        }
        let alignment = match values.get("general.alignment") {
            Some(Value::Integer(alignment)) if *alignment > 0 => *alignment as u64,
            _ => ALIGNMENT,
        };
        let data = reader.position().next_multiple_of(alignment);
        for tensor in &mut tensors {
            tensor.start = tensor.start.saturating_add(data);
        }
        Ok(Self { file, values, tensors })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Float(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The texts of a list; empty where it is absent.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.list(name, |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The numbers of a list; empty where it is absent.
    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        self.list(name, |value| match value {
            Value::Float(value) => Some(*value),
            _ => None,
        })
    }

    /// The integers of a list; empty where it is absent.
    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        self.list(name, |value| match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        })
    }

    fn list<'a, T>(&'a self, name: &str, of: impl Fn(&'a Value) -> Option<T>) -> Vec<T> {
        match self.get(name) {
            Some(Value::List(list)) => list.iter().filter_map(of).collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads the head in order; no length in it is believed beyond the file's size.
struct Reader<'a> {
    stream: std::io::Take<BufReader<std::fs::File>>,
    file: &'a OpenFile,
}

impl Reader<'_> {
    fn position(&self) -> u64 {
        self.file.size - self.stream.limit()
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        let at = self.position();
        let read = self.stream.read_exact(bytes);
        read.map_err(|e| self.file.error(format!("GGUF header at byte {at}: {e}: truncated?")))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let length = self.count()?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|e| self.file.error(format!("GGUF header: {e}")))
    }

    /// A count of things that take at least a byte each.
    fn count(&mut self) -> Result<usize, ModelError> {
        let count = self.u64()?;
        if count > self.stream.limit() {
            return Err(self.file.error(format!("GGUF header: {count} items in a shorter file: truncated?")));
        }
        Ok(count as usize)
    }

    fn value(&mut self, kind: u32) -> Result<Value, ModelError> {
        Ok(match kind {
            0 => Value::Integer(self.array::<1>()?[0].into()),
            1 => Value::Integer((self.array::<1>()?[0] as i8).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                if kind == 9 {
                    return Err(self.file.error("GGUF header: lists of lists are not supported"));
                }
                let count = self.count()?;
                Value::List((0..count).map(|_| self.value(kind)).collect::<Result<_, _>>()?)
            }
            10 | 11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.file.error(format!("GGUF header: value of unknown type {other}"))),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, ModelError> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(self.file.error(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, self.u64()? as usize);
        }
        Ok(TensorInfo { name, shape, kind: self.u32()?, start: self.u64()? })
    }
}
