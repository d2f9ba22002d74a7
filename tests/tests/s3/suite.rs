//! What must hold on a real server, its faults included.

#[path = "../../../store/src/conformance.rs"]
mod conformance;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::samples::{EvaluationSet, read_all};
use blip2_dataset::error::DatasetError;
use blip2_dataset::loader::{Loader, LoaderSettings, LoaderSpec, SlotBatch};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_images::transform::TrainTransform;
use blip2_run::RunError;
use blip2_run::epoch::Epochs;
use blip2_store::error::StoreError;
use blip2_store::{Location, put_create};
use blip2_tests::faulty_proxy::{Fault, FaultyProxy};
use blip2_tests::process::repository;
use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutPayload};

/// Addresses that the starting test hands over.
pub(crate) const PROXY: &str = "BLIP2_TEST_S3_PROXY";
pub(crate) const SERVER: &str = "BLIP2_TEST_S3_SERVER";
/// Faults that retries must get over.
const PASSING: [Fault; 6] = [
    Fault::Reset,
    Fault::Status(503),
    Fault::Truncated,
    Fault::Status(429),
    Fault::LostAnswer,
    Fault::Status(500),
];
const MAX_PIXELS: u64 = 1 << 20;

/// The proxy before the server, and a bucket's folder of this name.
pub(crate) fn scene(name: &str) -> (FaultyProxy, String) {
    let address = |variable: &str| -> SocketAddr {
        let text = std::env::var(variable).expect("started by `a_real_server_and_its_faults`");
        text.parse().expect("an address")
    };
    (FaultyProxy::start(address(PROXY), address(SERVER)), format!("s3://corpus/{name}"))
}

pub(crate) fn location(url: &str) -> Location {
    Location::parse(url).expect("an S3 URL")
}

/// Stores a file of the emoji corpus.
async fn store_emoji(folder: &str, names: &[&str]) {
    for name in names {
        let content = std::fs::read(repository().join("assets/corpus").join(name)).expect("the corpus");
        location(&format!("{folder}/{name}")).put(content.into()).await.expect("stored");
    }
}

fn local(name: &str) -> String {
    repository().join("assets/corpus").join(name).display().to_string()
}

async fn samples(source: &str) -> EvaluationSet {
    read_all(&[source.to_owned()], &ColumnNames::default(), MAX_PIXELS).await.expect("the corpus is read")
}

