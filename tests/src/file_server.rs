//! Files of this machine by HTTP: a folder, or a hub's answers; with a password, a signature, or neither.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// What is served, and to whom.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Files below this folder, by their paths.
    pub folder: Option<PathBuf>,
    /// Answers that are no files, by path and without the query.
    pub answers: BTreeMap<String, Vec<u8>>,
    /// `Authorization` that whoever has no signature must show.
    pub authorization: Option<String>,
    /// Queries that let in whoever has one of them, for GET alone.
    pub signatures: Vec<String>,
}

/// A server on a free port of this machine, as long as the process lives.
#[derive(Debug)]
pub struct FileServer {
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl FileServer {
    /// Starts serving.
    ///
    /// # Panics
    /// Without a free port.
    pub fn start(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let site = Arc::new(site);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = Arc::clone(&site);
                // A client that goes away is no fault of the server's.
                std::thread::spawn(move || drop(serve(stream, &site)));
            }
        });
        Self { address }
    }
}

impl Site {
    fn content(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(answer) = self.answers.get(path) {
            return Some(answer.clone());
        }
        std::fs::read(self.folder.as_ref()?.join(path.trim_start_matches('/'))).ok()
    }

    fn lets_in(&self, method: &str, query: &str, authorization: &str) -> bool {
        let signed = method == "GET" && self.signatures.iter().any(|signature| signature == query);
        let open = self.authorization.is_none() && self.signatures.is_empty();
        signed || open || self.authorization.as_deref() == Some(authorization)
    }
}

fn serve(mut stream: TcpStream, site: &Site) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut words = head.first().map(String::as_str).unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = |name: &str| {
            let found = head
                .iter()
                .find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)));
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let empty = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if !site.lets_in(method, query, &header("authorization")) {
            stream.write_all(empty("403 Forbidden").as_bytes())?;
            continue;
        }
        let Some(content) = site.content(path) else {
            stream.write_all(empty("404 Not Found").as_bytes())?;
            continue;
        };
        let range = header("range");
        let range = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let range =
            range.and_then(|(from, to)| Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?)));
        let (status, body) = match range {
            Some((from, to)) if from < content.len() => {
                let end = (to + 1).min(content.len());
                let status = format!(
                    "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
                    end - 1,
                    content.len()
                );
                (status, &content[from..end])
            }
            _ => ("200 OK".to_owned(), &content[..]),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"{}\"\r\n\r\n",
            body.len(),
            content.len()
        );
        stream.write_all(answer.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(body)?;
        }
    }
}
