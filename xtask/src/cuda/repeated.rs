//! The kernels of a program, which must not depend on which of its threads was faster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::counts::of_processes;
use super::double::Double;

/// Processes that are compared: each launches some kernel more or less often than another where a thread's
/// luck decides, as a look at memory that another thread is about to take over.
pub(super) const PROCESSES: usize = 4;

/// How often a process launched each kernel.
#[derive(Debug, Deserialize)]
struct Launches {
    kernels: BTreeMap<String, u64>,
}

/// Whether processes that did the same, and told of it under `names`, launched the same kernels as often.
pub(super) fn are_the_same(double: &Double, capability: usize, names: &[String]) -> Result<bool, String> {
    let processes = names.iter().map(|name| launches(&double.told(capability, name)));
    let processes = processes.collect::<Result<Vec<_>, _>>()?;
    let odd = differing(&processes);
    let launched: u64 = processes.first().map_or(0, |first| first.values().sum());
    let same = odd.is_empty() && launched > 0;
    let word = if same { "passed" } else { "FAILED" };
    eprintln!(
        "{word} {} processes that do the same launch {launched} kernels; launched more often by one than by \
         another: {}",
        processes.len(),
        if odd.is_empty() { "none".into() } else { odd.join(", ") }
    );
    Ok(same)
}

/// The sum over the processes of a program.
fn launches(told: &Path) -> Result<BTreeMap<String, u64>, String> {
    let mut all = BTreeMap::new();
    for (kernel, number) in of_processes::<Launches>(told)?.into_iter().flat_map(|one| one.kernels) {
        *all.entry(kernel).or_default() += number;
    }
    Ok(all)
}

/// Kernels that not every process launched as often, with the numbers.
fn differing(processes: &[BTreeMap<String, u64>]) -> Vec<String> {
    let names: BTreeSet<&String> = processes.iter().flat_map(BTreeMap::keys).collect();
    let numbers = |name: &String| -> Vec<u64> {
        processes.iter().map(|process| process.get(name).copied().unwrap_or(0)).collect()
    };
    let odd = names.into_iter().filter(|name| numbers(name).windows(2).any(|pair| pair[0] != pair[1]));
    odd.map(|name| format!("{name} {:?}", numbers(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_only_some_launch_is_told() {
        let process = |kernels: &[(&str, u64)]| -> BTreeMap<String, u64> {
            kernels.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
        };
        let (one, other) =
            (process(&[("add", 3), ("sum", 1)]), process(&[("add", 2), ("sum", 1), ("copy", 1)]));
        assert_eq!(differing(&[one.clone(), other]), ["add [3, 2]", "copy [0, 1]"]);
        assert!(differing(&[one.clone(), one]).is_empty());
    }
}
