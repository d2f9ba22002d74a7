//! Why a connection was not made.

use std::error::Error;
use std::io;

use super::causes::with_causes;

/// Why a connection was not made or did not last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    /// What went wrong, for people to read.
    pub reason: String,
    /// One side does not accept the other's certificates: waiting does not help.
    pub untrusted: bool,
}

impl ConnectError {
    /// What an error of the transport says, with its causes.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        Self { reason: with_causes(error), untrusted: is_of_tls(error) }
    }
}

impl From<String> for ConnectError {
    fn from(reason: String) -> Self {
        Self { reason, untrusted: false }
    }
}

/// Whether the TLS library's error is among the causes.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error names the cause of what it wraps, and not what it wraps, as its own.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_certificates_are_told_from_others() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, alert);
        let twice = io::Error::other(wrapped);
        let error = ConnectError::of(&twice);
        assert!(error.untrusted && error.reason.contains("UnknownCA"), "{error}");
        assert!(!ConnectError::of(&io::Error::from(io::ErrorKind::ConnectionRefused)).untrusted);
        assert!(!ConnectError::of(&io::Error::other(io::Error::other("elsewhere"))).untrusted);
    }
}
