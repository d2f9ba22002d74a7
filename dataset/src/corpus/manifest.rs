//! The manifest: the files of a corpus and the sizes of their row groups, pinned at the start of a run.

mod files;
mod open;
mod source;
mod table;

pub use files::{Manifest, ManifestFile};
pub use source::{CorpusSource, ManifestSource, Unweighted};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::corpus::columns::ColumnNames;
    use crate::error::DatasetError;
    use crate::error::Result;
    use crate::test_assets::emoji_sources;
    use blip2_store::error::StoreError;
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
            unweighted: Unweighted::Rows,
        };
        let sources = [source("a", "train-*.parquet", Some(2.0)), source("b", "test-*.parquet", None)];
        let told = std::sync::Mutex::new(Vec::new());
        let opened = |done, total| told.lock().unwrap().push((done, total));
        let manifest = Manifest::open_sources(&sources, &ColumnNames::default(), &opened).await.unwrap();
        assert_eq!(manifest.files.len(), 5);
        let shares: Vec<_> = manifest.sources.iter().map(|source| (source.files, source.weight)).collect();
        assert_eq!(shares, [(4, Some(2.0)), (1, None)]);
        let of_root = sources.clone().map(|source| CorpusSource { unweighted: Unweighted::Root, ..source });
        let by_root = Manifest::open_sources(&of_root, &ColumnNames::default(), &|_, _| ()).await.unwrap();
        let weights: Vec<_> = by_root.sources.iter().map(|source| source.weight).collect();
        assert_eq!(weights, [Some(2.0), Some(540.0f64.sqrt())], "a weight that is given is meant");
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
