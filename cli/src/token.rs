//! The run token: whoever holds it may join the run.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The token of runs that only this machine's processes can reach.
const LOOPBACK_TOKEN: &str = "this machine only";
/// Bytes of a fresh token.
const TOKEN_BYTES: usize = 32;
/// Longer files are something else.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The file in the folder of a run's logs that has the token while `train` runs it.
const RUN_TOKEN: &str = "token";

/// A file only its owner can read, removed when dropped.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Writes the token to a new file in the folder for temporary files.
    pub(crate) fn create(token: &str) -> Result<Self, CliError> {
        let name = format!("blip2-token-{}-{}", std::process::id(), random_hex(8)?);
        Self::create_at(token, std::env::temp_dir().join(name))
    }

    /// Writes the token to `folder`, for `status` to find; one that a killed process left is replaced.
    pub(crate) fn create_in(token: &str, folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(RUN_TOKEN);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(&path, &error)),
            _ => Self::create_at(token, path),
        }
    }

    fn create_at(token: &str, path: PathBuf) -> Result<Self, CliError> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(token.as_bytes()))
            .map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the token file stays behind");
        }
    }
}

/// A token that nobody can guess.
pub(crate) fn fresh_token() -> Result<String, CliError> {
    random_hex(TOKEN_BYTES)
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{}: cannot write the run token: {error}", path.display()))
}

/// The token in a file; without a file, the one that is no secret and only serves on the loopback address.
pub(crate) fn read_token(file: Option<&Path>) -> Result<String, CliError> {
    let Some(path) = file else { return Ok(LOOPBACK_TOKEN.to_owned()) };
    let unreadable = |error: std::io::Error| {
        CliError::failed(format!("{}: cannot read the run token: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_TOKEN_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    token_of(path, &bytes)
}

/// Whoever is reached from other machines needs a token that is a secret.
pub(crate) fn must_have_token(listen: SocketAddr, file: Option<&Path>) -> Result<(), CliError> {
    if file.is_some() || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "--listen {listen}: other machines could join this run; give it a token with --token-file FILE"
    )))
}

/// The token in the bytes of a file, without the white space around it.
pub(crate) fn token_of(path: &Path, bytes: &[u8]) -> Result<String, CliError> {
    let refused = |reason: &str| Err(CliError::refused(format!("{}: {reason}", path.display())));
    if bytes.len() as u64 > MAX_TOKEN_BYTES {
        return refused("this is no token file: it is longer than 4096 bytes");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return refused("the token file is not UTF-8 text") };
    match text.trim() {
        "" => refused("the token file is empty"),
        token if token.contains(char::is_control) => {
            refused("the token has control characters; write it on one line")
        }
        token => Ok(token.to_owned()),
    }
}

fn random_hex(bytes: usize) -> Result<String, CliError> {
    let mut random = vec![0u8; bytes];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| CliError::failed("the system gives no random numbers for the run token"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_through_its_file_and_leaves_nothing() {
        let token = fresh_token().unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_ne!(token, fresh_token().unwrap());
        let file = TokenFile::create(&token).unwrap();
        let path = file.path().to_path_buf();
        assert_eq!(read_token(Some(&path)).unwrap(), token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(file);
        assert!(read_token(Some(&path)).is_err());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RUN_TOKEN), "of a process that was killed").unwrap();
        let file = TokenFile::create_in("fresh", folder.path()).unwrap();
        assert_eq!(read_token(Some(file.path())).unwrap(), "fresh");
        assert_eq!(read_token(None).unwrap(), LOOPBACK_TOKEN);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token = |bytes: &[u8]| token_of(Path::new("file"), bytes).map_err(|error| error.to_string());
        assert_eq!(token(b" secret\n").unwrap(), "secret");
        let cases: [(&[u8], &str); 4] =
            [(b" \n", "empty"), (b"\xff", "UTF-8"), (b"two\nlines", "one line"), (&[b'a'; 4097], "4096")];
        for (bytes, word) in cases {
            assert!(token(bytes).unwrap_err().contains(word), "{word}");
        }
    }
}
