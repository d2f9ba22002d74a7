//! The run token: whoever holds it may join the run.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The token of runs that only this machine's processes can reach.
const LOOPBACK_TOKEN: &str = "this machine only";
/// Bytes of a fresh token.
const TOKEN_BYTES: usize = 32;

/// A file only its owner can read, removed when dropped.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Writes the token to a new file in the folder for temporary files.
    pub(crate) fn create(token: &str) -> Result<Self, CliError> {
        let path =
            std::env::temp_dir().join(format!("blip2-token-{}-{}", std::process::id(), random_hex(8)?));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).and_then(|mut file| file.write_all(token.as_bytes())).map_err(|error| {
            CliError::failed(format!("{}: cannot write the run token: {error}", path.display()))
        })?;
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

/// The token in a file; without a file, the one that is no secret and only serves on the loopback address.
pub(crate) fn read_token(file: Option<&Path>) -> Result<String, CliError> {
    let Some(path) = file else { return Ok(LOOPBACK_TOKEN.to_owned()) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::failed(format!("{}: cannot read the run token: {error}", path.display()))
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(CliError::refused(format!("{}: the token file is empty", path.display())));
    }
    Ok(token.to_owned())
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
}
