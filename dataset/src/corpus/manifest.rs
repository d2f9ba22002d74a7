//! The manifest: the files of a corpus and the sizes of their row groups, pinned at the start of a run.

mod open;
mod source;
mod table;

use blip2_store::error::StoreError;
use serde::{Deserialize, Serialize};

use crate::corpus::columns::ColumnNames;
use crate::corpus::parquet_file::ParquetFile;
use crate::error::Result;
use blip2_store::{Location, PinnedObject};
pub use source::{CorpusSource, ManifestSource};

/// One Parquet file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path or URL.
    pub location: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Entity tag the store gave it, if any.
    pub etag: Option<String>,
    /// Rows of every row group, without those whose download failed.
    pub row_groups: Vec<u32>,
    /// Rows of every row group whose `status` says that their download failed: they are no data, and passed
    /// over. None at all if no row of the file has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
}

/// The files of a corpus, source by source, in the order in which they were named (patterns sorted).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The files.
    pub files: Vec<ManifestFile>,
    /// The sources they are of, one after the other; none for a corpus of one source.
    pub sources: Vec<ManifestSource>,
}

impl ManifestFile {
    /// Opens the file, which must be the one that was pinned.
    ///
    /// # Errors
    /// [`StoreError::Changed`], [`StoreError::NotFound`], [`StoreError::Failed`],
    /// [`DatasetError::NotParquet`](crate::error::DatasetError::NotParquet).
    pub async fn open(&self, location: Location, columns: &ColumnNames) -> Result<ParquetFile> {
        let object = PinnedObject::look_up(location, self.bytes, self.etag.as_deref()).await?;
        let opened = ParquetFile::open(object, columns).await?.without_failed(&self.failed);
        match opened.row_groups() == self.row_groups {
            true => Ok(opened),
            false => {
                let reason = "its row groups have other sizes".to_owned();
                Err(StoreError::Changed { file: self.location.clone(), reason }.into())
            }
        }
    }
}

impl Manifest {
    /// The manifest of one source.
    pub fn of(files: Vec<ManifestFile>) -> Self {
        Self { files, sources: Vec::new() }
    }

    /// Rows of the corpus.
    pub fn rows(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum()
    }

