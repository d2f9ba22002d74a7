//! The same batches through HTTP, from a server that fails now and then, or for good.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// The status line of a refusal for the n-th request, or `None` to serve it.
type Refusal = fn(usize) -> Option<&'static str>;

/// How long the n-th request waits for its answer.
type Delay = fn(usize) -> Duration;

/// Serves one file under any name on a port of its own until dropped.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(runtime: &Runtime, content: Vec<u8>, refusal: Refusal) -> Self {
        Self::start_slow(runtime, content, refusal, |_| Duration::ZERO)
    }

    /// Answers after a delay.
    fn start_slow(runtime: &Runtime, content: Vec<u8>, refusal: Refusal, delay: Delay) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/folder/a.parquet", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let (counter, content) = (Arc::clone(&requests), Arc::new(content));
        let task = runtime.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (content, counter) = (Arc::clone(&content), Arc::clone(&counter));
                connections.spawn(serve(stream, content, counter, refusal, delay));
            }
        });
        Self { url, requests, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    content: Arc<Vec<u8>>,
    counter: Arc<AtomicUsize>,
    refusal: Refusal,
    delay: Delay,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.to_ascii_lowercase());
        }
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(delay(number)).await;
        if let Some(status) = refusal(number) {
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
            continue;
        }
        let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="));
        let range = range.and_then(|range| range.trim().split_once('-'));
        let range = range.map(|(from, to)| from.parse().unwrap()..to.parse::<usize>().unwrap() + 1);
        let body = &content[range.clone().unwrap_or(0..content.len())];
        let status = match &range {
            Some(range) => format!(
                "206 Partial Content\r\ncontent-range: bytes {}-{}/{}",
                range.start,
                range.end - 1,
                content.len()
            ),
            None => "200 OK".to_owned(),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\netag: \"1\"\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        if !head[0].starts_with("head") {
            stream.write_all(body).await?;
        }
    }
}

#[test]
fn http_gives_the_same_batches_and_transient_failures_are_retried() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    let expected = local.load(|spec| spec.last_step = 5);
    let server = Server::start(&local.runtime, std::fs::read(&sources[0]).unwrap(), |n| {
        n.is_multiple_of(4).then_some("503 Busy")
    });
    let remote = fixture(std::slice::from_ref(&server.url));
    assert_eq!(remote.spec.manifest.digest(), local.spec.manifest.digest());
    assert_eq!(remote.load(|spec| spec.last_step = 5), expected);
    assert!(server.requests.load(Ordering::SeqCst) >= 8, "one row group is one request at least");
}

#[test]
fn a_read_that_fails_for_good_names_file_and_row_group() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    // The manifest and the loader each ask for the length and the footer; row groups are refused.
    let content = std::fs::read(&sources[0]).unwrap();
    let server = Server::start(&local.runtime, content, |n| (n > 4).then_some("403 Forbidden"));
    let error = fixture(std::slice::from_ref(&server.url)).error(|_| ());
    assert!(matches!(&error, DatasetError::ReadRowGroup { file, .. } if *file == server.url), "{error}");
    assert!(!error.is_bad_input());
}

/// A store far away that fails now and then, beside a step that takes as long as a small step does.
#[test]
fn a_slow_store_that_fails_now_and_then_starves_nobody() {
    let (_folder, sources) = write(Corpus::with_rows(600).row_group(12));
    let local = fixture(&sources);
    let refusal: Refusal = |n| n.is_multiple_of(100).then_some("503 Busy");
    let content = std::fs::read(&sources[0]).unwrap();
    let server = Server::start_slow(&local.runtime, content, refusal, |_| Duration::from_millis(200));
    let remote = fixture(std::slice::from_ref(&server.url));
    // Windows of 4 slots and 2 row groups, 8 of 12 rows, which 8 steps of 12 samples use up.
    let steps = 48;
    let spec = LoaderSpec { last_step: steps, ..remote.spec.clone() };
    let loader = Loader::start(remote.runtime.handle().clone(), spec).unwrap();
    let compute = Duration::from_millis(60);
    let mut batches = vec![loader.next(WAIT).unwrap()];
    let started = Instant::now();
    let (mut waited, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 1..steps {
        std::thread::sleep(compute);
        let batch = loader.next(WAIT).unwrap();
        waited += batch.waited;
        longest = longest.max(batch.waited);
        batches.push(batch);
    }
    let share = waited.as_secs_f64() / started.elapsed().as_secs_f64();
    println!("{share:.4} of the time without data, {longest:?} at most, {:?}", loader.statistics());
    // A failed request and the one that replaces it take less than a second; the rest is for a busy machine.
    assert!(longest < Duration::from_secs(3), "a step waited {longest:?}");
    assert!(share < 0.2, "{share:.3} of the time without data: {:?}", loader.statistics());
    let expected = local.load(|spec| spec.last_step = steps);
    assert!(batches.iter().zip(&expected).all(|(found, expected)| found.slots == expected.slots));
}

#[test]
fn a_disk_cache_changes_no_batch_and_saves_requests_also_after_a_restart() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10));
    let local = fixture(&sources);
    // Five epochs.
    let expected = local.load(|spec| spec.last_step = 25);
    let content = std::fs::read(&sources[0]).unwrap();
    let server = Server::start(&local.runtime, content, |_| None);
    let remote = fixture(std::slice::from_ref(&server.url));
    let folder = tempfile::tempdir().unwrap();
    let load = |bytes: u64| {
        let before = server.requests.load(Ordering::SeqCst);
        let batches = remote.load(|spec| {
            spec.last_step = 25;
            // Nothing stays in memory that is not in use.
            spec.settings.prefetch_bytes = 0;
            spec.settings.disk_cache = folder.path().to_str().unwrap().to_owned();
            spec.settings.disk_cache_bytes = bytes;
        });
        assert!(batches == expected, "{bytes} bytes");
        server.requests.load(Ordering::SeqCst) - before
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
    let late: Delay = |n| Duration::from_secs(if n == 40 { 50 } else { 0 });
    let server = Server::start_slow(&local.runtime, content, |_| None, late);
    let remote = fixture(std::slice::from_ref(&server.url));
    let settings = LoaderSettings { prefetch_bytes: 0, hedged_percent: 100, ..LoaderSettings::default() };
    let spec = LoaderSpec { last_step: 40, settings, ..remote.spec.clone() };
    let loader = Loader::start(remote.runtime.handle().clone(), spec).unwrap();
    let started = Instant::now();
    for expected in &expected {
        assert!(loader.next(WAIT).unwrap().slots == expected.slots);
    }
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    assert!(server.requests.load(Ordering::SeqCst) > 40 && loader.statistics().hedged >= 1);
}
