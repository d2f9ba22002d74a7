//! Whether a proxy in the environment would catch requests that are to stay near.

use crate::check::{Check, Finding};

/// Variables that name a proxy, in either case.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];
/// Variables that name a store's own endpoint.
const ENDPOINTS: [&str; 5] =
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "HF_ENDPOINT"];

const PROXY: Check = Check {
    name: "proxies",
    asks: "does no proxy of the environment catch requests to this machine, the coordinator or a store's own endpoint?",
    remedy: "put these hosts into NO_PROXY, for example NO_PROXY=localhost,127.0.0.1,::1,.svc,.internal",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&PROXY];

/// Looks at the environment alone.
pub fn examine(environment: &[(String, String)], coordinator: Option<&str>) -> Finding {
    let named = |wanted: &str| {
        let found =
            environment.iter().find(|(name, value)| name.eq_ignore_ascii_case(wanted) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let Some((variable, _)) = PROXIES.iter().find_map(|name| Some((*name, named(name)?))) else {
        return PROXY.green("none is named");
    };
    let passed_over = named("no_proxy").unwrap_or_default();
    let endpoints = ENDPOINTS.iter().filter_map(|name| named(name));
    let near = ["127.0.0.1", "localhost"].into_iter();
    let mut hosts = near.chain(coordinator.into_iter().chain(endpoints).map(host_of));
    match hosts.find(|host| !is_passed_over(host, passed_over)) {
        Some(host) => PROXY.red(format!("{variable} catches requests to {host}: NO_PROXY does not name it")),
        None => PROXY.green(format!("{variable} is named, and NO_PROXY lists what is near")),
    }
}

/// The host of a URL or of `host:port`.
fn host_of(place: &str) -> &str {
    let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Whether a list of hosts and endings of hosts names this one; `*` names all.
fn is_passed_over(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let ending = entry.trim_start_matches('*').trim_start_matches('.');
        entry == "*"
            || host == ending
            || host.strip_suffix(ending).is_some_and(|rest| rest.ends_with('.'))
            || in_network(host, entry)
    })
}

/// Whether an address is within `a.b.c.d/bits`.
fn in_network(host: &str, entry: &str) -> bool {
    let parts = entry.split_once('/').and_then(|(network, bits)| {
        let network: std::net::Ipv4Addr = network.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((u32::from(network), u32::MAX.checked_shl(32 - bits).unwrap_or(0)))
    });
    let address = host.parse::<std::net::Ipv4Addr>().map(u32::from);
    matches!((parts, address), (Some((network, mask)), Ok(address)) if address & mask == network & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    fn state(variables: &[(&str, &str)], coordinator: Option<&str>) -> State {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        examine(&variables, coordinator).state
    }

    #[test]
    fn a_proxy_that_catches_what_is_near_is_red() {
        let proxy = ("HTTP_PROXY", "http://proxy:3128");
        let near = ("NO_PROXY", "localhost,127.0.0.0/8,.cluster.local");
        assert_eq!(state(&[], None), State::Green);
        assert_eq!(state(&[("HTTP_PROXY", "")], None), State::Green);
        assert_eq!(state(&[proxy], None), State::Red);
        assert_eq!(state(&[("https_proxy", "http://proxy:3128")], None), State::Red);
        assert_eq!(state(&[proxy, near], None), State::Green);
        assert_eq!(state(&[proxy, ("no_proxy", "*")], Some("http://10.0.0.1:7100")), State::Green);
        assert_eq!(state(&[proxy, near], Some("http://10.0.0.1:7100")), State::Red);
        assert_eq!(state(&[proxy, near], Some("https://blip2.default.svc.cluster.local:7100")), State::Green);
        let endpoint = ("AWS_ENDPOINT_URL", "http://minio.internal:9000");
        assert_eq!(state(&[proxy, near, endpoint], None), State::Red);
        let both = ("NO_PROXY", "localhost,127.0.0.1,internal");
        assert_eq!(state(&[proxy, both, endpoint], None), State::Green);
    }

    #[test]
    fn hosts_are_read_off_places() {
        for (place, host) in [
            ("http://10.0.0.1:7100", "10.0.0.1"),
            ("https://user:word@host/path", "host"),
            ("[fd00::1]:7100", "fd00::1"),
            ("host", "host"),
        ] {
            assert_eq!(host_of(place), host);
        }
        assert!(!is_passed_over("evilcluster.local", ".cluster.local") && is_passed_over("a.b", "b"));
        assert!(in_network("10.1.2.3", "10.0.0.0/8") && !in_network("11.1.2.3", "10.0.0.0/8"));
        assert!(in_network("11.1.2.3", "0.0.0.0/0"));
    }
}
