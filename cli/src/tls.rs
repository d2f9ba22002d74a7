//! How this process connects: plain, or mutual TLS by configuration and arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use blip2_proto::transport::{TlsFiles, Transport, is_loopback};

use crate::error::CliError;

/// TLS files on the command line; each overrides that of the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TlsArguments {
    /// PEM file with the certificates of the run's authority; with `--tls-cert` and `--tls-key`, connections
    /// are mutual TLS.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// PEM file with this process's certificate.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Name that all certificates of the run are issued for [default: blip2]
    #[arg(long, value_name = "NAME", help_heading = "TLS")]
    pub(crate) tls_server_name: Option<String>,
}

impl TlsArguments {
    /// These files, and those of the configuration where none is named.
    pub(crate) fn over(self, configured: TlsFiles) -> TlsFiles {
        TlsFiles {
            ca: self.tls_ca.unwrap_or(configured.ca),
            cert: self.tls_cert.unwrap_or(configured.cert),
            key: self.tls_key.unwrap_or(configured.key),
            server_name: self.tls_server_name.unwrap_or(configured.server_name),
        }
    }
}

/// The transport that these files make.
pub(crate) fn transport(files: &TlsFiles) -> Result<Transport, CliError> {
    Transport::of(files).map_err(|error| CliError::config(format!("tls: {error}")))
}

/// The URL of a coordinator that listens on `address` of this transport.
pub(crate) fn url(transport: &Transport, address: impl std::fmt::Display) -> String {
    let scheme = if transport.is_encrypted() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Says so where others on the network can read what comes to and goes from this process.
pub(crate) fn warn_if_readable(listen: SocketAddr, transport: &Transport) {
    if is_readable(listen, transport) {
        tracing::warn!(
            "listening on {listen}: connections are not encrypted. Whoever is on the way can read the run token, texts, \
             features and gradients, and with the token join in: keep this network private, or set [tls] ca, cert and \
             key (--tls-ca, --tls-cert, --tls-key)"
        );
    }
}

fn is_readable(listen: SocketAddr, transport: &Transport) -> bool {
    !transport.is_encrypted() && !is_loopback(&listen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_run::exit::Exit;

    #[test]
    fn arguments_come_before_the_configuration_and_halves_are_refused() {
        let configured =
            TlsFiles { ca: "ca.pem".into(), server_name: "training".into(), ..TlsFiles::default() };
        let arguments = TlsArguments { tls_ca: Some("other.pem".into()), ..TlsArguments::default() };
        let files = arguments.over(configured);
        assert_eq!((files.ca.to_str(), files.server_name.as_str()), (Some("other.pem"), "training"));
        let error = transport(&files).unwrap_err();
        assert_eq!(error.exit(), Exit::BadConfig);
        assert!(error.to_string().contains("cert") && error.to_string().contains("key"), "{error}");
        assert_eq!(url(&transport(&TlsFiles::default()).unwrap(), "h:1"), "http://h:1");
    }

    #[test]
    fn what_others_can_read_is_what_listens_beyond_the_machine_without_tls() {
        let plain = transport(&TlsFiles::default()).unwrap();
        for (address, readable) in [
            ("127.0.0.1:0", false),
            ("[::1]:7100", false),
            ("[::ffff:127.0.0.1]:7100", false),
            ("0.0.0.0:7100", true),
            ("[::]:7100", true),
            ("10.0.0.1:7100", true),
        ] {
            assert_eq!(is_readable(address.parse().unwrap(), &plain), readable, "{address}");
        }
    }
}
