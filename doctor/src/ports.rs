//! Whether the ports that processes of this machine listen on are free.

use std::net::{SocketAddr, TcpListener};

use crate::check::{Check, Finding};

const PORTS: Check = Check {
    name: "ports",
    asks: "are the ports free that this machine's processes listen on?",
    remedy: "end what holds the port (ss -ltnp), or let the process --listen on another one",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&PORTS];

/// Listens on each for a moment.
pub fn examine(addresses: &[SocketAddr]) -> Finding {
    let mut free = Vec::new();
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(_) => free.push(address.to_string()),
            Err(error) => return PORTS.red(format!("{address}: {error}")),
        }
    }
    PORTS.green(format!("{} free", free.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    #[test]
    fn a_port_that_is_taken_is_red() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let found = examine(&["127.0.0.1:0".parse().unwrap(), address]);
        assert!(found.state == State::Red && found.found.contains(&address.to_string()), "{found:?}");
        drop(taken);
        assert_eq!(examine(&[address]).state, State::Green);
    }
}
