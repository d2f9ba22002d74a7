//! Whether this machine has the memory, the disk and the limits that a run needs.

use std::path::{Path, PathBuf};

use crate::check::{Check, Finding};

/// Files that a process has open beside its connections.
const OWN_FILES: u64 = 128;
/// Connections and files that a worker may have with each other member.
const FILES_OF_A_MEMBER: u64 = 8;
/// A container's `/dev/shm` where nobody asked for more.
const SMALL_SHARED_MEMORY: u64 = 65 << 20;

const MEMORY: Check = Check {
    name: "memory",
    asks: "is there the memory that blip2 plan computes for this machine's workers?",
    remedy: "fewer workers on this machine, train.overlap = false, a smaller loader.prefetch_bytes, or more memory (for a \
             container: its limit)",
};
const DISK: Check = Check {
    name: "disk",
    asks: "is there room for checkpoints and caches on this machine?",
    remedy: "free some, name another folder in run.root or loader.disk_cache, or lower checkpoint.keep or \
             loader.disk_cache_bytes",
};
const DESCRIPTORS: Check = Check {
    name: "open files",
    asks: "may a process have as many files and connections open as a run of so many workers needs?",
    remedy: "raise the hard limit (ulimit -Hn, LimitNOFILE of a service, limits.conf)",
};
const SHARED_MEMORY: Check = Check {
    name: "/dev/shm",
    asks: "is there memory that processes of this machine share?",
    remedy: "blip2 needs none, CUDA's processes may: docker run --shm-size=1g, or an emptyDir of medium Memory at /dev/shm",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&MEMORY, &DISK, &DESCRIPTORS, &SHARED_MEMORY];

/// What a system says of itself.
pub struct Machine {
    /// Its variables.
    pub environment: Vec<(String, String)>,
    /// Bytes that processes may still take.
    pub available: Option<u64>,
    /// Files that a process may have open.
    pub open_files: u64,
    /// Bytes that a disk has room for, by a path on it.
    pub room: fn(&Path) -> Option<u64>,
    /// Where shared memory is.
    pub shared: PathBuf,
}

