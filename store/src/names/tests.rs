//! Names and patterns of files as people write them.

use bytes::Bytes;

use crate::error::{Result, StoreError};
use crate::location::Location;
use crate::pool::StorePool;

/// A folder with these files, and what sources find in it.
struct Scene(tempfile::TempDir);

impl Scene {
    fn with(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        Self(folder)
    }

    fn root(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }

    async fn expand(&self, source: &str) -> Result<Vec<String>> {
        let root = format!("{}/", self.root());
        let source = source.replace("ROOT/", &root);
        let found = StorePool::default().expand(&source, &["parquet"]).await?;
        Ok(found
            .iter()
            .map(|object| {
                assert_eq!(object.bytes, 1);
                // What is shown leads back to the same file.
                let again = Location::parse(&object.location.to_string()).unwrap();
                assert_eq!(again.path(), object.location.path());
                object.location.to_string().replace(&root, "")
            })
            .collect())
    }

    async fn found(&self, source: &str) -> Vec<String> {
        self.expand(source).await.unwrap_or_else(|error| panic!("{source}: {error}"))
    }
}

#[tokio::test]
async fn patterns_over_folders_and_characters() {
    let scene = Scene::with(&[
        "a/t-00.parquet",
        "a/t-01.parquet",
        "a/t-10.parquet",
        "a/notes.txt",
        "a/.hidden.parquet",
        "b/c/t-00.parquet",
        "b/t-00.parquet",
        "ü/t.parquet",
    ]);
    for (source, wanted) in [
        ("ROOT/a/*.parquet", &["a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet"][..]),
        ("ROOT/a/t-0?.parquet", &["a/t-00.parquet", "a/t-01.parquet"]),
        ("ROOT/a/t-[0-9]0.parquet", &["a/t-00.parquet", "a/t-10.parquet"]),
        ("ROOT/a/t-[!0]0.parquet", &["a/t-10.parquet"]),
        ("ROOT/**/t-00.parquet", &["a/t-00.parquet", "b/c/t-00.parquet", "b/t-00.parquet"]),
        ("ROOT/*/t-00.parquet", &["a/t-00.parquet", "b/t-00.parquet"]),
        ("ROOT/b/**/*.parquet", &["b/c/t-00.parquet", "b/t-00.parquet"]),
        ("ROOT/a/t-{00..01}.parquet", &["a/t-00.parquet", "a/t-01.parquet"]),
        ("ROOT/{b,a}/t-00.parquet", &["b/t-00.parquet", "a/t-00.parquet"]),
        (
            "ROOT/{b/c,a}/*.parquet",
            &["b/c/t-00.parquet", "a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet"],
        ),
        ("ROOT/a", &["a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet"]),
        ("ROOT/a/", &["a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet"]),
        ("ROOT/b", &["b/t-00.parquet"]),
        ("ROOT/{a,ü}", &["a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet", "ü/t.parquet"]),
        ("ROOT/ü/?.parquet", &["ü/t.parquet"]),
        ("file://ROOT/a/t-0?.parquet", &["a/t-00.parquet", "a/t-01.parquet"]),
        ("file://ROOT/a", &["a/t-00.parquet", "a/t-01.parquet", "a/t-10.parquet"]),
    ] {
        assert_eq!(scene.found(source).await, wanted, "{source}");
    }
    // A pattern that matches folders alone means what is in them.
    assert_eq!(scene.found("ROOT/[bü]").await, ["b/t-00.parquet", "ü/t.parquet"]);
    // A folder that has none itself stands for what is below it.
    assert_eq!(scene.found("ROOT/").await.len(), 6);
}

#[tokio::test]
async fn names_that_exist_are_meant_as_they_are() {
    let odd = [
        "a b.parquet",
        "a%20b.parquet",
        "100%.parquet",
        "a#b.parquet",
        "img [1].parquet",
        "q?x.parquet",
        "st*r.parquet",
        "a{b}.parquet",
        "a{1..2}.parquet",
        "a{x,y}.parquet",
        "a~1.parquet",
        "e\u{301}.parquet",
        "\u{e9}.parquet",
        "😀.parquet",
        "back\\slash.parquet",
        "[set]/x.parquet",
        "{a,b}/x.parquet",
        "**/x.parquet",
    ];
    let scene = Scene::with(&odd);
    for name in odd {
        assert_eq!(scene.found(&format!("ROOT/{name}")).await, [name]);
    }
    assert_eq!(scene.found("ROOT/[set]").await, ["[set]/x.parquet"]);
    assert_eq!(scene.found("ROOT/[set]/*.parquet").await, ["[set]/x.parquet"]);
    assert_eq!(scene.found("ROOT/{a,b}/?.parquet").await, ["{a,b}/x.parquet"]);
    // Where no such name is, it is a pattern.
    assert_eq!(scene.found("ROOT/q[?]x.parquet").await, ["q?x.parquet"]);
    assert_eq!(scene.found("ROOT/a?b.parquet").await, ["a b.parquet", "a#b.parquet"]);
}

