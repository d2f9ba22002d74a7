//! The golden tests, built for CUDA: on a device that computes nothing each of them must fail.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::build::{self, said};
use super::double::Double;
use super::toolchain::Toolchain;
use crate::files::{executable, take};
use crate::repository;

/// Tests that need no device: of the comparison itself, of models in fewer bits, which are the processor's,
/// and of numbers of the host.
const WITHOUT_DEVICE: [&str; 3] = ["fixture::", "narrow::", "retrieval::learning_rates_shrink"];

/// Builds the tests into the folder of the binary; where they lie.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf, String> {
    let mut cargo = repository::cargo();
    cargo.args([
        "test",
        "--release",
        "--locked",
        "--no-run",
        "--package",
        "blip2",
        "--package",
        "blip2-tests",
    ]);
    cargo.args(["--package", "blip2-model", "--features", "blip2/cuda", "--test", "golden"]);
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    toolchain.choose(&mut cargo);
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the golden tests: cargo test ended with {}", output.status));
    }
    let built =
        executable_of(&String::from_utf8_lossy(&output.stdout)).ok_or("cargo built no golden tests")?;
    let golden = build::folder()?.join("golden");
    take(Path::new(&built), &golden)?;
    executable(&golden)?;
    Ok(golden)
}

/// The golden tests on a card, which passed and which failed.
pub(super) struct Ended {
    pub(super) passed: Vec<String>,
    pub(super) failed: Vec<String>,
    /// All that they said.
    pub(super) said: String,
}

/// Whether every test fails on a card that computes nothing.
pub(crate) fn fail_on_double(toolchain: &Toolchain) -> Result<bool, String> {
    let golden = build(toolchain)?;
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let double = Double::new(toolchain, scratch.path().to_path_buf())?;
    let Ended { passed, failed, said } = run(&golden, &double)?;
    println!("{} golden tests fail on a device that computes nothing, {} pass", failed.len(), passed.len());
    for test in &passed {
        println!("FAILED {test}: it cannot tell a device that computes from one that does not");
    }
    if failed.is_empty() {
        eprintln!("{said}");
    }
    Ok(passed.is_empty() && !failed.is_empty())
}

/// Runs the tests that need a device.
pub(super) fn run(golden: &Path, double: &Double) -> Result<Ended, String> {
    let mut tests = double.run(golden, 90, "golden")?;
    tests.arg("--test-threads=1").env("BLIP2_TEST_DEVICE", "cuda");
    tests.args(WITHOUT_DEVICE.iter().flat_map(|name| ["--skip", name]));
    tests.env("BLIP2_GOLDEN_DIR", repository::workspace().join("tests/golden"));
    let output = tests.output().map_err(|error| format!("{}: {error}", golden.display()))?;
    let said = said(&output);
    let [passed, failed] = ["... ok", "... FAILED"].map(|how| {
        let ended = said.lines().filter(|line| line.starts_with("test ") && line.ends_with(how));
        ended.map(str::to_owned).collect()
    });
    Ok(Ended { passed, failed, said })
}

/// The test executable among cargo's messages.
fn executable_of(messages: &str) -> Option<String> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut golden = messages.filter(|message| message["target"]["name"] == "golden");
    golden.find_map(|message| message["executable"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"blip2\"},\"executable\":\"/t/blip2\"}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"golden\"},\"executable\":\"/t/golden-1\"}\n";
        assert_eq!(executable_of(messages).as_deref(), Some("/t/golden-1"));
        assert_eq!(executable_of("no messages"), None);
    }
}