impl Machine {
    /// The one that this process runs on.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let limit = || {
            let (most, used) = (read("/sys/fs/cgroup/memory.max")?, read("/sys/fs/cgroup/memory.current")?);
            most.trim().parse::<u64>().ok()?.checked_sub(used.trim().parse().ok()?)
        };
        let free = read("/proc/meminfo").and_then(|text| available(&text));
        Self {
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            available: free.map(|free| limit().map_or(free, |limit| limit.min(free))),
            // Raised to the hard limit when the program began.
            open_files: rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::from(u16::MAX)),
            room,
            shared: PathBuf::from("/dev/shm"),
        }
    }

    /// Against the bytes that the workers of this machine take, or why they are not known.
    pub fn memory(&self, needed: Result<f64, &str>) -> Finding {
        let Some(available) = self.available else { return MEMORY.yellow("this system does not say") };
        let words = format!("{:.1} GB are free", available as f64 / 1e9);
        match needed {
            Err(reason) => MEMORY.yellow(format!("{words}; what a run takes is not known: {reason}")),
            Ok(needed) => {
                let words = format!("{words}; this machine's workers take {:.1} GB by plan", needed / 1e9);
                if needed > available as f64 { MEMORY.red(words) } else { MEMORY.green(words) }
            }
        }
    }

    /// Of folders of this machine, each with the bytes that something takes there and what it is.
    pub fn disk(&self, places: &[(PathBuf, f64, &str)]) -> Finding {
        let mut looked = Vec::new();
        for (folder, needed, what) in places {
            let Some(room) = (self.room)(folder) else {
                return DISK
                    .yellow(format!("{}: this system does not say what room is left", folder.display()));
            };
            let words = format!(
                "{}: room for {:.1} GB, {what} take {:.1} GB",
                folder.display(),
                room as f64 / 1e9,
                needed / 1e9
            );
            if (room as f64) < *needed {
                return DISK.red(words);
            }
            looked.push(words);
        }
        match looked.is_empty() {
            true => DISK.green("the run and its caches are not on this machine's disk"),
            false => DISK.green(looked.join("; ")),
        }
    }

    /// Against a run of at most so many members, with so many reads of a loader at a time.
    pub fn descriptors(&self, members: u64, reads: u64) -> Finding {
        let needed = OWN_FILES + FILES_OF_A_MEMBER * members + reads;
        let words = format!("{} may be open, {needed} are needed", self.open_files);
        if self.open_files < needed { DESCRIPTORS.red(words) } else { DESCRIPTORS.green(words) }
    }

    /// Whether it is there, and larger than a container's.
    pub fn shared_memory(&self) -> Finding {
        let shown = self.shared.display();
        if !self.shared.is_dir() {
            return SHARED_MEMORY.red(format!("{shown} is no folder"));
        }
        match (self.room)(&self.shared) {
            Some(room) if room < SMALL_SHARED_MEMORY => {
                SHARED_MEMORY.yellow(format!("{shown} has room for {} MB", room / 1_000_000))
            }
            Some(room) => SHARED_MEMORY.green(format!("{shown} has room for {:.1} GB", room as f64 / 1e9)),
            None => SHARED_MEMORY.yellow(format!("{shown}: this system does not say what room is left")),
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Room on the disk of a folder, or of the nearest one above it that is there.
fn room(folder: &Path) -> Option<u64> {
    let folder = std::path::absolute(folder).ok()?;
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    fn machine() -> Machine {
        Machine {
            environment: Vec::new(),
            available: Some(64 << 30),
            open_files: 1024,
            room: |_| Some(100_000_000_000),
            shared: std::env::temp_dir(),
        }
    }

    #[test]
    fn memory_is_compared_with_what_is_needed() {
        let state = |available, needed| Machine { available, ..machine() }.memory(needed).state;
        assert_eq!(state(Some(8_000_000_000), Ok(7e9)), State::Green);
        assert_eq!(state(Some(8_000_000_000), Ok(9e9)), State::Red);
        assert_eq!(state(None, Ok(1.0)), State::Yellow);
        assert_eq!(state(Some(1), Err("no plan")), State::Yellow);
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    12 kB\n"), Some(12 * 1024));
    }

    #[test]
    fn disks_need_room_for_checkpoints_and_caches() {
        let small = Machine { room: |_| Some(1_000_000_000), ..machine() };
        let places = [(PathBuf::from("/runs/mine"), 9.02e9, "checkpoints")];
        assert_eq!(machine().disk(&places).state, State::Green);
        let found = small.disk(&places);
        assert!(found.state == State::Red && found.found.contains("checkpoints take 9.0 GB"), "{found:?}");
        assert_eq!(small.disk(&[]).state, State::Green);
        let both = [places[0].clone(), (PathBuf::from("/scratch"), 2e11, "the cache")];
        assert!(machine().disk(&both).found.contains("/scratch"));
        let silent = Machine { room: |_| None, ..machine() };
        assert_eq!(silent.disk(&places).state, State::Yellow);
        assert!(room(Path::new("/nothing/like/this")).is_some_and(|room| room > 0));
    }

    #[test]
    fn a_run_of_many_needs_many_files() {
        assert_eq!(machine().descriptors(16, 8).state, State::Green);
        assert_eq!(machine().descriptors(1000, 8).state, State::Red);
    }

    #[test]
    fn shared_memory_is_looked_for() {
        assert_eq!(machine().shared_memory().state, State::Green);
        let small = Machine { room: |_| Some(64 << 20), ..machine() };
        assert_eq!(small.shared_memory().state, State::Yellow);
        let none = Machine { shared: "/nothing".into(), ..machine() };
        assert_eq!(none.shared_memory().state, State::Red);
    }
}
