//! More records than fit in memory: files of them, and sorted runs that are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of a reader's or writer's buffer.
const BUFFER: usize = 256 << 10;

/// Records in a nameless file, in the order in which they came.
pub(super) struct Records<const N: usize> {
    file: BufWriter<File>,
}

impl<const N: usize> Records<N> {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?) })
    }

    pub(super) fn push(&mut self, record: [u64; N]) -> io::Result<()> {
        record.iter().try_for_each(|word| self.file.write_all(&word.to_le_bytes()))
    }

    pub(super) fn finish(self) -> io::Result<WrittenRecords<N>> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok(WrittenRecords { file })
    }
}

/// Records that can be read again and again, one reader at a time.
pub(super) struct WrittenRecords<const N: usize> {
    file: File,
}

impl<const N: usize> WrittenRecords<N> {
    pub(super) fn read(&self) -> io::Result<Reader<N>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Reader { file: BufReader::with_capacity(BUFFER, file) })
    }
}

/// Reads records in their order.
pub(super) struct Reader<const N: usize> {
    file: BufReader<File>,
}

impl<const N: usize> Iterator for Reader<N> {
    type Item = io::Result<[u64; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = [0; N];
        let mut word = [0; 8];
        for (index, place) in record.iter_mut().enumerate() {
            match self.file.read_exact(&mut word) {
                Ok(()) => *place = u64::from_le_bytes(word),
                Err(error) if index == 0 && error.kind() == io::ErrorKind::UnexpectedEof => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(record))
    }
}

/// Sorts records: as many as fit in the memory given at a time, then all runs at once.
pub(super) struct Sorter<const N: usize> {
    folder: PathBuf,
    /// Records of a run.
    most: usize,
    current: Vec<[u64; N]>,
    runs: Vec<WrittenRecords<N>>,
}

impl<const N: usize> Sorter<N> {
    pub(super) fn new(folder: &Path, memory_bytes: usize) -> Self {
        let most = (memory_bytes / (8 * N)).max(16);
        Self { folder: folder.to_owned(), most, current: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn push(&mut self, record: [u64; N]) -> io::Result<()> {
        if self.current.len() == self.most {
            self.write_run()?;
        }
        self.current.push(record);
        Ok(())
    }

    /// Ascending.
    pub(super) fn finish(mut self) -> io::Result<Merged<N>> {
        self.write_run()?;
        let mut readers = self.runs.iter().map(WrittenRecords::read).collect::<io::Result<Vec<_>>>()?;
        let mut heap = BinaryHeap::new();
        for (run, reader) in readers.iter_mut().enumerate() {
            if let Some(record) = reader.next().transpose()? {
                heap.push(Reverse((record, run)));
            }
        }
        Ok(Merged { readers, heap })
    }

    fn write_run(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        self.current.sort_unstable();
        let mut run = Records::create(&self.folder)?;
        self.current.drain(..).try_for_each(|record| run.push(record))?;
        self.runs.push(run.finish()?);
        Ok(())
    }
}

/// The records of all runs, ascending.
pub(super) struct Merged<const N: usize> {
    readers: Vec<Reader<N>>,
    heap: BinaryHeap<Reverse<([u64; N], usize)>>,
}

impl<const N: usize> Iterator for Merged<N> {
    type Item = io::Result<[u64; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((record, run)) = self.heap.pop()?;
        match self.readers[run].next() {
            Some(Ok(next)) => self.heap.push(Reverse((next, run))),
            Some(Err(error)) => return Some(Err(error)),
            None => {}
        }
        Some(Ok(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sorted_over_many_runs() {
        let folder = tempfile::tempdir().unwrap();
        let records: Vec<[u64; 2]> = (0..1000).map(|n: u64| [n * 7919 % 101, n]).collect();
        for memory in [0, 1000, 1 << 20] {
            let mut sorter = Sorter::new(folder.path(), memory);
            records.iter().for_each(|record| sorter.push(*record).unwrap());
            let sorted: Vec<_> = sorter.finish().unwrap().map(|record| record.unwrap()).collect();
            let mut expected = records.clone();
            expected.sort_unstable();
            assert_eq!(sorted, expected);
        }
        assert!(Sorter::<2>::new(folder.path(), 0).finish().unwrap().next().is_none());
    }

    #[test]
    fn records_are_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::create(folder.path()).unwrap();
        (0..5).for_each(|n| records.push([n, n + 1, n + 2]).unwrap());
        let written = records.finish().unwrap();
        for _ in 0..2 {
            assert_eq!(written.read().unwrap().map(|record| record.unwrap()[1]).sum::<u64>(), 15);
        }
    }
}
