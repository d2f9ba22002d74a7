//! The CUDA binary: built, and run where no card is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::toolchain::Toolchain;
use crate::files::{executable, take};
use crate::repository::{self, workspace};
use crate::small_run::{self, SmallRun};

/// How it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    feature: &'static str,
    profile: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { feature: "cuda", profile: "release".into() }
    }
}

impl Options {
    /// Takes one argument; `value` gives the one after it.
    pub(crate) fn take<'a>(
        &mut self,
        argument: &str,
        mut value: impl FnMut() -> Result<&'a str, String>,
    ) -> Result<(), String> {
        match argument {
            "--fused" => self.feature = "cuda-fused",
            "--profile" => self.profile = value()?.into(),
            other => return Err(format!("unknown argument `{other}`")),
        }
        Ok(())
    }
}

/// The folder that can be carried to a machine with a card: the binary, and what it looks for beside itself.
pub(crate) fn folder() -> Result<PathBuf, String> {
    Ok(repository::profile_folder()?.with_file_name("cuda"))
}

/// Builds, and lays the binary and `libdevice` into [`folder`].
pub(crate) fn build(toolchain: &Toolchain, options: &Options) -> Result<bool, String> {
    let mut cargo = repository::cargo();
    cargo.args(["build", "--locked", "--bin", "blip2", "--profile", &options.profile]);
    cargo.args(["--features", &format!("blip2/{}", options.feature)]);
    toolchain.choose(&mut cargo);
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        eprintln!("cargo build ended with {status}");
        return Ok(false);
    }
    let folder = folder()?;
    let built = folder.with_file_name(&options.profile).join("blip2");
    let binary = folder.join("blip2");
    take(&built, &binary)?;
    executable(&binary)?;
    // Else programs and tests that look there would take it for the CPU's.
    std::fs::remove_file(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    let beside = toolchain.libdevice();
    let below = beside.strip_prefix(toolchain.toolkit()).map_err(|error| error.to_string())?;
    take(&beside, &folder.join(below))?;
    eprintln!("{} and {}", binary.display(), below.display());
    Ok(true)
}

/// Runs the binary as on a machine without a card: its version, the card that is not there, and the CPU in
/// its place.
pub(crate) fn try_without_card() -> Result<bool, String> {
    let binary = folder()?.join("blip2");
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("this machine has a card: nothing to see of a machine without one");
        return Ok(true);
    }
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let train = |device: &str| {
        let mut program = program(&binary);
        let root = scratch.path().join(device);
        small_run::train(&mut program, &SmallRun { device, workers: 1, root: &root, steps: [1, 1] });
        program
    };
    let mut version = program(&binary);
    version.arg("--version");
    let expected = [
        ("--version", version, 0, "blip2"),
        ("train --device cuda", train("cuda"), 78, "no CUDA device"),
        ("train --device auto", train("auto"), 0, ""),
    ];
    let mut passed = true;
    for (name, mut command, code, says) in expected {
        let output = command.output().map_err(|error| format!("{}: {error}", binary.display()))?;
        let right = output.status.code() == Some(code) && said(&output).contains(says);
        eprintln!("{} {name}: {}", if right { "passed" } else { "FAILED" }, output.status);
        if !right {
            eprintln!("expected exit code {code} and `{says}`, got:\n{}", said(&output));
        }
        passed &= right;
    }
    Ok(passed)
}

/// The binary in the repository's folder, whatever the caller's configuration.
pub(crate) fn program(binary: &Path) -> Command {
    let mut program = Command::new(binary);
    program.current_dir(workspace());
    repository::without(&mut program, &["BLIP2_"]);
    program
}

/// Both outputs of a program.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
