//! What a training step asks of the driver, beside what it asked when it was last looked at.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{ends_with, listed, read, write};

/// Requests to the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    launches: u64,
    /// How often the host waited for the card.
    waits: u64,
    /// Times that the card was asked for memory: what a step takes it gives back, so a later one asks for
    /// none.
    allocations: u64,
    /// The largest shared memory of a block of any launch; no sum.
    #[serde(default, skip_serializing)]
    pub(crate) most_shared_bytes: u64,
    to_device: Copies,
    to_host: Copies,
    on_device: Copies,
}

/// Copies in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Copies {
    copies: u64,
    bytes: u64,
}

/// One step of each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepCounts {
    pub(crate) stage1: Counts,
    pub(crate) stage2: Counts,
}

impl Counts {
    /// The sum over the processes of a run, by the files that the double left in `folder`.
    pub(crate) fn of_run(folder: &Path) -> Result<Self, String> {
        let mut sum = Self::default();
        for one in of_processes::<Self>(folder)? {
            sum = sum.with(&one, |sum, one| Some(sum + one)).ok_or("counts beyond 64 bits")?;
        }
        if sum.launches == 0 {
            return Err(format!("{}: no process launched a kernel", folder.display()));
        }
        Ok(sum)
    }

    /// What each of the `more` steps cost that this run did and `fewer` did not.
    pub(crate) fn beyond(&self, fewer: &Self, more: u64) -> Result<Self, String> {
        // A process takes its first memory in one piece more or fewer, as its threads happen to meet.
        let fewer = Self { allocations: fewer.allocations.min(self.allocations), ..*fewer };
        let difference = self.with(&fewer, |long, short| Some(long.checked_sub(short)? / more));
        difference.ok_or_else(|| format!("a longer run asked less of the driver: {self:?} after {fewer:?}"))
    }

    fn with(&self, other: &Self, both: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let copies = |one: Copies, other: Copies| {
            Some(Copies { copies: both(one.copies, other.copies)?, bytes: both(one.bytes, other.bytes)? })
        };
        Some(Self {
            launches: both(self.launches, other.launches)?,
            waits: both(self.waits, other.waits)?,
            allocations: both(self.allocations, other.allocations)?,
            most_shared_bytes: self.most_shared_bytes.max(other.most_shared_bytes),
            to_device: copies(self.to_device, other.to_device)?,
            to_host: copies(self.to_host, other.to_host)?,
            on_device: copies(self.on_device, other.on_device)?,
        })
    }

    /// What grew beyond `before` and the slack, by name.
    fn grown(&self, before: &Self) -> Vec<String> {
        let pairs = [
            ("launches", self.launches, before.launches),
            ("waits", self.waits, before.waits),
            ("allocations", self.allocations, before.allocations),
            ("copies to the device", self.to_device.copies, before.to_device.copies),
            ("bytes to the device", self.to_device.bytes, before.to_device.bytes),
            ("copies to the host", self.to_host.copies, before.to_host.copies),
            ("bytes to the host", self.to_host.bytes, before.to_host.bytes),
            ("copies on the device", self.on_device.copies, before.on_device.copies),
            ("bytes on the device", self.on_device.bytes, before.on_device.bytes),
        ];
        let grown = pairs.into_iter().filter(|(_, now, before)| *now > before + slack(*before));
        grown.map(|(name, now, before)| format!("{name}: {now}, were {before}")).collect()
    }
}

/// What the double told in `folder` of each process that used it.
pub(super) fn of_processes<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, String> {
    let told = listed(folder)?.into_iter().filter(|file| ends_with(file, "json"));
    told.map(|file| {
        serde_json::from_str(&read(&file)?).map_err(|error| format!("{}: {error}", file.display()))
    })
    .collect()
}

/// How much more than before is no growth: launches repeat, waits and what kernels are told differ by a few.
fn slack(before: u64) -> u64 {
    before / 100 + 4
}

impl StepCounts {
    /// Prints the counts; whether none is above that of `file`. `BLIP2_BLESS=1` writes the file anew.
    pub(crate) fn compare(&self, file: &Path) -> Result<bool, String> {
        let line = |stage: u32, counts: &Counts| {
            println!(
                "| {stage} | {} | {} | {} | {} in {} | {} in {} | {} in {} |",
                counts.launches,
                counts.waits,
                counts.allocations,
                counts.to_device.bytes,
                counts.to_device.copies,
                counts.to_host.bytes,
                counts.to_host.copies,
                counts.on_device.bytes,
                counts.on_device.copies,
            );
        };
        println!(
            "| stage | launches | waits | allocations | bytes to the device | bytes to the host | bytes on the device |\n\
             |---|---|---|---|---|---|---|"
        );
        line(1, &self.stage1);
        line(2, &self.stage2);
        if std::env::var_os("BLIP2_BLESS").is_some() {
            let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
            write(file, &(text + "\n"))?;
            return Ok(true);
        }
        let text = read(file)?;
        let before: Self =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut passed = true;
        for (stage, now, before) in [(1, &self.stage1, &before.stage1), (2, &self.stage2, &before.stage2)] {
            for grown in now.grown(before) {
                eprintln!("FAILED a step of stage {stage} asks more of the driver: {grown}");
                passed = false;
            }
        }
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(launches: u64, bytes: u64) -> Counts {
        Counts { launches, to_host: Copies { copies: 1, bytes }, ..Counts::default() }
    }

    #[test]
    fn a_step_is_the_difference_of_two_runs() {
        let folder = tempfile::tempdir().unwrap();
        for (name, launches) in [("1.json", 7), ("2.json", 3)] {
            let text = serde_json::to_string(&counts(launches, 100)).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let long = Counts::of_run(folder.path()).unwrap();
        assert_eq!((long.launches, long.to_host.bytes), (10, 200));
        let step = long.beyond(&counts(4, 100), 2).unwrap();
        assert_eq!((step.launches, step.to_host.bytes), (3, 50));
        assert!(counts(1, 1).beyond(&counts(2, 1), 2).is_err());
        let lucky = Counts { allocations: 14, ..long };
        let step = lucky.beyond(&Counts { allocations: 15, ..counts(4, 100) }, 2).unwrap();
        assert_eq!((step.launches, step.allocations), (3, 0));
        assert!(Counts::of_run(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn what_grows_is_named_and_what_shrinks_is_not() {
        let before = counts(1000, 500);
        assert_eq!(counts(1014, 10).grown(&before), Vec::<String>::new());
        assert_eq!(counts(1015, 509).grown(&before), ["launches: 1015, were 1000"]);
    }
}
