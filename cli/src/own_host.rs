//! Under which host others reach this process, where nobody has said it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// The name of this machine in a cluster of Slurm, which all its machines resolve.
const NODE_VARIABLE: &str = "SLURMD_NODENAME";

/// The host of this machine for others: the address from which the first of `coordinators` that is known is
/// reached, or the name that Slurm has for this machine. `None`: neither tells. An address of the loopback
/// tells nothing: many machines resolve their own name to it.
pub(crate) fn own_host(
    listen: SocketAddr,
    coordinators: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let outgoing = coordinators.iter().find_map(|url| outgoing(listen, url));
    let host = outgoing.map(|ip| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    host.or_else(|| variable(NODE_VARIABLE).filter(|name| !name.is_empty()))
}

/// The address of this machine on the way to a URL's host, of a family that is listened on. Nothing is sent.
fn outgoing(listen: SocketAddr, url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next()?;
    let towards = |address: SocketAddr| {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(address).ok()?;
        Some(socket.local_addr().ok()?.ip().to_canonical())
    };
    let is_heard = |ip: &IpAddr| listen.is_ipv6() || ip.is_ipv4();
    let tells = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    authority.to_socket_addrs().ok()?.filter_map(towards).find(|ip| is_heard(ip) && tells(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_tells_nothing_and_the_node_has_a_name() {
        let all: SocketAddr = "[::]:0".parse().unwrap();
        let node = |name: &str| (name == NODE_VARIABLE).then(|| "node7".to_owned());
        let none = |_: &str| None;
        let coordinators = ["http://127.0.0.1:7100", "[::1]:7100", "http://no such host:1", "nothing"];
        let coordinators = coordinators.map(str::to_owned);
        assert_eq!(own_host(all, &coordinators, none), None);
        assert_eq!(own_host(all, &[], none), None);
        assert_eq!(own_host(all, &coordinators, node).as_deref(), Some("node7"));
        assert_eq!(own_host(all, &coordinators, |_| Some(String::new())), None);
    }

    #[test]
    fn the_way_to_the_coordinator_tells_the_address() {
        // Documentation's own network: a way there is one that leads out, and nothing is sent on it.
        let url = ["http://192.0.2.1:7100/".to_owned()];
        let node = |_: &str| Some("node7".to_owned());
        let all: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let way_out = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect("192.0.2.1:7100")?;
            socket.local_addr()
        });
        let way_out = way_out.ok().map(|own| own.ip()).filter(|ip| !ip.is_loopback());
        let expected = way_out.map_or("node7".to_owned(), |ip| ip.to_string());
        assert_eq!(own_host(all, &url, node), Some(expected));
    }
}
