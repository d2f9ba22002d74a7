//! Rows whose image is another row's: the same bytes, or nearly the same look.
//!
//! Of two such rows the later one is left out, whether or not the earlier one is left out as well. Exact
//! duplicates have one SHA-256. Near ones have perceptual hashes that differ in at most 3 of 64 bits; they
//! are found by the tables of Manku, Jain and Das Sarma (WWW 2007): of 4 blocks of 16 bits one is free of
//! differences, and of the 48 other bits, in 4 blocks of 12, another one. So each of 16 sorts by 28 bits
//! brings some of the pairs together, and all of them together every pair. Everything is sorted on disk:
//! memory does not grow with the number of rows.

mod sorted_runs;
mod tables;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{UInt8Type, UInt32Type};
use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::parquet_bytes::read_parquet;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};

use sorted_runs::{Records, Sorter};
use tables::{TABLES, pairs_of_table};

/// Most bits in which near duplicates may differ.
pub const MAX_NEAR_BITS: u32 = 3;
/// Rows of a batch of the list.
const BATCH: usize = 1 << 16;

/// Which rows are duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupRule {
    /// Perceptual hashes that differ in at most so many bits are duplicates too; `None`: the same bytes
    /// alone.
    pub near_bits: Option<u32>,
}

/// A row's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHash {
    /// Task, row group and row.
    pub place: [u32; 3],
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Perceptual hash.
    pub perceptual_hash: u64,
}

/// Row group and row of rows of a task that are left out.
pub(crate) type RowPlaces = BTreeSet<(u32, u32)>;

/// Rows that are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuplicateList {
    /// Task, row group and row; ascending.
    rows: Vec<[u32; 3]>,
}

impl DuplicateList {
    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Those of a task.
    pub(crate) fn of_task(&self, task: u64) -> RowPlaces {
        let first = self.rows.partition_point(|[of, ..]| u64::from(*of) < task);
        let rows = self.rows[first..].iter().take_while(|[of, ..]| u64::from(*of) == task);
        rows.map(|[_, row_group, row]| (*row_group, *row)).collect()
    }

    /// Reads what [`DuplicateFinder::finish`] wrote.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn from_parquet(content: Bytes) -> Result<Self> {
        let mut list = Self::default();
        for batch in read_parquet(content).map_err(malformed)? {
            let column = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
            let columns = ["task", "row_group", "row"].map(column);
            let [Some(task), Some(row_group), Some(row)] = columns else {
                return Err(malformed("unexpected columns"));
            };
            list.rows
                .extend((0..batch.num_rows()).map(|at| [task.value(at), row_group.value(at), row.value(at)]));
        }
        match list.rows.is_sorted() {
            true => Ok(list),
            false => Err(malformed("its rows are out of order")),
        }
    }
}

/// Takes images in any order and finds those that are left out.
pub struct DuplicateFinder {
    rule: DedupRule,
    exact: Sorter<6>,
    /// Hash and place, as pushed; read once for each table.
    hashes: Records<3>,
    scratch: tempfile::TempDir,
    memory_bytes: usize,
}

impl DuplicateFinder {
    /// Sorts in a new folder within `scratch`, `memory_bytes` at a time.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] for a rule that asks for too much; a folder that cannot be written.
    pub fn new(rule: DedupRule, scratch: &Path, memory_bytes: usize) -> Result<Self> {
        if rule.near_bits.is_some_and(|bits| bits > MAX_NEAR_BITS) {
            return Err(DatasetError::Setting(format!(
                "near duplicates differ in at most {MAX_NEAR_BITS} bits"
            )));
        }
        let scratch = tempfile::tempdir_in(scratch).map_err(failed)?;
        Ok(Self {
            rule,
            exact: Sorter::new(scratch.path(), memory_bytes),
            hashes: Records::create(scratch.path()).map_err(failed)?,
            scratch,
            memory_bytes,
        })
    }

