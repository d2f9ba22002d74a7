//! The stores of this machine, held to what every store does. A server of S3 is held to it in
//! `tests/tests/s3`.

use blip2_test_server::{Server, Site};

use super::conformance;
use crate::location::Location;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a folder/ünï#1/100%");
    let root = Location::parse(odd.to_str().unwrap()).unwrap();
    conformance::every_store(&root).await;
    assert_eq!(std::fs::read(odd.join("created/epoch")).unwrap().len(), 5, "an object is a file of its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_what_every_store_does() {
    conformance::every_store(&Location::parse("memory:///folder").unwrap()).await;
}

#[tokio::test]
async fn a_plain_server_is_read_as_every_store_is() {
    let objects = [("a.bin", vec![7; 1000]), ("deep/er/b.bin", (0..=255).cycle().take(70_000).collect())];
    let files = objects.iter().map(|(name, content)| (format!("/folder/{name}"), content.clone())).collect();
    let server = Server::start(Site { files, ..Site::default() }).await;
    let folder = Location::parse(&format!("{}/folder", server.url)).unwrap();
    let objects = objects.map(|(name, content)| (name, content.into()));
    conformance::objects_are_read(&folder, &objects).await;
}
