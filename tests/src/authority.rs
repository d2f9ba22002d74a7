//! Certificates of a run, made for a test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::run::SmallRun;

/// An authority that signs certificates for the processes of a run; all files lie in the run's scratch
/// folder.
#[derive(Debug)]
pub struct Authority {
    parameters: CertificateParams,
    key: KeyPair,
    folder: PathBuf,
    file: String,
}

impl Authority {
    /// A new authority with its certificate in `NAME.pem`.
    ///
    /// # Panics
    /// Files cannot be written.
    pub fn new(run: &SmallRun, name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("it signs itself").pem();
        let folder = run.scratch().to_path_buf();
        let file = write(&folder, &format!("{name}.pem"), &certificate);
        Self { parameters, key, folder, file }
    }

    /// The file with this authority's certificate.
    pub fn file(&self) -> String {
        self.file.clone()
    }

    /// Files with a certificate that this authority signs for the processes of a run, and its key.
    ///
    /// # Panics
    /// Files cannot be written.
    pub fn issue(&self, name: &str) -> [String; 2] {
        self.issue_for(name, "blip2")
    }

    /// The same for a host.
    ///
    /// # Panics
    /// Files cannot be written.
    pub fn issue_for(&self, name: &str, host: &str) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        let own = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = own.signed_by(&key, &issuer).expect("it signs").pem();
        [
            write(&self.folder, &format!("{name}-cert.pem"), &certificate),
            write(&self.folder, &format!("{name}-key.pem"), &key.serialize_pem()),
        ]
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the file can be written");
    path.to_str().expect("temporary folders have UTF-8 names").to_owned()
}
