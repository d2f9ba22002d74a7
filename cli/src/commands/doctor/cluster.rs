//! Whether the coordinator takes this machine's token and certificates, and how fast its members are reached.

use std::path::Path;
use std::time::Duration;

use blip2_collective::probe::{Bandwidth, MOST_PROBED, measure};
use blip2_doctor::check::{Check, Finding, State};
use blip2_doctor::peers;
use blip2_proto::text::visible;
use blip2_proto::transport::TlsFiles;
use blip2_run::exit::Exit;

use crate::commands::run_source::{Known, Source};

const COORDINATOR: Check = Check {
    name: "coordinator",
    asks: "does the coordinator answer, and take this token and these certificates?",
    remedy: "name its URL (https where [tls] is set), its token file and certificates; both need the same blip2, and port 7100 \
             must be open from here (docs/networking.md)",
};
const BANDWIDTH: Check = Check {
    name: "bandwidth",
    asks: "how fast is the way to the run's members, and back?",
    remedy: "ask again when nobody else measures, from within the run's network and with the run's own blip2; blip2 bench \
             allreduce measures between two machines without a run",
};
#[cfg(test)]
pub(super) const CHECKS: &[&Check] = &[&COORDINATOR, &BANDWIDTH];

/// Members that are measured, one after the other.
const MOST_MEASURED: usize = 4;
/// Bytes of a member's reason that are shown.
const REASON: usize = 400;
/// For the connection to one.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Asks the coordinator for its status, and knocks at its members' doors.
pub(super) async fn examine(address: &str, tls: TlsFiles, token: Option<&Path>) -> Vec<Finding> {
    let mut source = match Source::open(address, tls, token).await {
        Ok(source) => source,
        Err(error) => return vec![COORDINATOR.red(error.to_string())],
    };
    match source.ask().await {
        Ok(Known::Live(status)) => {
            let state = &status.state;
            let coordinator = COORDINATOR.green(format!("run {} answers, {state}", status.run_id));
            let members: Vec<&str> =
                status.members.iter().map(|member| member.exchange_address.as_str()).collect();
            let peers = peers::examine(&members).await;
            let reached = peers.state == State::Green;
            let measured = if reached { Some(bandwidth(&source, &members).await) } else { None };
            [coordinator, peers].into_iter().chain(measured).collect()
        }
        Ok(Known::Stored(stored)) => vec![COORDINATOR.red(format!("nobody answers: {}", stored.line()))],
        Err(error) if error.exit() == Exit::Refused => vec![COORDINATOR.red(format!("refused: {error}"))],
        Err(error) => vec![COORDINATOR.red(error.to_string())],
    }
}

/// Bytes there and back, to a few members.
async fn bandwidth(source: &Source, members: &[&str]) -> Finding {
    let (transport, token) = source.access();
    let mut said = Vec::new();
    for member in members.iter().take(MOST_MEASURED) {
        let measured = match transport.connect(member, CONNECT_WITHIN).await {
            Ok(channel) => measure(channel, token, MOST_PROBED).await,
            Err(reason) => return BANDWIDTH.yellow(format!("{member}: {reason}")),
        };
        match measured {
            Ok(Bandwidth { to, from }) => said.push(format!("{member} {} to, {} from", bits(to), bits(from))),
            Err(status) => {
                return BANDWIDTH.yellow(format!("{member}: {}", visible(status.message(), REASON)));
            }
        }
    }
    BANDWIDTH.green(format!("{}; blip2 plan --network plans with it", said.join("; ")))
}

/// Bytes a second as networks are named.
fn bits(bytes_per_s: f64) -> String {
    match bytes_per_s * 8.0 {
        bits if bits >= 1e9 => format!("{:.1} Gbit/s", bits / 1e9),
        bits => format!("{:.0} Mbit/s", bits / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_red() {
        let found = examine("http://127.0.0.1:9", TlsFiles::default(), None).await;
        assert_eq!((found.len(), found[0].state), (1, State::Red));
        let halves = TlsFiles { ca: "ca.pem".into(), ..TlsFiles::default() };
        assert!(examine("http://127.0.0.1:9", halves, None).await[0].found.contains("cert"));
    }

    #[test]
    fn speeds_are_said_as_networks_are_named() {
        assert_eq!([3.125e9, 1.25e8, 12.5e6].map(bits), ["25.0 Gbit/s", "1.0 Gbit/s", "100 Mbit/s"]);
    }
}
