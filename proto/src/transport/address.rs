//! Addresses as people write them: IPv6 in brackets, IPv4 in brackets too, so that one template serves both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// An address that cannot be used as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {reason}")]
pub struct AddressError {
    /// What was written.
    pub address: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Reads an address to listen on: `10.0.0.1:7100`, `[fd00::1]:7100`, `[::]:0`.
///
/// # Errors
/// It is no IP address with a port.
pub fn listening(text: &str) -> Result<SocketAddr, AddressError> {
    let wrong = |reason: &str| AddressError { address: text.to_owned(), reason: reason.to_owned() };
    let text = authority(text).map_err(|reason| wrong(&reason))?;
    text.parse().map_err(|_| {
        wrong("an IP address and a port are needed, for example 10.0.0.1:7100 or [fd00::1]:7100")
    })
}

/// Whether only processes of this machine reach this address.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Listens at an address, for [`TcpListener::from_std`](tokio::net::TcpListener::from_std). All interfaces of
/// both families, `[::]`, are those of IPv4 where the machine has no IPv6.
///
/// # Errors
/// The address is not this machine's, is taken, or may not be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let means_all = address.is_ipv6() && address.ip().is_unspecified();
    let is_taken = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
    };
    let listener = match TcpListener::bind(address) {
        Err(error) if means_all && !is_taken(&error) => {
            tracing::warn!(%error, "this machine has no IPv6: listening on IPv4 alone");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reads an address under which others reach this process, `host:port` or a URL of it, as it is passed on;
/// port 0 stands for the one that is listened on ([`with_port`]).
///
/// # Errors
/// There is no host or no port, or it is an address of all interfaces, at which nobody can be reached.
pub fn advertised(text: &str) -> Result<String, AddressError> {
    let wrong = |reason: String| AddressError { address: text.to_owned(), reason };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (format!("{scheme}://"), rest),
        Some((scheme, _)) => return Err(wrong(format!("{scheme} is neither http nor https"))),
        None => (String::new(), text),
    };
    let address = authority(rest.trim_end_matches('/')).map_err(wrong)?;
    let needed = || wrong("a host and a port are needed, for example 10.0.0.1:7200 or [fd00::1]:7200".into());
    let (host, port) = address.rsplit_once(':').ok_or_else(needed)?;
    let is_host =
        !host.is_empty() && !host.contains(|letter: char| letter.is_whitespace() || "/@?#".contains(letter));
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    if host.starts_with('[') != matches!(ip, Some(IpAddr::V6(_))) || !is_host {
        return Err(needed());
    }
    if port.parse::<u16>().is_err() {
        return Err(needed());
    }
    if ip.is_some_and(|ip| ip.is_unspecified()) {
        return Err(wrong(
            "nobody reaches a process at an address that means all interfaces; name a host".into(),
        ));
    }
    Ok(format!("{scheme}{address}"))
}

/// An advertised address with the port that is listened on in the place of port 0.
pub fn with_port(advertised: &str, listening: u16) -> String {
    match advertised.rsplit_once(':') {
        Some((host, port)) if port.parse() == Ok(0u16) => format!("{host}:{listening}"),
        _ => advertised.to_owned(),
    }
}

/// `host:port` as URLs have it.
pub(super) fn authority(text: &str) -> Result<String, String> {
    if let Some((inside, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return match inside.parse::<Ipv4Addr>() {
            Ok(v4) => Ok(format!("{v4}{rest}")),
            Err(_) => Ok(text.to_owned()),
        };
    }
    let before_path = text.split('/').next().unwrap_or_default();
    if before_path.matches(':').count() < 2 {
        return Ok(text.to_owned());
    }
    let likely = before_path.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
    let example = likely.map_or("[fd00::1]:7100".into(), |(host, port)| format!("[{host}]:{port}"));
    Err(format!("write the IPv6 address in brackets: {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_listened_on() {
        for (text, meant) in [
            ("127.0.0.1:7100", "127.0.0.1:7100"),
            ("[::1]:0", "[::1]:0"),
            ("[::]:7100", "[::]:7100"),
            ("[10.0.0.1]:7100", "10.0.0.1:7100"),
        ] {
            assert_eq!(listening(text).map(|address| address.to_string()), Ok(meant.into()), "{text}");
        }
        let refused = |text: &str| listening(text).expect_err(text).to_string();
        assert!(refused("fd00::1:7100").contains("[fd00::1]:7100"));
        assert!(refused("::1:7100").contains("brackets"));
        for text in ["", "7100", "10.0.0.1", "[::1]", "host:7100", "10.0.0.1:70000"] {
            assert!(refused(text).contains("IP address and a port"), "{text}");
        }
    }

    #[test]
    fn all_interfaces_are_those_of_both_families() {
        let listener = bind("[::]:0".parse().expect("an address")).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("over IPv4");
        if TcpListener::bind("[::1]:0").is_ok() {
            std::net::TcpStream::connect(("::1", port)).expect("over IPv6");
        } else {
            println!("skipped over IPv6: this machine has none on its loopback");
        }
        let taken = bind(format!("[::]:{port}").parse().expect("an address"));
        assert_eq!(taken.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn only_addresses_that_others_can_reach_are_advertised() {
        for (text, meant) in [
            ("10.0.0.1:7200", "10.0.0.1:7200"),
            ("worker-0.workers:7200", "worker-0.workers:7200"),
            ("[fd00::1]:7200", "[fd00::1]:7200"),
            ("[10.0.0.1]:7200", "10.0.0.1:7200"),
            ("http://[fd00::1]:7100/", "http://[fd00::1]:7100"),
            ("https://[10.0.0.1]:7100", "https://10.0.0.1:7100"),
            ("host:0", "host:0"),
        ] {
            assert_eq!(advertised(text), Ok(meant.into()), "{text}");
        }
        for (text, meant) in [
            ("host:0", "host:7200"),
            ("[fd00::1]:0", "[fd00::1]:7200"),
            ("http://host:00", "http://host:7200"),
            ("10.0.0.1:70", "10.0.0.1:70"),
        ] {
            assert_eq!(with_port(&advertised(text).expect(text), 7200), meant, "{text}");
        }
        let refused = |text: &str| advertised(text).expect_err(text).to_string();
        assert!(refused("fd00::1:7200").contains("[fd00::1]:7200"));
        assert!(
            refused("0.0.0.0:7200").contains("all interfaces")
                && refused("[::]:7200").contains("all interfaces")
        );
        assert!(refused("ftp://h:1").contains("neither http nor https"));
        for text in
            ["", "host", ":7200", "host:70000", "host:x", "[host]:1", "two words:1", "http://", "user@host:1"]
        {
            assert!(refused(text).contains("host and a port"), "{text}");
        }
    }
}
