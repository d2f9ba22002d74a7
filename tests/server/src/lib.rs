//! An HTTP server of this machine for tests: it asks for tokens and signatures, breaks off, is slow and
//! refuses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The status line of a refusal for the n-th request, or `None` to serve it.
pub type Refusal = fn(usize) -> Option<&'static str>;

/// How long the n-th request waits for its answer.
pub type Delay = fn(usize) -> Duration;

/// What a server does.
#[derive(Debug, Clone)]
pub struct Site {
    /// Content by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whoever does not show it is answered 401.
    pub token: Option<&'static str>,
    /// The same for a user and a password, as HTTP encodes them.
    pub user: Option<&'static str>,
    /// Whoever has another query is answered 403; HEAD is always answered so.
    pub signature: Option<&'static str>,
    /// Answers of large files that end after this many bytes, and how many of them.
    pub cut: Option<(usize, usize)>,
    /// Ranges are not known.
    pub whole_only: bool,
    /// Which requests are refused.
    pub refusal: Refusal,
    /// Which requests wait.
    pub delay: Delay,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            token: None,
            user: None,
            signature: None,
            cut: None,
            whole_only: false,
            refusal: |_| None,
            delay: |_| Duration::ZERO,
        }
    }
}

/// Serves a site on a port of its own until dropped.
pub struct Server {
    /// Where it is: scheme, host and port.
    pub url: String,
    counted: Arc<Counted>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counted {
    requests: AtomicUsize,
    /// Bytes of bodies.
    sent: AtomicUsize,
    cuts: AtomicUsize,
}

impl Server {
    /// Starts to serve.
    ///
    /// # Panics
    /// No port can be had.
    pub async fn start(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counted = Arc::new(Counted::default());
        let (site, counter) = (Arc::new(site), Arc::clone(&counted));
        #[expect(clippy::disallowed_methods, reason = "aborted when the server is dropped")]
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (site, counter) = (Arc::clone(&site), Arc::clone(&counter));
                connections.spawn(async move { serve(stream, &site, &counter).await });
            }
        });
        Self { url, counted, task }
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.counted.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies so far.
    pub fn sent(&self) -> usize {
        self.counted.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request without a body.
struct Request {
    lines: Vec<String>,
}

impl Request {
    /// The next one; none when the client has gone.
    async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            if line.trim().is_empty() {
                return Ok(Some(Self { lines }));
            }
            lines.push(line.trim().to_owned());
        }
    }

    fn method(&self) -> &str {
        self.lines[0].split(' ').next().unwrap_or_default()
    }

    /// Path and query.
    fn target(&self) -> (&str, &str) {
        let target = self.lines[0].split(' ').nth(1).unwrap_or_default();
        target.split_once('?').unwrap_or((target, ""))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    fn range(&self, length: usize) -> Option<Range<usize>> {
        let (from, to) = self.header("range:")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(from.parse().unwrap()..(to.parse::<usize>().unwrap() + 1).min(length))
    }
}

impl Site {
    /// The status line of a request that is not served.
    fn refused(&self, request: &Request, number: usize) -> Option<&'static str> {
        if let Some(status) = (self.refusal)(number) {
            return Some(status);
        }
        let token = self.token.map(|token| format!("Bearer {token}"));
        let known = token.or(self.user.map(|user| format!("Basic {user}")));
        let (path, query) = request.target();
        if known.is_some_and(|known| request.header("authorization:") != Some(&known)) {
            return Some("401 Unauthorized");
        }
        if self.signature.is_some_and(|signature| request.method() == "HEAD" || query != signature) {
            return Some("403 Forbidden");
        }
        (!self.files.contains_key(path)).then_some("404 Not Found")
    }
}

async fn serve(stream: TcpStream, site: &Site, counted: &Counted) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = Request::read(&mut stream).await? {
        let number = counted.requests.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep((site.delay)(number)).await;
        if let Some(status) = site.refused(&request, number) {
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
            continue;
        }
        let content = &site.files[request.target().0];
        let range = request.range(content.len()).filter(|_| !site.whole_only);
        let body = &content[range.clone().unwrap_or(0..content.len())];
        let (length, whole) = (body.len(), content.len());
        let status = range.map_or("200 OK".to_owned(), |Range { start, end }| {
            format!("206 Partial Content\r\ncontent-range: bytes {start}-{}/{whole}", end - 1)
        });
        let modified = "Thu, 01 Jan 2026 00:00:00 GMT";
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nlast-modified: {modified}\r\netag: \"{whole}\"\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        if request.method() == "HEAD" {
            continue;
        }
        if let Some((after, count)) = site.cut.filter(|(after, _)| length > *after)
            && counted.cuts.fetch_add(1, Ordering::SeqCst) < count
        {
            stream.write_all(&body[..after]).await?;
            counted.sent.fetch_add(after, Ordering::SeqCst);
            return Ok(());
        }
        stream.write_all(body).await?;
        counted.sent.fetch_add(length, Ordering::SeqCst);
    }
    Ok(())
}
