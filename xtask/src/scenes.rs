//! Scenes for the demonstration: built, and composed, by their own program.

use std::process::Command;

use crate::repository;

/// The program of `blip2-scenes`.
const PROGRAM: &str = "compose-scenes";

/// With the packages of a plain build, so that both choose the same features and share the dependencies.
const BUILD: [&str; 8] = [
    "build",
    "--release",
    "--package=blip2",
    "--package=blip2-tests",
    "--package=blip2-scenes",
    "--bin",
    PROGRAM,
    "--quiet",
];

/// Exit code of a program that was called wrongly.
const USAGE: i32 = 2;

/// Whether the scenes were written; outside, where the arguments are wrong.
pub(crate) fn run(arguments: &[String]) -> Result<Result<bool, String>, String> {
    let built = repository::cargo().args(BUILD).status().map_err(|error| format!("cargo: {error}"));
    let program = match (built, repository::profile_folder()) {
        (Ok(status), Ok(folder)) if status.success() => folder.join(PROGRAM),
        (Ok(_), Ok(_)) => return Ok(Ok(false)),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
    };
    match Command::new(&program).args(arguments).status() {
        Ok(status) if status.code() == Some(USAGE) => Err("the arguments of `scenes`, as said above".into()),
        Ok(status) => Ok(Ok(status.success())),
        Err(error) => Ok(Err(format!("{}: {error}", program.display()))),
    }
}
