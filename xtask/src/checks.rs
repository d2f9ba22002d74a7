//! What every change must pass, as `.ci/run` runs it: the same commands for people and for CI.

use crate::{arrows_page, repository};

/// One of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Format,
    Lint,
    Docs,
    Test,
    Simulation,
    Bench,
}

impl Check {
    /// The check that the command line calls `name`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "fmt" => Self::Format,
            "lint" => Self::Lint,
            "docs" => Self::Docs,
            "test" => Self::Test,
            "sim" => Self::Simulation,
            "bench" => Self::Bench,
            _ => return None,
        })
    }

    /// Cargo's arguments; what the user adds comes after them. One choice of packages, so that all share a
    /// build.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Format => &["fmt", "--all"],
            // With what no other build has and needs no toolkit.
            Self::Lint => {
                &["clippy", "--release", "--workspace", "--all-targets", "--features", "blip2-tests/otlp"]
            }
            Self::Docs => &["doc", "--release", "--workspace", "--no-deps"],
            Self::Test => &["test", "--release", "--workspace"],
            Self::Simulation => &[
                "test",
                "--release",
                "--workspace",
                "--features",
                "blip2-tests/planted-bugs",
                "--test",
                "simulation",
                "planted",
            ],
            Self::Bench => &["bench", "--workspace", "--bench", "*"],
        }
    }
}

/// Whether the check passed.
pub(crate) fn run(check: Check, further: &[String]) -> Result<bool, String> {
    let mut cargo = repository::cargo();
    cargo.args(check.arguments()).args(further);
    match check {
        Check::Lint => cargo.args(["--", "-D", "warnings"]),
        Check::Docs => cargo.env("RUSTDOCFLAGS", "-D warnings"),
        _ => &mut cargo,
    };
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    let passed = status.success();
    Ok(passed && (check != Check::Docs || arrows_page::run(arrows_page::Options::Check)?))
}
