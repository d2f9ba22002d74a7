//! What the system says of this process.

/// Bytes of a page as the system counts them in `statm` on the machines that are built for.
const PAGE: u64 = 4096;

/// Bytes of memory that this process holds; `None` where the system does not say.
pub fn resident_memory_bytes() -> Option<u64> {
    pages_held(&std::fs::read_to_string("/proc/self/statm").ok()?).map(|pages| pages * PAGE)
}

/// The most bytes of memory that this process has held; `None` where the system does not say.
pub fn peak_memory_bytes() -> Option<u64> {
    peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The high-water mark of a `status` file, in bytes.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The second number of a `statm` line.
fn pages_held(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_pages_are_the_second_number() {
        assert_eq!(pages_held("5000 1200 300 1 0 900 0\n"), Some(1200));
        assert_eq!(pages_held(""), None);
        assert!(resident_memory_bytes().is_none_or(|bytes| bytes > 100_000));
    }

    #[test]
    fn the_peak_is_what_the_system_calls_the_high_water_mark() {
        assert_eq!(peak("VmPeak:\t 9 kB\nVmHWM:\t   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(peak("VmPeak:\t 9 kB\n"), None);
    }
}
