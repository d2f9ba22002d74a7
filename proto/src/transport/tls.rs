//! The files of mutual TLS.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use super::causes::with_causes;

/// PEM files of mutual TLS: all of `ca`, `cert` and `key`, or none for connections without encryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// PEM file with the certificates of the authority that has signed those of all processes of the run:
    /// with `cert` and `key`, all connections are mutual TLS; empty: plain.
    pub ca: PathBuf,
    /// PEM file with this process's certificate, followed by intermediate ones if there are any.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// Name that all certificates of the run are issued for, whatever host they are used on.
    pub server_name: String,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self {
            ca: PathBuf::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            server_name: "blip2".to_owned(),
        }
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Some of the three files are named and others are not.
    #[error(
        "mutual TLS needs ca, cert and key: {missing} not given; give all three, or none for plain connections"
    )]
    Missing {
        /// The keys without a file.
        missing: String,
    },
    /// A file cannot be read or does not hold what it is named for.
    #[error("{key} {}: {reason}", path.display())]
    File {
        /// `ca`, `cert` or `key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name is no DNS name or address.
    #[error("server_name {name:?} is neither a DNS name nor an address; certificates are issued for it")]
    ServerName {
        /// The name.
        name: String,
    },
}

impl TlsFiles {
    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.named().iter().all(|(_, path)| path.as_os_str().is_empty())
    }

    fn named(&self) -> [(&'static str, &Path); 3] {
        [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)]
    }

    /// Reads and checks the files.
    pub(super) fn load(&self) -> Result<(ServerTlsConfig, ClientTlsConfig), TlsError> {
        let missing: Vec<&str> = self
            .named()
            .into_iter()
            .filter(|(_, path)| path.as_os_str().is_empty())
            .map(|(key, _)| key)
            .collect();
        if !missing.is_empty() {
            return Err(TlsError::Missing { missing: missing.join(", ") });
        }
        if ServerName::try_from(self.server_name.as_str()).is_err() {
            return Err(TlsError::ServerName { name: self.server_name.clone() });
        }
        let [ca, cert, key] = self.named().map(|(key, path)| Pem::read(key, path));
        let (ca, cert, key) = (ca?, cert?, key?);
        let mut roots = rustls::RootCertStore::empty();
        for certificate in ca.certificates()? {
            roots.add(certificate).map_err(|error| ca.wrong(error))?;
        }
        CertifiedKey::from_der(cert.certificates()?, key.private_key()?, &ring::default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    key.wrong(format!("is not the key of {}", cert.path.display()))
                }
                error => cert.wrong(error),
            },
        )?;
        let identity = Identity::from_pem(&cert.text, &key.text);
        let authority = Certificate::from_pem(&ca.text);
        let server = ServerTlsConfig::new().identity(identity.clone()).client_ca_root(authority.clone());
        let client = ClientTlsConfig::new()
            .identity(identity)
            .ca_certificate(authority)
            .domain_name(self.server_name.clone());
        Ok((server, client))
    }

    /// An error of the TLS library after the files were found good one by one.
    pub(super) fn unusable(&self, error: &dyn std::error::Error) -> TlsError {
        TlsError::File { key: "cert", path: self.cert.clone(), reason: with_causes(error) }
    }
}

/// A PEM file and what it is for.
struct Pem<'a> {
    key: &'static str,
    path: &'a Path,
    text: Vec<u8>,
}

impl<'a> Pem<'a> {
    fn read(key: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        match std::fs::read(path) {
            Ok(text) => Ok(Self { key, path, text }),
            Err(error) => Err(TlsError::File { key, path: path.to_owned(), reason: error.to_string() }),
        }
    }

    fn wrong(&self, reason: impl ToString) -> TlsError {
        TlsError::File { key: self.key, path: self.path.to_owned(), reason: reason.to_string() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(self.wrong("holds no certificate (-----BEGIN CERTIFICATE-----)")),
            Err(error) => Err(self.wrong(error)),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| {
            self.wrong(format!("holds no private key (-----BEGIN PRIVATE KEY-----): {error}"))
        })
    }
}
