//! Whether the coordinator takes this machine's token and certificates.

use std::path::Path;

use blip2_doctor::check::{Check, Finding};
use blip2_doctor::peers;
use blip2_proto::transport::TlsFiles;
use blip2_run::exit::Exit;

use crate::commands::run_source::{Known, Source};

const COORDINATOR: Check = Check {
    name: "coordinator",
    asks: "does the coordinator answer, and take this token and these certificates?",
    remedy: "name its URL (https where [tls] is set), its token file and certificates; both need the same blip2, and port 7100 \
             must be open from here (docs/networking.md)",
};
#[cfg(test)]
pub(super) const CHECKS: &[&Check] = &[&COORDINATOR];

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
            vec![coordinator, peers::examine(&members).await]
        }
        Ok(Known::Stored(stored)) => vec![COORDINATOR.red(format!("nobody answers: {}", stored.line()))],
        Err(error) if error.exit() == Exit::Refused => vec![COORDINATOR.red(format!("refused: {error}"))],
        Err(error) => vec![COORDINATOR.red(error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_doctor::check::State;

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_red() {
        let found = examine("http://127.0.0.1:9", TlsFiles::default(), None).await;
        assert_eq!((found.len(), found[0].state), (1, State::Red));
        let halves = TlsFiles { ca: "ca.pem".into(), ..TlsFiles::default() };
        assert!(examine("http://127.0.0.1:9", halves, None).await[0].found.contains("cert"));
    }
}
