//! Kernels on disk: what a process compiled, the next one finds.

use std::process::Command;

use super::double::finish;

/// The compiler of a card's kernels, which says in the log whether it compiles one or has found it.
const COMPILER: &str = "warn,cubecl_cuda=trace";
const COMPILED: &str = "Compiling kernel";
const FOUND: &str = "Using PTX cache";

/// Whether these are the counts of a process and the next one, which found what the first compiled.
fn is_found_again([first, none]: [usize; 2], [again, found]: [usize; 2]) -> bool {
    none == 0 && first > 10 && again == 0 && found == first
}

/// Runs the same program twice, `program` and `again`, with one folder of kernels: whether the second finds
/// what the first compiled.
pub(super) fn are_found_again(program: Command, again: Command) -> Result<bool, String> {
    let counts = [traced(program)?, traced(again)?];
    let kept = is_found_again(counts[0], counts[1]);
    let [[first, none], [again, found]] = counts;
    let word = if kept { "passed" } else { "FAILED" };
    eprintln!(
        "{word} kernels on disk: one process compiled {first} and found {none}, the next compiled {again} and \
         found {found}"
    );
    Ok(kept)
}

/// How many kernels a program compiled and how many it found.
fn traced(mut program: Command) -> Result<[usize; 2], String> {
    program.env("BLIP2_LOG", COMPILER);
    let said = finish("a step", program)?;
    Ok([COMPILED, FOUND].map(|words| said.matches(words).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_finds_all_and_the_first_none() {
        assert!(is_found_again([165, 0], [0, 165]));
        for (first, next) in
            [([165, 0], [165, 0]), ([165, 0], [1, 164]), ([100, 65], [0, 165]), ([0, 0], [0, 0])]
        {
            assert!(!is_found_again(first, next), "{first:?} {next:?}");
        }
    }
}