    /// Takes an image.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn push(&mut self, image: ImageHash) -> Result<()> {
        let [high, low] = packed(image.place);
        let word = |index: usize| {
            let bytes = image.sha256[8 * index..8 * index + 8].try_into();
            // Eight bytes are eight bytes.
            bytes.map_or(0, u64::from_be_bytes)
        };
        self.exact.push([word(0), word(1), word(2), word(3), high, low]).map_err(failed)?;
        if self.rule.near_bits.is_some() {
            self.hashes.push([image.perceptual_hash, high, low]).map_err(failed)?;
        }
        Ok(())
    }

    /// The list as a Parquet file: `task, row_group, row`, of which row each is a duplicate
    /// (`of_task, of_row_group, of_row`), and in how many bits they differ (`distance`; null: the same
    /// bytes).
    ///
    /// # Errors
    /// The folder cannot be written or read.
    pub fn finish(self) -> Result<Bytes> {
        let Self { rule, exact, hashes, scratch, memory_bytes } = self;
        // Place, distance plus one (0: the same bytes), place of the other: the first of a row is what
        // counts.
        let mut found: Sorter<5> = Sorter::new(scratch.path(), memory_bytes);
        let mut first: Option<[u64; 6]> = None;
        for record in exact.finish().map_err(failed)? {
            let record = record.map_err(failed)?;
            match first.filter(|first| first[..4] == record[..4]) {
                Some(first) => {
                    found.push([record[4], record[5], 0, first[4], first[5]]).map_err(failed)?;
                }
                None => first = Some(record),
            }
        }
        if let Some(bits) = rule.near_bits {
            let hashes = hashes.finish().map_err(failed)?;
            for table in 0..TABLES {
                let mut sorter: Sorter<4> = Sorter::new(scratch.path(), memory_bytes);
                for record in hashes.read().map_err(failed)? {
                    let [hash, high, low] = record.map_err(failed)?;
                    sorter.push([tables::key(hash, table), hash, high, low]).map_err(failed)?;
                }
                let sorted = sorter.finish().map_err(failed)?;
                pairs_of_table(sorted, bits, |duplicate| found.push(duplicate)).map_err(failed)?;
            }
        }
        write_list(found.finish().map_err(failed)?)
    }
}

fn write_list(found: impl Iterator<Item = std::io::Result<[u64; 5]>>) -> Result<Bytes> {
    let mut content = Vec::new();
    let mut rows: Vec<[u64; 5]> = Vec::with_capacity(BATCH);
    let mut writer =
        ArrowWriter::try_new(&mut content, list_batch(&[])?.schema(), None).map_err(malformed)?;
    let mut last = None;
    for record in found {
        let record = record.map_err(failed)?;
        let place = [record[0], record[1]];
        if last.replace(place) == Some(place) {
            continue;
        }
        rows.push(record);
        if rows.len() == BATCH {
            writer.write(&list_batch(&rows)?).map_err(malformed)?;
            rows.clear();
        }
    }
    writer.write(&list_batch(&rows)?).map_err(malformed)?;
    writer.close().map_err(malformed)?;
    Ok(content.into())
}

fn list_batch(rows: &[[u64; 5]]) -> Result<RecordBatch> {
    let number = |value: fn(&[u64; 5]) -> u32| {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(value))) as ArrayRef
    };
    let distance = rows.iter().map(|row| row[2].checked_sub(1).map(|distance| distance as u8));
    let distance: arrow::array::PrimitiveArray<UInt8Type> = distance.collect();
    RecordBatch::try_from_iter_with_nullable([
        ("task", number(|row| (row[0] >> 32) as u32), false),
        ("row_group", number(|row| row[0] as u32), false),
        ("row", number(|row| row[1] as u32), false),
        ("of_task", number(|row| (row[3] >> 32) as u32), false),
        ("of_row_group", number(|row| row[3] as u32), false),
        ("of_row", number(|row| row[4] as u32), false),
        ("distance", Arc::new(distance) as Arc<dyn Array>, true),
    ])
    .map_err(malformed)
}

/// A place as two words that are ordered as it is.
fn packed([task, row_group, row]: [u32; 3]) -> [u64; 2] {
    [(u64::from(task) << 32) | u64::from(row_group), u64::from(row)]
}

fn failed(error: std::io::Error) -> DatasetError {
    DatasetError::Setting(format!("the folder for sorting duplicates: {error}"))
}

