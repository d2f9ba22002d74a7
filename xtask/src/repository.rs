//! The repository that a check looks at, and cargo in it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo run` tells the program that it runs of its package. Build scripts that ask for one of them
/// (`ring`'s does) run again where it changes, and all that stands on them is compiled again.
const OF_THIS_PACKAGE: [&str; 4] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"];

/// The folder of the repository.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo in the repository, in the environment in which it was called for this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    without(&mut cargo, &OF_THIS_PACKAGE);
    cargo
}

/// Takes the variables that begin with one of `prefixes` from a command's environment.
pub(crate) fn without(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// Where cargo put this program: the folder of its profile.
pub(crate) fn profile_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// The target folder in which this program lies.
pub(crate) fn target_folder() -> Result<PathBuf, String> {
    let profile = profile_folder()?;
    profile.parent().map(Path::to_path_buf).ok_or_else(|| "this program lies in no target folder".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_called_as_by_the_user() {
        let cargo = cargo();
        let removed = |name: &str| cargo.get_envs().any(|(own, value)| own == name && value.is_none());
        // Cargo has set these for this test.
        assert!(removed("CARGO_MANIFEST_DIR") && removed("CARGO_PKG_NAME"));
        assert!(!removed("CARGO_TARGET_DIR") && !removed("CARGO_HOME"));
    }
}