#[tokio::test]
async fn an_ingestion_stands_for_its_rows_and_not_for_its_lists() {
    let scene =
        Scene::with(&["out/part-000000-0000.parquet", "out/rejected/000000.parquet", "out/ingest.json"]);
    for source in ["ROOT/out", "ROOT/", "ROOT/**/*.parquet", "ROOT/*/*.parquet"] {
        assert_eq!(scene.found(source).await, ["out/part-000000-0000.parquet"], "{source}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let scene = Scene::with(&["a/t-00.parquet", "a/t-01.parquet", "b/x.txt"]);
    let error = async |source: &str| scene.expand(source).await.expect_err(source).to_string();
    assert!(error("ROOT/gone.parquet").await.contains("gone.parquet` does not exist"));
    let missing = error("ROOT/a/t-{00..04}.parquet").await;
    assert!(missing.contains("t-02.parquet") && missing.contains("2 others"), "{missing}");
    assert!(error("ROOT/a/*.tar").await.contains("no file matches"));
    assert!(error("ROOT/{a,b}/*.parquet").await.contains("b/*.parquet"));
    assert!(error("ROOT/b").await.contains("has no *.parquet"));
    assert!(error("ROOT/gone/*.parquet").await.contains("gone"));
    assert!(error("").await.contains("empty"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_leads_nowhere_is_an_error() {
    use std::os::unix::fs::symlink;
    let scene = Scene::with(&["c/a.parquet", "else/b.parquet"]);
    let folder = scene.0.path().join("c");
    symlink(scene.0.path().join("else/b.parquet"), folder.join("b.parquet")).unwrap();
    symlink(scene.0.path(), folder.join("around")).unwrap();
    assert_eq!(scene.found("ROOT/c/*.parquet").await, ["c/a.parquet", "c/b.parquet"]);
    symlink(scene.0.path().join("gone"), folder.join("z.parquet")).unwrap();
    for source in
        ["ROOT/c", "ROOT/c/*.parquet", "ROOT/**/*.parquet", "ROOT/c/z.parquet", "ROOT/c/{a,z}.parquet"]
    {
        let error = scene.expand(source).await.expect_err(source);
        assert!(
            matches!(&error, StoreError::DanglingLink { link, .. } if link.ends_with("z.parquet")),
            "{source}: {error}"
        );
    }
    // One that is not among what is named is nobody's business.
    assert_eq!(scene.found("ROOT/c/a*.parquet").await, ["c/a.parquet"]);
}

/// What of a source needs no store of the machine's: keys are what is written.
#[tokio::test]
async fn keys_of_buckets_are_no_parts_of_urls() {
    for key in ["a b#1.parquet", "100%/x.parquet", "a%20b", "q?x=1&y", "é/e\u{301}", "[1]{2}~*"] {
        for bucket in ["s3://bucket", "gs://bucket"] {
            let url = format!("{bucket}/{key}");
            let location = Location::parse(&url).unwrap();
            assert_eq!((location.path().as_ref(), location.to_string()), (key, url.clone()));
            assert_eq!(Location::parse(bucket).unwrap().join(key).to_string(), url);
        }
        let web = Location::parse("http://127.0.0.1:9").unwrap().join(key);
        assert_eq!(Location::parse(&web.to_string()).unwrap().path().as_ref(), key, "{web}");
    }
    assert!(Location::parse("s3://bucket/a//b").is_err());
}

/// The same in a store of keys.
#[tokio::test]
async fn patterns_in_a_bucket() {
    let mut pool = StorePool::default();
    let base = "memory:///";
    let names = [
        "c/a/t-00.parquet",
        "c/a/t-01.parquet",
        "c/b/t-00.parquet",
        "c/b/[1].parquet",
        "c/rejected/000000.parquet",
    ];
    for name in names {
        pool.parse(&format!("{base}{name}")).unwrap().put(Bytes::from_static(b"x")).await.unwrap();
    }
    for (source, wanted) in [
        ("c/a/*.parquet", &["c/a/t-00.parquet", "c/a/t-01.parquet"][..]),
        ("c/*/t-0?.parquet", &["c/a/t-00.parquet", "c/a/t-01.parquet", "c/b/t-00.parquet"]),
        ("c/**/t-00.parquet", &["c/a/t-00.parquet", "c/b/t-00.parquet"]),
        ("c/{b,a}/t-00.parquet", &["c/b/t-00.parquet", "c/a/t-00.parquet"]),
        ("{c/b,c/a}/t-00.parquet", &["c/b/t-00.parquet", "c/a/t-00.parquet"]),
        ("c/a/t-{00..01}.parquet", &["c/a/t-00.parquet", "c/a/t-01.parquet"]),
        ("c/b/[1].parquet", &["c/b/[1].parquet"]),
        ("c/a", &["c/a/t-00.parquet", "c/a/t-01.parquet"]),
        ("c", &["c/a/t-00.parquet", "c/a/t-01.parquet", "c/b/[1].parquet", "c/b/t-00.parquet"]),
    ] {
        let found = pool.expand(&format!("{base}{source}"), &["parquet"]).await;
        let found = found.unwrap_or_else(|error| panic!("{source}: {error}"));
        let names: Vec<_> = found.iter().map(|object| object.location.path().as_ref().to_owned()).collect();
        assert_eq!(names, wanted, "{source}");
    }
    for (source, wanted) in
        [("c/a/t-{00..03}.parquet", "t-02"), ("c/x/*.parquet", "no file matches"), ("gone", "gone")]
    {
        let error =
            pool.expand(&format!("{base}{source}"), &["parquet"]).await.expect_err(source).to_string();
        assert!(error.contains(wanted), "{source}: {error}");
    }
}

#[tokio::test]
async fn patterns_expand_sorted() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.parquet", "a.parquet", "c.txt"] {
        std::fs::write(folder.path().join(name), b"x").unwrap();
    }
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let root = folder.path().to_str().unwrap();
    let mut pool = StorePool::default();
    let found = pool.expand(&format!("{root}/*.parquet"), &[]).await.unwrap();
    let names: Vec<_> = found.iter().map(|object| object.location.file_name()).collect();
    assert_eq!(names, ["a.parquet", "b.parquet"]);
    let through_url = pool.expand(&format!("file://{root}/sub/../*.parquet"), &[]).await.unwrap();
    assert_eq!(through_url.len(), 2);
    let upwards = pool.expand(&format!("{root}/sub/../a.parquet"), &[]).await.unwrap();
    assert_eq!(upwards[0].bytes, 1);
}