fn malformed(reason: impl std::fmt::Display) -> DatasetError {
    DatasetError::Malformed { what: "list of duplicates", reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use blip2_random::KeyedRng;
    use proptest::prelude::*;

    use super::*;

    /// The file that a finder writes.
    fn list(rule: DedupRule, memory: usize, images: &[ImageHash]) -> Bytes {
        let folder = tempfile::tempdir().unwrap();
        let mut finder = DuplicateFinder::new(rule, folder.path(), memory).unwrap();
        images.iter().for_each(|image| finder.push(*image).unwrap());
        finder.finish().unwrap()
    }

    fn find(rule: DedupRule, memory: usize, images: &[ImageHash]) -> Vec<[u32; 3]> {
        let folder = tempfile::tempdir().unwrap();
        let mut finder = DuplicateFinder::new(rule, folder.path(), memory).unwrap();
        images.iter().for_each(|image| finder.push(*image).unwrap());
        let content = finder.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        DuplicateList::from_parquet(content).unwrap().rows
    }

    /// Every pair compared.
    fn expected(rule: DedupRule, images: &[ImageHash]) -> Vec<[u32; 3]> {
        let same = |a: &ImageHash, b: &ImageHash| {
            let bits = (a.perceptual_hash ^ b.perceptual_hash).count_ones();
            a.sha256 == b.sha256 || rule.near_bits.is_some_and(|most| bits <= most)
        };
        let is_left_out = |b: &ImageHash| images.iter().any(|a| a.place < b.place && same(a, b));
        let mut rows: Vec<_> = images.iter().filter(|b| is_left_out(b)).map(|image| image.place).collect();
        rows.sort_unstable();
        rows
    }

    /// Images in families: copies, and copies with some bits changed.
    fn images(seed: u64, count: u32) -> Vec<ImageHash> {
        let mut draws = KeyedRng::new(seed, "images", &[]);
        let families: Vec<u64> = (0..count / 4).map(|_| draws.below(u64::MAX)).collect();
        (0..count)
            .map(|number| {
                let family = draws.below(families.len() as u64) as usize;
                let flips = draws.below(6);
                let hash = (0..flips).fold(families[family], |hash, _| hash ^ (1 << draws.below(64)));
                let mut sha256 = [0; 32];
                sha256[..8].copy_from_slice(&hash.to_le_bytes());
                sha256[31] = draws.below(3) as u8;
                // Not pushed in their order.
                let place = number.wrapping_mul(7919) % count;
                ImageHash { place: [place / 50, place / 10 % 5, place % 10], sha256, perceptual_hash: hash }
            })
            .collect()
    }

    #[test]
    fn all_pairs_are_found_with_any_memory() {
        for seed in 0..6 {
            let images = images(seed, 400);
            for near_bits in [None, Some(0), Some(1), Some(3)] {
                let rule = DedupRule { near_bits };
                let expected = expected(rule, &images);
                assert!(!expected.is_empty());
                for memory in [1 << 10, 1 << 20] {
                    assert_eq!(find(rule, memory, &images), expected, "{seed} {near_bits:?} {memory}");
                }
            }
        }
    }

    /// Images of few hashes and few bytes, so that there are many duplicates, in any order.
    fn some_images() -> impl Strategy<Value = Vec<ImageHash>> {
        let image = (0..6_u8, prop::collection::vec(0..64_u32, 0..5));
        let images = prop::collection::vec(image, 0..60).prop_map(|images| {
            let numbered = (0..).zip(images).map(|(row, (bytes, flips)): (u32, _)| ImageHash {
                place: [row / 20, row / 5 % 4, row % 5],
                sha256: [bytes; 32],
                perceptual_hash: flips.iter().fold(0x0f0f_3355_aa00_ff11, |hash, bit| hash ^ (1 << bit)),
            });
            numbered.collect::<Vec<_>>()
        });
        images.prop_shuffle()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// The list is a function of the images, to the byte: neither their order nor memory shows in it.
        #[test]
        fn the_order_of_images_does_not_matter(images in some_images(), near_bits in prop::option::of(0..=3_u32)) {
            let rule = DedupRule { near_bits };
            let mut in_order = images.clone();
            in_order.sort_by_key(|image| image.place);
            let found = list(rule, 1 << 10, &images);
            prop_assert_eq!(&found, &list(rule, 1 << 20, &in_order));
            let rows = DuplicateList::from_parquet(found).unwrap().rows;
            prop_assert_eq!(rows, expected(rule, &images));
        }
    }

    #[test]
    fn too_many_bits_and_nonsense_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let rule = DedupRule { near_bits: Some(4) };
        let error = DuplicateFinder::new(rule, folder.path(), 1 << 20).err().unwrap().to_string();
        assert!(error.contains("at most 3 bits"), "{error}");
        let missing = folder.path().join("none");
        assert!(DuplicateFinder::new(DedupRule { near_bits: None }, &missing, 1).is_err());
        assert!(DuplicateList::from_parquet(Bytes::from_static(b"x")).is_err());
        assert!(find(DedupRule { near_bits: Some(3) }, 1 << 20, &[]).is_empty());
    }
}
