//! One GET, as a scraper or a kubelet sends it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Status and body of the answer at `address` (`host:port`); `None` where nobody answers.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    get_with(address, path, "")
}

/// The same with further header lines, each with its end.
pub fn get_with(address: &str, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Some((status, if is_chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length.trim(), 16) else { break };
        let Some((chunk, rest)) = rest.split_at_checked(length).filter(|_| length > 0) else { break };
        text.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
    }
    text
}

/// The value of a series, by name and labels as `/metrics` writes them.
pub fn series(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
