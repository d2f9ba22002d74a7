//! The run token: whoever holds it may join the run.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use blip2_proto::transport::is_loopback;

use crate::error::CliError;
use blip2_run::layout;

/// The token of runs that only this machine's processes can reach.
const LOOPBACK_TOKEN: &str = "this machine only";
/// Bytes of a fresh token.
const TOKEN_BYTES: usize = 32;
/// Longer files are something else.
const MAX_TOKEN_BYTES: u64 = 4096;

/// A file only its owner can read, removed when dropped.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    token: String,
}

impl TokenFile {
    /// Writes the token to a new file in the folder for temporary files.
    pub(crate) fn create(token: &str) -> Result<Self, CliError> {
        Self::write(
            std::env::temp_dir().join(format!("blip2-token-{}-{}", std::process::id(), random_hex(8)?)),
            token,
        )
    }

    /// Writes the token to its file among a run's logs, where `status` finds it; one that a killed process
    /// left there is replaced.
    pub(crate) fn create_in(logs: &Path, token: &str) -> Result<Self, CliError> {
        let path = logs.join(layout::TOKEN);
        // If it cannot be removed, writing says why.
        let _ = std::fs::remove_file(&path);
        Self::write(path, token)
    }

    fn write(path: PathBuf, token: &str) -> Result<Self, CliError> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let failed = |error: std::io::Error| {
            CliError::failed(format!("{}: cannot write the run token: {error}", path.display()))
        };
        let mut file = options.open(&path).map_err(failed)?;
        // From here on the file goes with this value, also where it cannot be written.
        let created = Self { path: path.clone(), token: token.to_owned() };
        file.write_all(token.as_bytes()).map_err(failed)?;
        Ok(created)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Another process may have replaced it by its own.
        let is_ours = read_token(Some(&self.path)).is_ok_and(|token| token == self.token);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the token file stays behind");
        }
    }
}

/// A token that nobody can guess.
pub(crate) fn fresh_token() -> Result<String, CliError> {
    random_hex(TOKEN_BYTES)
}

/// The token of a run that `train` leads on this machine, if its file is among these logs.
pub(crate) fn token_in(logs: &Path) -> Option<String> {
    read_token(Some(&logs.join(layout::TOKEN))).ok()
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
    if file.is_some() || is_loopback(&listen) {
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
        assert_eq!(read_token(None).unwrap(), LOOPBACK_TOKEN);
    }

    #[test]
    fn the_token_of_a_run_lies_among_its_logs_until_its_own_process_ends() {
        let logs = tempfile::tempdir().unwrap();
        assert_eq!(token_in(logs.path()), None);
        let left_behind = TokenFile::create_in(logs.path(), "first").unwrap();
        let file = TokenFile::create_in(logs.path(), "second").unwrap();
        drop(left_behind);
        assert_eq!(token_in(logs.path()).as_deref(), Some("second"));
        drop(file);
        assert_eq!(token_in(logs.path()), None);
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
