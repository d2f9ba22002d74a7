//! Kernels on disk: what a process compiled, the next one finds.

use std::path::Path;
use std::process::Command;

use super::build::said;

/// The compiler of a card's kernels, which says in the log whether it compiles one or has found it.
const COMPILER: &str = "warn,cubecl_cuda=trace";
const COMPILED: &str = "Compiling kernel";
const FOUND: &str = "Using PTX cache";

/// Runs the same program twice, `program` and `again`, with one folder of kernels: whether the first compiled
/// them all, and the second none.
pub(super) fn are_found_again(mut program: Command, mut again: Command) -> Result<bool, String> {
    let ([first, none], [nothing, second]) = (traced(&mut program)?, traced(&mut again)?);
    let kept = first > 0 && (none, nothing) == (0, 0) && second == first;
    let word = if kept { "passed" } else { "FAILED" };
    eprintln!(
        "{word} kernels on disk: one process compiled {first} and found {none}, the next compiled {nothing} and \
         found {second}"
    );
    Ok(kept)
}

/// How many kernels a program compiled and how many it found.
fn traced(program: &mut Command) -> Result<[usize; 2], String> {
    let name = Path::new(program.get_program()).display().to_string();
    let output = program.env("BLIP2_LOG", COMPILER).output().map_err(|error| format!("{name}: {error}"))?;
    let said = said(&output);
    if !output.status.success() {
        return Err(format!("{name} on the driver's double ended with {}:\n{said}", output.status));
    }
    Ok([COMPILED, FOUND].map(|words| said.matches(words).count()))
}
