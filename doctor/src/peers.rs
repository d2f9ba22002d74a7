//! Whether the members of a run can be reached.

use std::time::{Duration, Instant};

use crate::check::{Check, Finding};

/// For a connection to a member.
const WITHIN: Duration = Duration::from_secs(3);

const PEERS: Check = Check {
    name: "peers",
    asks: "can the run's members be reached from here?",
    remedy: "open port 7200 between workers, or let them --advertise an address that others reach (docs/networking.md)",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&PEERS];

/// Knocks at each member's door: host and port, with or without a scheme.
pub async fn examine(addresses: &[&str]) -> Finding {
    if addresses.is_empty() {
        return PEERS.yellow("the run has no members yet");
    }
    let mut slowest = Duration::ZERO;
    for address in addresses {
        let door = address.split_once("://").map_or(*address, |(_, door)| door).trim_end_matches('/');
        let begun = Instant::now();
        match tokio::time::timeout(WITHIN, tokio::net::TcpStream::connect(door)).await {
            Ok(Ok(_)) => slowest = slowest.max(begun.elapsed()),
            Ok(Err(error)) => return PEERS.red(format!("{address}: {error}")),
            Err(_) => return PEERS.red(format!("{address}: no connection within {WITHIN:?}")),
        }
    }
    let slowest = slowest.as_secs_f64() * 1e3;
    PEERS.green(format!("{} reached, the slowest in {slowest:.1} ms", addresses.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    #[tokio::test]
    async fn members_that_cannot_be_reached_are_red() {
        let member = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = member.local_addr().unwrap().to_string();
        assert_eq!(examine(&[&address]).await.state, State::Green);
        assert_eq!(examine(&[&format!("http://{address}")]).await.state, State::Green);
        drop(member);
        let found = examine(&[&address]).await;
        assert!(found.state == State::Red && found.found.contains(&address), "{found:?}");
        assert_eq!(examine(&[]).await.state, State::Yellow);
    }
}
