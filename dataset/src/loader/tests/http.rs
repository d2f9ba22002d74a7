//! The same batches through HTTP, from a server that fails now and then, or for good.

use std::collections::BTreeSet;

use blip2_test_server::{Delay, Refusal, Server, Site};

use super::*;
use crate::plan::PartId;

/// Where the file is.
const PATH: &str = "/folder/a.parquet";

/// One file, on a server that refuses some requests.
fn serve(runtime: &Runtime, content: Vec<u8>, refusal: Refusal) -> (Server, String) {
    serve_slowly(runtime, content, refusal, |_| Duration::ZERO)
}

/// The same with answers after a delay.
fn serve_slowly(runtime: &Runtime, content: Vec<u8>, refusal: Refusal, delay: Delay) -> (Server, String) {
    let files = [(PATH.to_owned(), content)].into();
    let server = runtime.block_on(Server::start(Site { files, refusal, delay, ..Site::default() }));
    let url = format!("{}{PATH}", server.url);
    (server, url)
}

#[test]
fn http_gives_the_same_batches_and_transient_failures_are_retried() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    let expected = local.load(|spec| spec.last_step = 5);
    let (server, url) = serve(&local.runtime, std::fs::read(&sources[0]).unwrap(), |n| {
        n.is_multiple_of(4).then_some("503 Busy")
    });
    let remote = fixture(std::slice::from_ref(&url));
    assert_eq!(remote.spec.manifest.digest(), local.spec.manifest.digest());
    assert_eq!(remote.load(|spec| spec.last_step = 5), expected);
    assert!(server.requests() >= 8, "one row group is one request at least");
}

#[test]
fn a_read_that_fails_for_good_names_file_and_row_group() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    // The manifest and the loader each ask for the length and the footer; row groups are refused.
    let content = std::fs::read(&sources[0]).unwrap();
    let (_server, url) = serve(&local.runtime, content, |n| (n > 4).then_some("403 Forbidden"));
    let error = fixture(std::slice::from_ref(&url)).error(|_| ());
    assert!(matches!(&error, DatasetError::ReadRowGroup { file, .. } if *file == url), "{error}");
    assert!(!error.is_bad_input());
}

/// A store far away that fails now and then: what the steps to come need is asked for before they do.
#[test]
fn a_far_store_that_fails_now_and_then_is_read_ahead_of_need() {
    let (_folder, sources) = write(Corpus::with_rows(600).row_group(12));
    let local = fixture(&sources);
    let refusal: Refusal = |n| n.is_multiple_of(20).then_some("503 Busy");
    let content = std::fs::read(&sources[0]).unwrap();
    let (server, url) = serve_slowly(&local.runtime, content, refusal, |_| Duration::from_millis(20));
    let remote = fixture(std::slice::from_ref(&url));
    // Windows of 4 slots and 2 row groups, 8 of 12 rows, which 8 steps of 12 samples use up.
    let steps = 48;
    let spec = LoaderSpec { last_step: steps, ..remote.spec.clone() };
    let (plan, slots) = (Arc::clone(&spec.plan), spec.slots.clone());
    let asked_for_in = |windows: u64| {
        let parts = (0..windows).flat_map(|window| slots.clone().map(move |slot| PartId { window, slot }));
        parts.flat_map(|part| plan.row_groups_of_part(part)).collect::<BTreeSet<_>>().len() as u64
    };
    let loader = Loader::start(remote.runtime.handle().clone(), spec).unwrap();
    let mut batches = Vec::new();
    for window in 0..steps / 8 {
        batches.push(loader.next(WAIT).unwrap());
        // With the first step of a window its successor's row groups are under way, though nobody needs one
        // yet.
        let wanted = asked_for_in((window + 2).min(steps / 8));
        while loader.statistics().reads < wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
        batches.extend((1..8).map(|_| loader.next(WAIT).unwrap()));
    }
    let expected = local.load(|spec| spec.last_step = steps);
    assert!(batches.iter().zip(&expected).all(|(found, expected)| found.slots == expected.slots));
    let statistics = loader.statistics();
    // Every row group once for each window that needs it, those asked for again or twice, and the footers;
    // and what the store's client asks for again by itself after a refusal.
    let requests = server.requests() as u64;
    let allowed = statistics.reads + statistics.retried + statistics.hedged + 6 + requests / 20;
    assert!(requests <= allowed, "{requests} requests for {statistics:?}");
}

#[test]
fn a_disk_cache_changes_no_batch_and_saves_requests_also_after_a_restart() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    // Five epochs.
    let expected = local.load(|spec| spec.last_step = 25);
    let content = std::fs::read(&sources[0]).unwrap();
    let (server, url) = serve(&local.runtime, content, |_| None);
    let remote = fixture(std::slice::from_ref(&url));
    let folder = tempfile::tempdir().unwrap();
    let load = |bytes: u64| {
        let before = server.requests();
        let batches = remote.load(|spec| {
            spec.last_step = 25;
            // Nothing stays in memory that is not in use.
            spec.settings.prefetch_bytes = 0;
            spec.settings.disk_cache = folder.path().to_str().unwrap().to_owned();
            spec.settings.disk_cache_bytes = bytes;
        });
        assert!(batches == expected, "{bytes} bytes");
        server.requests() - before
    };
    let none = load(0);
    let first = load(1 << 30);
    assert!(first < none, "{first} requests and {none} without a cache");
    let again = load(1 << 30);
    assert!(again <= 2, "{again} requests: length and footer");
    for file in std::fs::read_dir(folder.path().join("0")).unwrap() {
        let path = file.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        if let Some(byte) = content.last_mut() {
            *byte ^= 0x20;
            std::fs::write(&path, content).unwrap();
        }
    }
    assert!(load(1 << 30) > again, "damaged entries are read again");
    load(2000);
}

#[test]
fn answers_that_do_not_come_are_overtaken() {
    let (_folder, sources) = write(Corpus::with_rows(400).row_group(10));
    let local = fixture(&sources);
    let expected = local.load(|spec| spec.last_step = 40);
    let content = std::fs::read(&sources[0]).unwrap();
    // Requests of the length and the footers come first; then enough answers to know what is usual.
    let late: Delay = |n| Duration::from_secs(if n == 40 { 100_000 } else { 0 });
    let (server, url) = serve_slowly(&local.runtime, content, |_| None, late);
    let remote = fixture(std::slice::from_ref(&url));
    let settings = LoaderSettings { prefetch_bytes: 0, hedged_percent: 100, ..LoaderSettings::default() };
    let spec = LoaderSpec { last_step: 40, settings, ..remote.spec.clone() };
    let loader = Loader::start(remote.runtime.handle().clone(), spec).unwrap();
    for expected in &expected {
        assert!(loader.next(WAIT).unwrap().slots == expected.slots);
    }
    assert!(server.requests() > 40 && loader.statistics().hedged >= 1);
}
