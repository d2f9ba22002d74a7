//! A Java program at the other end of two pipes.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::tools::{Result, ToolError};

/// Between two looks at a program that is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Of what a program complains, the last bytes are shown.
const COMPLAINT: usize = 600;

/// How Java is started.
#[derive(Debug, Clone)]
pub struct Java {
    /// The program, as a shell finds it.
    pub program: PathBuf,
    /// How long a tool may say nothing.
    pub deadline: Duration,
}

impl Default for Java {
    /// `java`, ten minutes.
    fn default() -> Self {
        Self { program: PathBuf::from("java"), deadline: Duration::from_secs(600) }
    }
}

/// A tool: its name in messages, its file, and the folder of the toolkit's package in which that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) jar: &'static str,
    pub(super) subfolder: &'static str,
}

impl Tool {
    /// The folder of the jar: this one, or its part for this tool.
    pub(super) fn folder(&self, folder: &Path) -> Result<PathBuf> {
        let candidates = [folder.to_owned(), folder.join(self.subfolder)];
        let found = candidates.into_iter().find(|candidate| candidate.join(self.jar).is_file());
        let found = found.map(|found| std::path::absolute(&found).unwrap_or(found));
        found.ok_or_else(|| ToolError::NoJar { tool: self.name, jar: self.jar, folder: folder.to_owned() })
    }
}

/// A running program. Dropped, it is stopped.
#[derive(Debug)]
pub(super) struct Running {
    tool: &'static str,
    deadline: Duration,
    child: Child,
    /// To the thread that writes; dropped, the program's input ends.
    input: Option<Sender<String>>,
    lines: Receiver<io::Result<String>>,
    complaints: Option<JoinHandle<String>>,
}

impl Java {
    /// Starts a tool in its folder.
    pub(super) fn start(
        &self,
        tool: Tool,
        folder: &Path,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| ToolError::NoJava {
            tool: tool.name,
            program: self.program.clone(),
            source,
        })?;
        let (input, to_write) = mpsc::channel::<String>();
        if let Some(mut stdin) = child.stdin.take() {
            // Ends where the program no longer reads: what it has to say about that comes on the other pipes.
            std::thread::spawn(move || {
                for text in to_write {
                    if stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                        break;
                    }
                }
            });
        }
        let (heard, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    if heard.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let complaints = child.stderr.take().map(|stderr| std::thread::spawn(move || last_of(stderr)));
        Ok(Running { tool: tool.name, deadline: self.deadline, child, input: Some(input), lines, complaints })
    }
}

/// The end of what comes, as text.
fn last_of(mut from: impl Read) -> String {
    let (mut last, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        last.extend_from_slice(&buffer[..read]);
        let beyond = last.len().saturating_sub(COMPLAINT);
        last.drain(..beyond);
    }
    String::from_utf8_lossy(&last).trim().to_owned()
}

impl Running {
    /// Writes, without waiting for the program to read.
    pub(super) fn write(&self, text: String) {
        // Nobody takes it where the program has ended, which is seen where its answer is read.
        let _unheard = self.input.as_ref().map(|input| input.send(text));
    }

    /// Ends the program's input.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// The next line it prints.
    ///
    /// # Errors
    /// None within the deadline, or no further line.
    pub(super) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(self.deadline) {
            Ok(line) => line.map_err(|source| ToolError::Io { tool: self.tool, source }),
            Err(RecvTimeoutError::Timeout) => {
                Err(ToolError::Deadline { tool: self.tool, deadline: self.deadline })
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// Not within the deadline, or not well.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.end_input();
        let mut waited = Duration::ZERO;
        loop {
            let status = self.child.try_wait().map_err(|source| ToolError::Io { tool: self.tool, source })?;
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(self.ended()),
                None if waited >= self.deadline => {
                    return Err(ToolError::Deadline { tool: self.tool, deadline: self.deadline });
                }
                None => std::thread::sleep(LOOK),
            }
            waited += LOOK;
        }
    }

    /// That it answered something else.
    pub(super) fn unexpected(&self, answer: &str, expected: impl Into<String>) -> ToolError {
        let answer = answer.chars().take(100).collect();
        ToolError::Answer { tool: self.tool, answer, expected: expected.into() }
    }

    fn ended(&mut self) -> ToolError {
        // Its output is closed; if it still runs it has nothing more to say.
        let _stopped = self.child.kill();
        let status = self.child.wait().ok();
        let complaint = self.complaints.take().and_then(|complaints| complaints.join().ok());
        let complaint = complaint.filter(|text| !text.is_empty()).unwrap_or_else(|| "nothing".to_owned());
        ToolError::Ended { tool: self.tool, status, complaint }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good.
        let _stopped = self.child.kill();
        let _status = self.child.wait();
    }
}