    /// Rows whose download failed, which are not among [`Manifest::rows`].
    pub fn failed_rows(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.failed).map(|rows| u64::from(*rows)).sum()
    }

    /// Length of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// BLAKE3 (hexadecimal) over the files' names, lengths and row counts, and over the sources where there
    /// are several: equal for copies of one corpus wherever they are stored.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blip2 manifest v1");
        hasher.update(&(self.files.len() as u64).to_le_bytes());
        for file in &self.files {
            let name = file.location.rsplit('/').next().unwrap_or_default();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            hasher.update(&file.bytes.to_le_bytes());
            hasher.update(&(file.row_groups.len() as u64).to_le_bytes());
            for rows in &file.row_groups {
                hasher.update(&rows.to_le_bytes());
            }
            if !file.failed.is_empty() {
                hasher.update(b"failed").update(&(file.failed.len() as u64).to_le_bytes());
                for rows in &file.failed {
                    hasher.update(&rows.to_le_bytes());
                }
            }
        }
        if self.sources.len() > 1 {
            hasher.update(b"sources").update(&(self.sources.len() as u64).to_le_bytes());
            for ManifestSource { name, weight, files } in &self.sources {
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
                // No weight is NaN, which a weight never is.
                hasher.update(&weight.unwrap_or(f64::NAN).to_bits().to_le_bytes());
                hasher.update(&files.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::corpus::columns::ColumnNames;
    use crate::error::DatasetError;
    use crate::error::Result;
    use crate::test_assets::emoji_sources;
    use blip2_test_corpus::Corpus;

    async fn open(sources: &[&str]) -> Result<Manifest> {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        Manifest::open(&sources, &ColumnNames::default()).await
    }

    #[tokio::test]
    async fn the_emoji_corpus_opens() {
        let manifest =
            Manifest::open(&emoji_sources("train-*.parquet"), &ColumnNames::default()).await.unwrap();
        assert_eq!(manifest.files.len(), 4);
        assert_eq!(manifest.rows(), 5085);
        assert!(manifest.files[0].location.ends_with("train-00000.parquet"));
        assert!(manifest.files[0].row_groups.iter().all(|rows| *rows <= 256));
    }

    #[tokio::test]
    async fn parquet_form_round_trips() {
        let mut manifest =
            Manifest::open(&emoji_sources("*-00000.parquet"), &ColumnNames::default()).await.unwrap();
        manifest.files[0].etag = None;
        manifest.files[1].etag = Some("\"tag\"".into());
        let content = manifest.to_parquet().unwrap();
        assert_eq!(content, manifest.to_parquet().unwrap());
        assert_eq!(Manifest::from_parquet(content).unwrap(), manifest);
        let error = Manifest::from_parquet(Bytes::from_static(b"nonsense")).unwrap_err();
        assert!(matches!(error, DatasetError::Malformed { what: "manifest", .. }));
    }

    /// Some of these make Parquet's decoder panic.
    #[tokio::test]
    async fn a_changed_byte_anywhere_is_an_error_or_another_manifest() {
        let manifest =
            Manifest::open(&emoji_sources("*-00000.parquet"), &ColumnNames::default()).await.unwrap();
        let content = manifest.to_parquet().unwrap();
        let mut refused = 0;
        for place in 0..content.len() {
            let mut damaged = content.to_vec();
            damaged[place] ^= 0x41;
            refused += usize::from(Manifest::from_parquet(damaged.into()).is_err());
        }
        assert!(refused > content.len() / 20, "{refused}");
    }

    #[test]
    fn digest_sees_names_sizes_and_rows_but_not_folders() {
        let file = |location: &str, bytes, row_groups: &[u32]| ManifestFile {
            location: location.into(),
            bytes,
            etag: None,
            row_groups: row_groups.to_vec(),
            failed: Vec::new(),
        };
        let digest = |file: ManifestFile| Manifest::of(vec![file]).digest();
        let base = digest(file("/a/x.parquet", 10, &[1, 2]));
        let tagged = ManifestFile { etag: Some("t".into()), ..file("s3://b/x.parquet", 10, &[1, 2]) };
        assert_eq!(base, digest(tagged));
        for other in [
            file("/a/y.parquet", 10, &[1, 2]),
            file("/a/x.parquet", 11, &[1, 2]),
            file("/a/x.parquet", 10, &[2, 1]),
        ] {
            assert_ne!(base, digest(other));
        }
    }

    #[tokio::test]
    async fn bad_sources_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("zero.parquet"), b"").unwrap();
        std::fs::write(path("text.parquet"), b"this is not a Parquet file at all").unwrap();
        Corpus::default().write(&path("empty.parquet"));
        Corpus::with_rows(3).captions_named("words").write(&path("alt.parquet"));

        assert!(matches!(open(&[]).await, Err(DatasetError::Store(StoreError::NoMatch { .. }))));
        assert!(matches!(
            open(&[&path("none.parquet")]).await,
            Err(DatasetError::Store(StoreError::NotFound { .. }))
        ));
        assert!(matches!(
            open(&[&path("*.csv")]).await,
            Err(DatasetError::Store(StoreError::NoMatch { .. }))
        ));
        assert!(matches!(open(&[&path("zero.parquet")]).await, Err(DatasetError::NotParquet { .. })));
        assert!(matches!(open(&[&path("text.parquet")]).await, Err(DatasetError::NotParquet { .. })));
        assert!(matches!(open(&[&path("empty.parquet")]).await, Err(DatasetError::NoRows { files: 1, .. })));
        let error = open(&[&path("alt.parquet")]).await.unwrap_err();
        assert!(matches!(error, DatasetError::MissingColumn { .. }), "{error}");
        assert!(error.to_string().contains("alt.parquet") && error.is_bad_input(), "{error}");
    }

    fn mixed() -> Manifest {
        let mut manifest = crate::test_assets::manifest(&[&[3, 4], &[5], &[6, 7, 8]]);
        let source = |name: &str, weight, files| ManifestSource { name: name.into(), weight, files };
        manifest.sources = vec![source("coco", Some(2.5), 1), source("web", None, 2)];
        manifest
    }

    #[test]
    fn sources_are_part_of_the_stored_form_and_of_the_digest() {
        let manifest = mixed();
        assert_eq!(Manifest::from_parquet(manifest.to_parquet().unwrap()).unwrap(), manifest);
        let mut others = vec![manifest.clone(); 3];
        others[0].sources[0].weight = Some(2.0);
        others[1].sources[0].name = "vg".into();
        others[2].sources[0].files = 2;
        others[2].sources[1].files = 1;
        assert!(others.iter().all(|other| other.digest() != manifest.digest()));
        // One source is the corpus, whatever its name and weight.
        let plain = Manifest::of(manifest.files.clone());
        let source = ManifestSource { name: "all".into(), weight: Some(3.0), files: 3 };
        let named = Manifest { sources: vec![source], ..plain.clone() };
        assert_eq!(named.digest(), plain.digest());
        assert_eq!(Manifest::from_parquet(named.to_parquet().unwrap()).unwrap(), named);
    }

    #[tokio::test]
    async fn several_sources_open_in_order_with_progress() {
        let source = |name: &str, pattern: &str, weight| CorpusSource {
            name: name.into(),
            files: emoji_sources(pattern),
            weight,
        };
        let sources = [source("a", "train-*.parquet", Some(2.0)), source("b", "test-*.parquet", None)];
        let told = std::sync::Mutex::new(Vec::new());
        let opened = |done, total| told.lock().unwrap().push((done, total));
        let manifest = Manifest::open_sources(&sources, &ColumnNames::default(), &opened).await.unwrap();
        assert_eq!(manifest.files.len(), 5);
        let shares: Vec<_> = manifest.sources.iter().map(|source| (source.files, source.weight)).collect();
        assert_eq!(shares, [(4, Some(2.0)), (1, None)]);
        let mut told = told.into_inner().unwrap();
        told.sort_unstable();
        assert_eq!(told, (1..=5).map(|done| (done, 5)).collect::<Vec<_>>());
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let bad = [sources[0].clone(), source("bad", "test-*.parquet", Some(weight))];
            let error = Manifest::open_sources(&bad, &ColumnNames::default(), &|_, _| ()).await.unwrap_err();
            assert!(error.to_string().contains("data.sources.bad.weight"), "{error}");
        }
        let none = [sources[0].clone(), CorpusSource { name: "none".into(), ..CorpusSource::default() }];
        let error = Manifest::open_sources(&none, &ColumnNames::default(), &|_, _| ()).await.unwrap_err();
        assert!(error.to_string().contains("data.sources.none.files"), "{error}");
    }
}