/// What a model sees of samples.
pub(crate) fn seen(set: &EvaluationSet) -> Vec<(String, Vec<String>, Vec<u8>)> {
    let row = |sample: &blip2_dataset::corpus::samples::Sample| {
        (sample.key.clone(), sample.captions.clone(), sample.image.as_raw().clone())
    };
    set.samples.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn the_server_does_what_every_store_does() {
    let (_proxy, folder) = scene("conformance");
    conformance::every_store(&location(&folder)).await;
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn listings_have_many_pages() {
    let (_proxy, folder) = scene("pages");
    let root = location(&folder);
    for first in (0..1010).step_by(101) {
        let writes = (first..first + 101).map(|index| {
            let object = root.join(&format!("{index:05}.parquet"));
            async move { object.put(Bytes::from(vec![1; index % 7])).await }
        });
        futures::future::try_join_all(writes).await.unwrap();
    }
    let listed = root.list_matching("*.parquet").await.unwrap();
    let names: Vec<_> = listed.iter().map(|object| object.location.file_name().to_owned()).collect();
    let wanted: Vec<_> = (0..1010).map(|index| format!("{index:05}.parquet")).collect();
    assert_eq!(names, wanted);
    assert_eq!(root.list().await.unwrap().len(), 1010);
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn parts_that_fail_on_the_way_become_one_object() {
    let (proxy, folder) = scene("parts");
    let object = location(&format!("{folder}/large.bin"));
    let content: Vec<u8> = (0..11_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    proxy.inject(&[Fault::Status(503), Fault::Reset], 3);
    let mut upload = object.store().put_multipart(object.path()).await.unwrap();
    for part in content.chunks(5 << 20) {
        upload.put_part(PutPayload::from(part.to_vec())).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert_eq!(object.read().await.unwrap().unwrap().as_ref(), content);
    assert!(proxy.faults() > 0);
}

/// However answers are lost, one coordinator leads: the other is told so.
#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn epochs_fence_off_in_spite_of_lost_answers() {
    let (proxy, folder) = scene("fencing");
    let root = location(&folder);
    let epochs = |name: &str| Epochs::new(&root, name.to_owned(), String::new());
    let (old, new) = (epochs("old"), epochs("new"));
    proxy.inject(&[Fault::LostAnswer, Fault::Status(503), Fault::Reset], 4);
    let mut numbers = BTreeSet::new();
    for step in 0..6 {
        // A failed attempt is tried again, as a coordinator does.
        let mut taken = None;
        for _ in 0..20 {
            taken = old.begin(step).await.ok();
            if taken.is_some() {
                break;
            }
        }
        assert!(numbers.insert(taken.expect("an epoch in twenty tries")));
    }
    proxy.inject(&[], 1);
    let mine = old.begin(9).await.unwrap();
    old.confirm(mine).await.unwrap();
    let (a, b) = tokio::join!(old.begin(10), new.begin(10));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_ne!(a, b);
    let (first, last) = if a < b { ((&old, a), (&new, b)) } else { ((&new, b), (&old, a)) };
    last.0.confirm(last.1).await.unwrap();
    assert!(matches!(first.0.confirm(first.1).await, Err(RunError::Fenced { .. })));
    assert!(matches!(first.0.take(last.1, 11, Vec::new()).await, Err(RunError::Fenced { .. })));
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_corpus_is_read_whole_in_spite_of_faults() {
    let (proxy, folder) = scene("reading");
    store_emoji(&folder, &["test-00000.parquet"]).await;
    let wanted = samples(&local("test-00000.parquet")).await;
    proxy.inject(&PASSING, 2);
    let found = samples(&format!("{folder}/*.parquet")).await;
    assert!(proxy.faults() >= 4, "{}", proxy.faults());
    assert!(found.quarantined.is_empty() && seen(&found) == seen(&wanted));
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_changed_object_is_named() {
    let (_proxy, folder) = scene("changed");
    store_emoji(&folder, &["test-00000.parquet"]).await;
    let object = location(&format!("{folder}/test-00000.parquet"));
    let sources = [object.to_string()];
    let manifest = Manifest::open(&sources, &ColumnNames::default()).await.unwrap();
    let there = Manifest::open(&[local("test-00000.parquet")], &ColumnNames::default()).await.unwrap();
    assert_eq!(manifest.digest(), there.digest());
    assert!(manifest.files[0].etag.is_some());
    // The same length, the same footer, another content.
    let mut content = object.read().await.unwrap().unwrap().to_vec();
    content[1000] ^= 1;
    object.put(content.into()).await.unwrap();
    let error = batches(manifest).await.unwrap_err();
    assert!(
        matches!(&error, DatasetError::Store(StoreError::Changed { file, .. }) if *file == sources[0]),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_loader_gives_the_same_batches_over_faults() {
    let (proxy, folder) = scene("loading");
    let names = ["train-00000.parquet", "train-00001.parquet"];
    store_emoji(&folder, &names).await;
    let columns = ColumnNames::default();
    let wanted = Manifest::open(&names.map(local), &columns).await.unwrap();
    let wanted = batches(wanted).await.unwrap();
    proxy.inject(&PASSING, 3);
    let manifest = Manifest::open(&[format!("{folder}/*.parquet")], &columns).await.unwrap();
    let found = batches(manifest).await.unwrap();
    assert!(proxy.faults() > 0);
    assert!(found == wanted, "another corpus came out of the store");
}

/// The first batches of a training run on a corpus.
async fn batches(manifest: Manifest) -> Result<Vec<Vec<SlotBatch>>, DatasetError> {
    let manifest = Arc::new(manifest);
    let plan = Plan::new(&manifest, PlanKey { seed: 5, stage: 1 }, 4, 2)?;
    let tokenizer = repository().join("assets/backbones/qformer-tokenizer");
    let spec = LoaderSpec {
        manifest,
        plan: Arc::new(plan),
        columns: ColumnNames::default(),
        slots: 0..4,
        batch_per_slot: 8,
        slots_total: 4,
        first_step: 0,
        last_step: 30,
        seed: 5,
        stage: 1,
        image: TrainTransform::new(32, [0.5, 1.0], true),
        text: Arc::new(TextEncoder::open(&tokenizer, TextEncoding::new(16, 0))?),
        max_pixels: MAX_PIXELS,
        settings: LoaderSettings::default(),
    };
    let runtime = tokio::runtime::Handle::current();
    let load = move || {
        let loader = Loader::start(runtime, spec)?;
        (0..30).map(|_| Ok(loader.next(Duration::from_secs(120))?.slots)).collect()
    };
    tokio::task::spawn_blocking(load).await.expect("the loading thread ends")
}
