//! Which program this is: all members of a run must be the same one.

use crate::error::CliError;

/// Version and BLAKE3 of the executable.
pub(crate) fn binary_identity() -> Result<String, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::failed(format!("cannot read this program's own file: {error}"));
    let path = std::env::current_exe().map_err(unreadable)?;
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).map_err(unreadable)?;
    Ok(format!("{} {}", env!("CARGO_PKG_VERSION"), hasher.finalize().to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time() {
        let identity = binary_identity().unwrap();
        assert!(identity.starts_with(env!("CARGO_PKG_VERSION")));
        assert_eq!(identity, binary_identity().unwrap());
    }
}
