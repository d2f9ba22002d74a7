//! Kernels assembled by the toolkit's `ptxas`, and what it says of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What became of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assembled {
    /// The module's first kernel.
    pub(crate) name: String,
    pub(crate) target: String,
    /// The assembler's words, where it did not take the module.
    pub(crate) refusal: Option<String>,
    /// Bytes of registers that are stored to memory for want of room.
    pub(crate) spilled: u64,
}

impl fmt::Display for Assembled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, target, spilled, refusal } = self;
        match refusal {
            Some(reason) => write!(f, "{target} {name}: refused: {reason}"),
            None => write!(f, "{target} {name}: {spilled} B spilled"),
        }
    }
}

/// Assembles each module for the target that it names, on all cores.
pub(crate) fn assemble(ptxas: &Path, modules: &[PathBuf]) -> Result<Vec<Assembled>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let left = Mutex::new(modules.iter());
    let work = || {
        let mut done = Vec::new();
        // A poisoned lock means that the check panics anyway.
        while let Some(module) = left.lock().ok().and_then(|mut left| left.next()) {
            done.push(one(ptxas, module)?);
        }
        Ok(done)
    };
    let parts: Vec<Result<Vec<Assembled>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a thread of the assembler panicked".into()))
        };
        threads.into_iter().map(joined).collect()
    });
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn one(ptxas: &Path, module: &Path) -> Result<Assembled, String> {
    let text = crate::files::read(module)?;
    let target = word_after(&text, ".target ").ok_or_else(|| format!("{}: no .target", module.display()))?;
    let name = word_after(&text, ".entry ").unwrap_or_default().to_owned();
    let mut command = Command::new(ptxas);
    command.args(["-v", "--output-file", "/dev/null", "-arch"]).arg(target).arg(module);
    let output = command.output().map_err(|error| format!("{}: {error}", ptxas.display()))?;
    let said = super::build::said(&output);
    let target = target.to_owned();
    if !output.status.success() {
        let refusal = Some(said.lines().find(|line| line.contains("error")).unwrap_or(&said).to_owned());
        return Ok(Assembled { name, target, refusal, spilled: 0 });
    }
    Ok(Assembled { name, target, refusal: None, spilled: number_before(&said, " bytes spill stores") })
}

/// The word that follows the first `marker`: up to a blank, a comma or a bracket.
fn word_after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(marker)?;
    let end = rest.find(|letter: char| letter.is_whitespace() || ",({".contains(letter));
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// The largest number that stands before `words`; 0 where none does.
fn number_before(text: &str, words: &str) -> u64 {
    let numbers = text.match_indices(words).filter_map(|(place, _)| {
        let digits = text[..place].rsplit(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assembler_says_is_read() {
        let said = "ptxas info    : Compiling entry function 'k' for 'sm_90a'\n\
            ptxas info    : Function properties for k\n    24 bytes stack frame, 128 bytes spill stores, 96 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 1 barriers, 49152 bytes smem, 400 bytes cmem[0]\n";
        assert_eq!(number_before(said, " bytes spill stores"), 128);
        assert_eq!(number_before(said, " bytes smem"), 49152);
        assert_eq!(number_before("nothing", " bytes smem"), 0);
        let ptx = ".version 8.6\n.target sm_90a, debug\n.visible .entry matmul(\n";
        assert_eq!(word_after(ptx, ".target "), Some("sm_90a"));
        assert_eq!(word_after(ptx, ".entry "), Some("matmul"));
        assert_eq!(word_after(ptx, ".func "), None);
    }
}
