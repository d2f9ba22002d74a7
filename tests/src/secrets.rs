//! What must not be found anywhere: in a file, in what a process says, on a command line.

use std::path::Path;

use crate::process::Ended;

/// Texts that are for nobody to see.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// These texts.
    ///
    /// # Panics
    /// One is so short that it may be met by chance.
    pub fn new(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        assert!(texts.iter().all(|text| text.trim().len() >= 8), "{texts:?}");
        Self(texts.iter().map(|text| text.trim().to_owned()).collect())
    }

    /// The first of them that is in `content`.
    pub fn found_in(&self, content: &[u8]) -> Option<&str> {
        let is_in =
            |secret: &&String| content.windows(secret.len()).any(|window| window == secret.as_bytes());
        self.0.iter().find(is_in).map(String::as_str)
    }

    /// # Panics
    /// One of them is in `content`.
    #[track_caller]
    pub fn assert_not_in(&self, content: &[u8], place: &str) {
        if let Some(secret) = self.found_in(content) {
            panic!("`{secret}` is in {place}");
        }
    }

    /// # Panics
    /// One of them is in a file or in the name of a file below `folder`.
    #[track_caller]
    pub fn assert_not_below(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("an entry").path();
            let shown = path.display().to_string();
            self.assert_not_in(shown.as_bytes(), &shown);
            match path.is_dir() {
                true => self.assert_not_below(&path),
                false => self.assert_not_in(&std::fs::read(&path).expect("the file can be read"), &shown),
            }
        }
    }

    /// # Panics
    /// A process said one of them.
    #[track_caller]
    pub fn assert_unsaid(&self, ended: &Ended) {
        self.assert_not_in(ended.stdout.as_bytes(), &ended.stdout);
        self.assert_not_in(ended.stderr.as_bytes(), &ended.stderr);
    }

    /// # Panics
    /// One of them is on the command line of a process, which every user of the machine sees; or there is no
    /// such process.
    #[track_caller]
    pub fn assert_not_on_command_line(&self, process: u32) {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).expect("the process is there");
        assert!(!line.is_empty(), "process {process} has ended");
        self.assert_not_in(&line, &String::from_utf8_lossy(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_is() {
        let secrets = Secrets::new(["tops3cret-word\n", "another one"]);
        assert_eq!(secrets.found_in(b"a tops3cret-word in a line"), Some("tops3cret-word"));
        assert_eq!(secrets.found_in(b"nothing of that"), None);
        let panics =
            |check: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err();
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("file"), b"\0\0another one\0").unwrap();
        assert!(panics(&|| secrets.assert_not_below(folder.path())));
        std::fs::write(below.join("file"), b"\0\0another\0").unwrap();
        secrets.assert_not_below(folder.path());
        std::fs::write(below.join("another one"), b"").unwrap();
        assert!(panics(&|| secrets.assert_not_below(folder.path())));
        let ended = |stderr: &str| Ended { code: Some(0), stdout: String::new(), stderr: stderr.into() };
        assert!(panics(&|| secrets.assert_unsaid(&ended("error: another one"))));
        secrets.assert_unsaid(&ended("error: another"));
        let mut asleep = std::process::Command::new("sh");
        let mut asleep = asleep.args(["-c", "read line; exit", "sh", "tops3cret-word"]);
        asleep = asleep.stdin(std::process::Stdio::piped());
        let mut asleep = asleep.spawn().unwrap();
        assert!(panics(&|| secrets.assert_not_on_command_line(asleep.id())));
        asleep.kill().unwrap();
        asleep.wait().unwrap();
        secrets.assert_not_on_command_line(std::process::id());
    }
}
