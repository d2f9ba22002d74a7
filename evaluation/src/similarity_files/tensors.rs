//! Similarities of a `.safetensors` file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::matrix::{MOST_NUMBERS, Matrix, NumberType, SimilarityFile};
use crate::file_error::{FileError, Result};

/// Bytes of the header's length.
const LENGTH: usize = 8;
/// Bytes of a header beyond which there is none.
const MOST_HEADER: u64 = 1 << 24;
/// Names of the similarities of all pairs.
const ALL: [&str; 2] = ["cosine", "similarity"];
/// Names of the scores of the best few: by images, and by texts.
const RERANKED: [&str; 2] = ["scores_i2t", "scores_t2i"];

struct Tensors<'a> {
    path: &'a Path,
    file: File,
    metadata: Metadata,
    /// Where the numbers begin.
    start: u64,
}

pub(super) fn read(path: &Path) -> Result<SimilarityFile> {
    let mut tensors = Tensors::open(path)?;
    let [by_images, by_texts] = RERANKED;
    let reranked = match (tensors.has(by_images), tensors.has(by_texts)) {
        (true, true) => Some((tensors.matrix(by_images)?, tensors.matrix(by_texts)?)),
        (false, false) => None,
        _ => return Err(FileError::unusable(path, format!("`{by_images}` and `{by_texts}` go together"))),
    };
    let named = ALL.into_iter().find(|name| tensors.has(name)).map(str::to_owned);
    let all = match named.or_else(|| reranked.is_none().then(|| tensors.only()).flatten()) {
        Some(name) => Some(tensors.matrix(&name)?),
        None => None,
    };
    if all.is_none() && reranked.is_none() {
        let names = [&ALL[..], &RERANKED[..]].concat().join("`, `");
        return Err(FileError::unusable(path, format!("has several tensors, and none called `{names}`")));
    }
    Ok(SimilarityFile { all, reranked })
}

impl<'a> Tensors<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let unreadable = |error| FileError::unreadable(path, error);
        let wrong = |reason: &str| FileError::unusable(path, format!("is no .safetensors file: {reason}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let whole = file.metadata().map_err(unreadable)?.len();
        let mut length = [0; LENGTH];
        file.read_exact(&mut length).map_err(|_| wrong("it ends in its header"))?;
        let header = u64::from_le_bytes(length);
        if header > MOST_HEADER || LENGTH as u64 + header > whole {
            return Err(wrong("its header would be longer than the file"));
        }
        let start = LENGTH as u64 + header;
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
        let ends = metadata.tensors().values().map(|tensor| tensor.data_offsets.1 as u64).max();
        if start.checked_add(ends.unwrap_or_default()) != Some(whole) {
            return Err(wrong("its tensors are not as long as the file"));
        }
        Ok(Self { path, file, metadata, start })
    }

    fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The one tensor that there is.
    fn only(&self) -> Option<String> {
        let tensors = self.metadata.tensors();
        let mut names = tensors.keys();
        names.next().filter(|_| tensors.len() == 1).cloned()
    }

    fn matrix(&mut self, name: &str) -> Result<Matrix> {
        let wrong = |reason: String| FileError::unusable(self.path, format!("`{name}` {reason}"));
        let info: &TensorInfo = self.metadata.info(name).ok_or_else(|| wrong("is not there".to_owned()))?;
        let numbers = match info.dtype {
            Dtype::F32 => NumberType::F32,
            Dtype::F16 => NumberType::F16,
            Dtype::BF16 => NumberType::Bf16,
            other => return Err(wrong(format!("has numbers of type {other:?}; write float32"))),
        };
        let [rows, columns] = info.shape[..] else {
            return Err(wrong(format!("is no matrix: its shape is {:?}", info.shape)));
        };
        let count = rows.checked_mul(columns).filter(|count| *count <= MOST_NUMBERS);
        let count = count.ok_or_else(|| wrong(format!("is too large: {:?}", info.shape)))?;
        let at = self.start + info.data_offsets.0 as u64;
        let values = self.file.seek(SeekFrom::Start(at)).and_then(|_| numbers.read(&mut self.file, count));
        let values = values.map_err(|error| FileError::unreadable(self.path, error))?;
        Ok(Matrix { rows, columns, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these tensors of zeros.
    fn file(header: &str, bytes: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let start = (header.len() as u64).to_le_bytes();
        std::fs::write(file.path(), [&start[..], header.as_bytes(), &vec![0; bytes]].concat()).unwrap();
        file
    }

    fn tensor(name: &str, shape: &str, from: usize, to: usize) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    }

    #[test]
    fn matrices_are_known_by_their_names() {
        let one = file(&format!("{{{}}}", tensor("x", "[2,3]", 0, 24)), 24);
        let read_one = read(one.path()).unwrap();
        assert_eq!(read_one.all.map(|all| (all.rows, all.columns)), Some((2, 3)));
        assert!(read_one.reranked.is_none());
        let [all, images, texts] = [
            tensor("similarity", "[2,3]", 0, 24),
            tensor("scores_i2t", "[2,3]", 24, 48),
            tensor("scores_t2i", "[3,2]", 48, 72),
        ];
        let three = read(file(&format!("{{{all},{images},{texts}}}"), 72).path()).unwrap();
        assert!(three.all.is_some());
        assert_eq!(three.reranked.map(|(_, texts)| (texts.rows, texts.columns)), Some((3, 2)));
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let one = |shape, to| format!("{{{}}}", tensor("similarity", shape, 0, to));
        let two = format!("{{{},{}}}", tensor("a", "[1,1]", 0, 4), tensor("b", "[1,1]", 4, 8));
        let half = format!("{{{}}}", tensor("scores_i2t", "[1,1]", 0, 4));
        let cases = [
            (file(&one("[2,3]", 24), 20), "as long as the file"),
            (file(&one("[6]", 24), 24), "no matrix"),
            (file(&one("[2,3]", 24).replace("F32", "I32"), 24), "write float32"),
            (file(&two, 8), "none called"),
            (file(&half, 4), "go together"),
            (file(&one("[2,3]", 20), 20), "is no .safetensors"),
            (file(&format!("{{{}}}", tensor("similarity", "[2,3]", 48, 24)), 24), "is no .safetensors"),
            (file("{", 0), "is no .safetensors"),
        ];
        for (file, word) in cases {
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let long = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(long.path(), [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
        assert!(read(long.path()).unwrap_err().to_string().contains("header"));
    }
}
