//! Fetching from a server of this machine that speaks a hub's paths, and breaks off.

use std::collections::BTreeMap;

use blip2_test_server::{Server, Site};

use super::cache::ModelCache;
use super::*;
use crate::Location;

/// `count` bytes, none like its neighbours.
fn noise(count: usize) -> Vec<u8> {
    (0..count as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn sha256_of(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hub with one model, of which `model.safetensors` has `weights`.
fn hub(weights: &[u8], sha256: &str) -> Site {
    let listing = serde_json::json!({
        "sha": "c0ffee",
        "cardData": {"license": "apache-2.0"},
        "siblings": [
            {"rfilename": "README.md", "size": 3},
            {"rfilename": "config.json", "size": 2},
            {"rfilename": "model.safetensors", "size": weights.len(), "lfs": {"size": weights.len(), "sha256": sha256}},
            {"rfilename": "pytorch_model.bin", "size": 9},
        ],
    });
    let file = |path: &str, content: &[u8]| (path.to_owned(), content.to_vec());
    let files = BTreeMap::from([
        file("/api/models/owner/name/revision/main", listing.to_string().as_bytes()),
        file("/owner/name/resolve/c0ffee/config.json", b"{}"),
        file("/owner/name/resolve/c0ffee/model.safetensors", weights),
    ]);
    Site { files, ..Site::default() }
}

async fn wanted_of(hub: &Hub) -> Vec<HubFile> {
    let model = hub.model("owner/name", "main").await.unwrap();
    assert_eq!((model.revision.as_str(), model.licence.as_deref()), ("c0ffee", Some("apache-2.0")));
    let names: Vec<String> = model.files.iter().map(|file| file.name.clone()).collect();
    let wanted = wanted_files(&names).unwrap();
    assert_eq!(wanted, ["config.json", "model.safetensors"]);
    model.files.into_iter().filter(|file| wanted.contains(&file.name)).collect()
}

#[tokio::test]
async fn a_models_needed_files_are_downloaded_once() {
    let weights = noise(40 << 20);
    let server = Server::start(Site { token: Some("secret"), ..hub(&weights, &sha256_of(&weights)) }).await;
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::at(&server.url, Some("secret"));
    let files = wanted_of(&hub).await;
    let done = download_into(folder.path(), &files, |_| ()).await.unwrap();
    assert_eq!(done.iter().map(|file| file.downloaded).sum::<u64>(), weights.len() as u64 + 2);
    assert_eq!(std::fs::read(folder.path().join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no part is left");
    let again = download_into(folder.path(), &files, |_| ()).await.unwrap();
    assert!(again.iter().all(|file| file.downloaded == 0), "{again:?}");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_taken_up_where_it_was() {
    let weights = noise(20 << 20);
    let site = Site { cut: Some((1 << 20, 3)), ..hub(&weights, &sha256_of(&weights)) };
    let server = Server::start(site).await;
    let folder = tempfile::tempdir().unwrap();
    let files = wanted_of(&Hub::at(&server.url, None)).await;
    download_into(folder.path(), &files, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("model.safetensors")).unwrap(), weights);
    assert!(server.sent() < 2 * weights.len(), "not all of it was sent twice");
}

#[tokio::test]
async fn a_download_that_was_stopped_goes_on() {
    let weights = noise(40 << 20);
    let server = Server::start(hub(&weights, &sha256_of(&weights))).await;
    let folder = tempfile::tempdir().unwrap();
    let files = wanted_of(&Hub::at(&server.url, None)).await;
    let remote = files[1].remote();
    // As a process leaves it that is killed after the first piece.
    let part = Download::new(&remote).part_of(&folder.path().join("model.safetensors"));
    std::fs::write(&part, &weights[..16 << 20]).unwrap();
    let done = download_into(folder.path(), &files[1..], |_| ()).await.unwrap();
    assert_eq!(done[0].downloaded, (24 << 20) as u64);
    assert_eq!(std::fs::read(folder.path().join("model.safetensors")).unwrap(), weights);
}

#[tokio::test]
async fn content_of_another_hash_is_refused_and_forgotten() {
    let weights = noise(1 << 20);
    let server = Server::start(hub(&weights, &sha256_of(b"other"))).await;
    let folder = tempfile::tempdir().unwrap();
    let files = wanted_of(&Hub::at(&server.url, None)).await;
    let error = download_into(folder.path(), &files, |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherContent { .. }), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["config.json"]);
}

#[tokio::test]
async fn refusals_of_a_hub_say_what_to_do() {
    let weights = noise(10);
    let server = Server::start(Site { token: Some("secret"), ..hub(&weights, "") }).await;
    let error =
        |hub: Hub, name: &'static str| async move { hub.model(name, "main").await.unwrap_err().to_string() };
    let text = error(Hub::at(&server.url, None), "owner/name").await;
    assert!(text.contains("HF_TOKEN") && text.contains("owner/name"), "{text}");
    let text = error(Hub::at(&server.url, Some("wrong-token")), "owner/name").await;
    assert!(text.contains("HF_TOKEN") && !text.contains("wrong-token"), "{text}");
    let text = error(Hub::at(&server.url, Some("secret")), "owner/other").await;
    assert!(text.contains("no model `owner/other`"), "{text}");
    let text = error(Hub::at("http://127.0.0.1:1", None), "owner/name").await;
    assert!(text.contains("HF_ENDPOINT") && text.contains("127.0.0.1:1"), "{text}");
    assert!(error(Hub::at(&server.url, None), "../../etc").await.contains("OWNER/NAME"));
}

#[tokio::test]
async fn names_that_lead_out_of_the_folder_are_refused() {
    let listing = serde_json::json!({"siblings": [{"rfilename": "../../model.safetensors", "size": 1}]});
    let path = "/api/models/owner/name/revision/main".to_owned();
    let files = BTreeMap::from([(path, listing.to_string().into_bytes())]);
    let server = Server::start(Site { files, ..Site::default() }).await;
    let error = Hub::at(&server.url, None).model("owner/name", "main").await.unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
}

/// A model's folder on a plain server.
fn plain(whole_only: bool) -> Site {
    let file = |name: &str, content: &[u8]| (format!("/models/eva/{name}"), content.to_vec());
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let files = BTreeMap::from([
        file("config.json", b"{}"),
        file("model.safetensors.index.json", index),
        file("model-00001-of-00002.safetensors", &noise(17 << 20)),
        file("model-00002-of-00002.safetensors", &noise(5)),
        file("pytorch_model.bin", b"not needed"),
    ]);
    Site { files, whole_only, ..Site::default() }
}

async fn cached(cache: &ModelCache, url: &str, expected: Option<&str>) -> Result<Fetched> {
    cache.get(url, files_at(url).await?, expected).await
}

#[tokio::test]
async fn a_folder_is_fetched_once_by_many_and_verified() {
    for whole_only in [false, true] {
        let server = Server::start(plain(whole_only)).await;
        let folder = tempfile::tempdir().unwrap();
        let cache = ModelCache::at(folder.path(), u64::MAX);
        let url = format!("{}/models/eva/", server.url);
        let all = futures::future::join_all((0..4).map(|_| cached(&cache, &url, None))).await;
        let all: Vec<Fetched> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().filter(|fetched| fetched.downloaded > 0).count(), 1, "{all:?}");
        let path = &all[0].path;
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 4);
        assert_eq!(std::fs::read(path.join("model-00001-of-00002.safetensors")).unwrap(), noise(17 << 20));
        // The hash is the one that `b3sum` over its own lines gives.
        assert_eq!(hash_of(path).unwrap(), all[0].blake3);
        cached(&cache, &url, Some(&all[0].blake3)).await.unwrap();
        let error = cached(&cache, &url, Some(&"0".repeat(64))).await.unwrap_err();
        assert!(matches!(error, StoreError::OtherContent { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_in_the_cache_is_fetched_again() {
    let server = Server::start(plain(false)).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}/models/eva/model-00002-of-00002.safetensors", server.url);
    let first = cached(&ModelCache::at(folder.path(), u64::MAX), &url, None).await.unwrap();
    assert_eq!(std::fs::read(&first.path).unwrap(), noise(5));
    super::cache::release_all();
    std::fs::write(&first.path, b"other").unwrap();
    let again = cached(&ModelCache::at(folder.path(), u64::MAX), &url, None).await.unwrap();
    assert_eq!((again.downloaded, std::fs::read(&again.path).unwrap()), (5, noise(5)));
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let server = Server::start(plain(false)).await;
    let folder = tempfile::tempdir().unwrap();
    let small = format!("{}/models/eva/model-00002-of-00002.safetensors", server.url);
    let large = format!("{}/models/eva/model-00001-of-00002.safetensors", server.url);
    let error = cached(&ModelCache::at(folder.path(), 1000), &large, None).await.unwrap_err();
    assert!(error.to_string().contains(CACHE_BYTES_VARIABLE), "{error}");
    let first = cached(&ModelCache::at(folder.path(), 1000), &small, None).await.unwrap();
    super::cache::release_all();
    cached(&ModelCache::at(folder.path(), 17 << 20), &large, None).await.unwrap();
    assert!(!first.path.exists(), "what nobody uses made room");
}

#[tokio::test]
async fn signed_urls_are_asked_for_with_their_signature_and_never_shown() {
    let content = noise(100);
    let files = BTreeMap::from([("/data/a b.bin".replace(' ', "%20"), content.clone())]);
    let site = Site { files, signature: Some("id=7&X-Amz-Date=1&X-Amz-Signature=cafe"), ..Site::default() };
    let server = Server::start(site).await;
    let url = format!("{}/data/a%20b.bin?id=7&X-Amz-Date=1&X-Amz-Signature=cafe", server.url);
    let location = Location::parse(&url).unwrap();
    let shown = location.to_string();
    assert!(shown.ends_with("/data/a b.bin?id=7&REDACTED"), "{shown}");
    // Signed for GET: the length is found without HEAD.
    assert_eq!(location.head().await.unwrap().unwrap().0, 100);
    assert_eq!(location.read().await.unwrap().unwrap(), content);
    // What a manifest stores opens again in a process that was told the signature.
    assert_eq!(Location::parse(&shown).unwrap().read().await.unwrap().unwrap(), content);
    assert!(location.exposed().ends_with("Signature=cafe"));
    let expired = Location::parse(&url.replace("cafe", "old")).unwrap();
    let error = expired.read().await.unwrap_err().to_string();
    assert!(error.contains("expired") && !error.contains("=old"), "{error}");
}

#[tokio::test]
async fn a_user_in_a_url_is_sent_and_never_shown() {
    let files = BTreeMap::from([("/a.bin".to_owned(), noise(3))]);
    let server = Server::start(Site { files, user: Some("dXNlcjpwQHNz"), ..Site::default() }).await;
    let url = server.url.replace("http://", "http://user:p%40ss@");
    let location = Location::parse(&format!("{url}/a.bin")).unwrap();
    assert_eq!(location.read().await.unwrap().unwrap(), noise(3));
    assert!(location.to_string().starts_with("http://REDACTED@127.0.0.1:"), "{location}");
    let closed = Location::parse("http://user:secret@127.0.0.1:1/a.bin").unwrap();
    assert!(!closed.to_string().contains("secret") && !format!("{closed:?}").contains("secret"));
}
