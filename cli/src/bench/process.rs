//! A process that a bench starts: this program again, which says what it found in lines of JSON.

use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::error::CliError;
use crate::logging;

/// For it to end.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Killed when this is dropped.
pub(super) struct BenchProcess {
    /// What messages call it.
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl BenchProcess {
    /// Starts `bench` with these arguments.
    pub(super) fn start(name: String, arguments: &[String]) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::failed(format!("{name} cannot start: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("bench")
            .args(arguments)
            .args(logging::handed_on())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CliError::failed(format!("{name} has no input and output")));
        };
        Ok(Self { name, child, input: Some(input), output: BufReader::new(output).lines() })
    }

    /// The next thing it says.
    pub(super) async fn line<T: for<'de> Deserialize<'de>>(
        &mut self,
        within: Duration,
    ) -> Result<T, CliError> {
        let line = tokio::time::timeout(within, self.output.next_line()).await;
        let line = line.map_err(|_| self.failed(format!("silent for {:.0} s", within.as_secs_f64())))?;
        let line = line.map_err(|error| self.failed(error.to_string()))?;
        let line = line.ok_or_else(|| self.failed("it ended early; see its error above".to_owned()))?;
        serde_json::from_str(&line).map_err(|error| self.failed(format!("{line}: {error}")))
    }

    /// Tells it something, once; that its input ends is how it knows that this was all.
    pub(super) async fn tell<T: Serialize + Sync>(&mut self, what: &T) -> Result<(), CliError> {
        let line = serde_json::to_string(what).map_err(|error| self.failed(error.to_string()))?;
        let told = self.input.take().ok_or_else(|| self.failed("it was told already".to_owned()))?;
        write(told, &line).await.map_err(|error| self.failed(error.to_string()))
    }

    /// Waits until it has ended well.
    pub(super) async fn end(&mut self) -> Result<(), CliError> {
        match tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            _ => Err(self.failed("it did not end well".to_owned())),
        }
    }

    fn failed(&self, what: String) -> CliError {
        CliError::failed(format!("{}: {what}", self.name))
    }
}

async fn write(mut input: ChildStdin, line: &str) -> std::io::Result<()> {
    input.write_all(line.as_bytes()).await?;
    input.shutdown().await
}
