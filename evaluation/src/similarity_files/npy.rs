//! One matrix of a `.npy` file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::matrix::{MOST_NUMBERS, Matrix, NumberType};
use crate::file_error::{FileError, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Bytes of a header beyond which there is none: that of a matrix has 128.
const MOST_HEADER: usize = 1 << 16;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    numbers: NumberType,
    is_column_major: bool,
    shape: [usize; 2],
}

pub(super) fn read(path: &Path) -> Result<Matrix> {
    let unreadable = |error| FileError::unreadable(path, error);
    let wrong = |reason: String| FileError::unusable(path, reason);
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut file = BufReader::new(file);
    let (header, before) = header(&mut file).map_err(wrong)?;
    let [rows, columns] = header.shape;
    let numbers = rows.checked_mul(columns).filter(|numbers| *numbers <= MOST_NUMBERS);
    let numbers = numbers.ok_or_else(|| wrong(format!("[{rows}, {columns}] is too large")))?;
    let due = before + (numbers * header.numbers.bytes()) as u64;
    if length != due {
        return Err(wrong(format!("[{rows}, {columns}] has {due} bytes with its header, the file {length}")));
    }
    let values = header.numbers.read(&mut file, numbers).map_err(unreadable)?;
    match header.is_column_major {
        false => Ok(Matrix { rows, columns, values }),
        true => Ok(Matrix { rows: columns, columns: rows, values }.transposed()),
    }
}

/// The header, and the bytes before the numbers.
fn header(file: &mut impl Read) -> std::result::Result<(Header, u64), String> {
    let cut = |_| "is no .npy file: it ends in its header".to_owned();
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(cut)?;
    if start[..6] != MAGIC[..] {
        return Err("is no .npy file: it does not begin as one".to_owned());
    }
    // Version 1 has two bytes of length, later ones four.
    let width = if start[6] == 1 { 2 } else { 4 };
    let mut length = [0; 4];
    file.read_exact(&mut length[..width]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_HEADER {
        return Err(format!("has a header of {length} bytes; a matrix has a short one"));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(cut)?;
    let header = parsed(&String::from_utf8_lossy(&text))?;
    Ok((header, (start.len() + width + length) as u64))
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (5000, 25010), }`.
fn parsed(text: &str) -> std::result::Result<Header, String> {
    let after = |key: &str| {
        let found = text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        found.ok_or_else(|| format!("has a header without `{key}`"))
    };
    let description = after("descr")?.split('\'').nth(1).unwrap_or_default();
    let numbers = match description {
        "<f4" => NumberType::F32,
        "<f2" => NumberType::F16,
        other => {
            return Err(format!(
                "has numbers of type `{other}`; write float32: numpy.save(F, x.astype('float32'))"
            ));
        }
    };
    let shape = after("shape")?;
    let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(inside, _)| inside);
    let sizes: Option<Vec<usize>> = inside.and_then(|inside| {
        let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
        sizes.map(|size| size.parse().ok()).collect()
    });
    let shape = sizes.and_then(|sizes| <[usize; 2]>::try_from(sizes).ok());
    let shape = shape.ok_or("is no matrix: its shape is not [images, texts]")?;
    Ok(Header { numbers, is_column_major: after("fortran_order")?.starts_with("True"), shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, numbers: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [&MAGIC[..], &[1, 0], &length, header.as_bytes(), numbers].concat()
    }

    fn reading(bytes: &[u8]) -> Result<Matrix> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path())
    }

    #[test]
    fn matrices_are_read_in_either_order_and_half_precision() {
        let numbers: Vec<u8> = (0..6).flat_map(|number| (number as f32).to_le_bytes()).collect();
        let header = |order| format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': (2, 3), }}   \n");
        let matrix = reading(&npy(&header("False"), &numbers)).unwrap();
        assert_eq!((matrix.rows, matrix.columns), (2, 3));
        assert_eq!(matrix.values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let matrix = reading(&npy(&header("True"), &numbers)).unwrap();
        assert_eq!((matrix.rows, matrix.columns), (2, 3));
        assert_eq!(matrix.values, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let halves: Vec<u8> =
            (0..6).flat_map(|number| half::f16::from_f32(number as f32).to_le_bytes()).collect();
        let matrix = reading(&npy(&header("False").replace("f4", "f2"), &halves)).unwrap();
        assert_eq!(matrix.values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        let cases = [
            (b"PK\x03\x04 more than eight".to_vec(), "does not begin"),
            (b"\x93NUM".to_vec(), "ends in its header"),
            (npy(good, &[0; 7]), "has 77 bytes"),
            (npy(good, &[0; 9]), "has 77 bytes"),
            (npy(&good.replace("f4", "f8"), &[0; 16]), "astype('float32')"),
            (npy(&good.replace("(1, 2)", "(2,)"), &[0; 8]), "no matrix"),
            (npy(&good.replace("(1, 2)", "(1, 2, 1)"), &[0; 8]), "no matrix"),
            (npy(&good.replace("(1, 2)", "(-1, 2)"), &[0; 8]), "no matrix"),
            (npy(&good.replace("(1, 2)", "(4294967296, 4294967296)"), &[0; 8]), "too large"),
            (npy(&good.replace("(1, 2)", "(99999, 99999)"), &[0; 8]), "too large"),
            (npy(&good.replace("shape", "form"), &[0; 8]), "without `shape`"),
            ([&MAGIC[..], &[2, 0], &[0xff; 4]].concat(), "has a header of"),
        ];
        for (bytes, word) in cases {
            let error = reading(&bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
