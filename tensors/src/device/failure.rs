//! What a card's driver says when it fails.
//!
//! burn and cubecl hand a driver's error on as text: of a panic, on the thread that asked or on the card's
//! own, or of an error that a read returns. This tells by the text what happened.

use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

/// What kind of trouble it is, which decides what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceTrouble {
    /// The card's memory is full.
    Memory,
    /// A kernel failed: this process cannot use the card any more, another one may.
    Fault,
    /// The card or its driver does not work.
    Card,
    /// The driver does not take the program's kernels.
    Kernels,
    /// Another error of the driver.
    Other,
}

/// A failure of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFailure {
    /// What kind of trouble it is.
    pub trouble: DeviceTrouble,
    /// The line in which the driver, or the memory's manager, said it.
    pub said: String,
}

use DeviceTrouble::{Card, Fault, Kernels, Memory, Other};

/// Statuses of the CUDA driver: number, name, trouble.
const STATUSES: [(u32, &str, DeviceTrouble); 28] = [
    (2, "CUDA_ERROR_OUT_OF_MEMORY", Memory),
    (3, "CUDA_ERROR_NOT_INITIALIZED", Card),
    (4, "CUDA_ERROR_DEINITIALIZED", Card),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE", Card),
    (100, "CUDA_ERROR_NO_DEVICE", Card),
    (101, "CUDA_ERROR_INVALID_DEVICE", Card),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", Kernels),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE", Card),
    (218, "CUDA_ERROR_INVALID_PTX", Kernels),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", Card),
    (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", Kernels),
    (226, "CUDA_ERROR_CONTAINED", Card),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS", Fault),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", Kernels),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT", Fault),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", Fault),
    (710, "CUDA_ERROR_ASSERT", Fault),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR", Fault),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", Fault),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS", Fault),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", Fault),
    (718, "CUDA_ERROR_INVALID_PC", Fault),
    (719, "CUDA_ERROR_LAUNCH_FAILED", Fault),
    (721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", Fault),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY", Card),
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", Card),
    (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", Kernels),
    (999, "CUDA_ERROR_UNKNOWN", Card),
];

/// What cubecl and wgpu say in words of their own.
const WORDS: [(&str, DeviceTrouble); 10] = [
    ("out of device memory allocating", Memory),
    ("An out-of-memory error happened during launch", Memory),
    ("can't allocate buffer of size", Memory),
    ("every page size the memory tracks still holds live allocations", Memory),
    ("couldn't map storage for a deferred allocation", Memory),
    ("Not enough memory left", Memory),
    ("device is lost", Card),
    ("Device is lost", Card),
    ("The device is poisoned", Fault),
    ("The device was poisoned during launch", Fault),
];

/// What a thread says that panics because another one has.
const SECOND_HAND: [&str; 6] = [
    "a scoped thread panicked",
    "channel disconnected",
    "PoisonError",
    "RecvError",
    "SendError",
    "torn down before it could say what went wrong",
];

/// What a status that is not in the table begins with.
const NAME: &str = "CUDA_ERROR_";
/// How cubecl names the function of the driver that failed, and its status.
const STATUS: &str = " failed with status ";

/// The failure that `text` tells of, if it is one of a card: the text of a panic, or of an error.
pub fn recognised(text: &str) -> Option<DeviceFailure> {
    // What was written with its quotes has its ends of lines as two letters.
    let text = &text.replace("\\n", "\n");
    // A fault is told with the poisoning it is: the driver's own word on it says more.
    by_words(text, |trouble| trouble == Memory)
        .or_else(|| by_name(text))
        .or_else(|| by_status(text))
        .or_else(|| by_words(text, |trouble| trouble != Memory))
}

fn by_words(text: &str, is_meant: impl Fn(DeviceTrouble) -> bool) -> Option<DeviceFailure> {
    let (words, trouble) =
        WORDS.iter().filter(|(_, trouble)| is_meant(*trouble)).find(|(words, _)| text.contains(words))?;
    Some(DeviceFailure { trouble: *trouble, said: line_with(text, words) })
}

fn by_name(text: &str) -> Option<DeviceFailure> {
    let at = text.find(NAME)?;
    let is_of_name = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    let name: String = text[at..].chars().take_while(|letter| is_of_name(*letter)).collect();
    let known = STATUSES.iter().find(|(_, known, _)| *known == name);
    Some(DeviceFailure {
        trouble: known.map_or(Other, |(.., trouble)| *trouble),
        said: line_with(text, &name),
    })
}

fn by_status(text: &str) -> Option<DeviceFailure> {
    let (called, number) = text.lines().find_map(status_in)?;
    Some(match STATUSES.iter().find(|(known, ..)| *known == number) {
        Some((_, name, trouble)) => {
            DeviceFailure { trouble: *trouble, said: format!("{called}{STATUS}{number} ({name})") }
        }
        None => DeviceFailure { trouble: Other, said: format!("{called}{STATUS}{number}") },
    })
}

/// The function of the driver that a line says has failed, and its status.
fn status_in(line: &str) -> Option<(&str, u32)> {
    let (before, after) = line.split_once(STATUS)?;
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let called = before.rsplit(|letter| !is_of_name(letter)).next()?;
    let digits = after.split(|letter: char| !letter.is_ascii_digit()).next()?;
    let is_the_drivers = called.starts_with("cu") || called.starts_with("mem");
    Some((called, digits.parse().ok()?)).filter(|_| is_the_drivers)
}

fn line_with(text: &str, part: &str) -> String {
    let line = text.lines().find(|line| line.contains(part)).unwrap_or(part).trim();
    // What `unwrap` puts before it says nothing.
    line.rsplit_once("on an `Err` value: ").map_or(line, |(_, said)| said).to_owned()
}

impl DeviceFailure {
    /// What to do about it; `less` says how to compute less at a time.
    pub fn advice(&self, less: &str) -> String {
        let remedy = self.trouble.remedy();
        match self.trouble {
            Memory => format!("{less}; {remedy}"),
            _ => remedy.to_owned(),
        }
    }
}

impl DeviceTrouble {
    /// What to do about it, beside computing less at a time.
    pub fn remedy(self) -> &'static str {
        match self {
            Memory => "see with nvidia-smi whether other processes hold the card's memory",
            Fault => {
                "this process cannot use the card any more; a new one may: if that fails on the same card too, look for \
                 Xid in the kernel's log (dmesg) and take the card out of use"
            }
            Card => {
                "look at nvidia-smi and for Xid in the kernel's log (dmesg); the card may need a reset or a repair"
            }
            Kernels => {
                "the driver is too old for this program, or the card is; docs/devices.md has the versions"
            }
            Other => "look for Xid in the kernel's log (dmesg)",
        }
    }
}

impl fmt::Display for DeviceTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Memory => "out of memory",
            Fault => "a kernel failed",
            Card => "the card does not work",
            Kernels => "the driver does not take this program's kernels",
            Other => "the driver failed",
        })
    }
}

impl fmt::Display for DeviceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.trouble, self.said)
    }
}

/// The first failure of a card that a panic of this process told of.
static FIRST: Mutex<Option<DeviceFailure>> = Mutex::new(None);

/// Notes the first panic, of whatever thread, that tells of a card's failure: those after it, on other
/// threads, only say that somebody else has panicked. Call it once, when the process begins.
pub fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        note(panic);
        before(panic);
    }));
}

fn note(panic: &PanicHookInfo<'_>) {
    if let Some(failure) = panic.payload_as_str().and_then(recognised) {
        FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// The failure that a panic with this text is due to: its own, or, where the text says that another thread
/// has panicked, the first one that a thread of this process met.
pub fn behind(text: &str) -> Option<DeviceFailure> {
    let first = || FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    recognised(text).or_else(|| SECOND_HAND.iter().any(|words| text.contains(words)).then(first).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as cudarc 0.19.10, cubecl 0.11.3, burn 0.22.1 and wgpu 30 write them.
    #[test]
    fn what_the_driver_says_is_told_apart() {
        for (text, trouble, said) in [
            (
                "Error while reading data: use `try_into_data` instead to catch the error at runtime: DevicePoisoned { \
                 reason: \"cuEventSynchronize failed with status 700\" }",
                Fault,
                "(CUDA_ERROR_ILLEGAL_ADDRESS)",
            ),
            (
                "called `Result::unwrap()` on an `Err` value: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                Memory,
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            ),
            (
                "An IO error happened\nCaused by:\n  out of device memory allocating 1073741824 bytes\n   0: std::back",
                Memory,
                "out of device memory allocating 1073741824 bytes",
            ),
            (
                "The bytes were never written (failure #3, still claiming 1 buffer(s))\n  matmul\nCaused by:\n  An IO \
                 error happened\nCaused by:\n  can't allocate buffer of size: 99\nAsked at:\n",
                Memory,
                "can't allocate buffer of size: 99",
            ),
            (
                "Error while reading data: use `try_into_data` instead to catch the error at runtime: WithContext { \
                 reason: \"An IO error happened\\nCaused by:\\n  out of device memory allocating 4096 bytes\\n  0: a\" }",
                Memory,
                "out of device memory allocating 4096 bytes",
            ),
            (
                "A launch error happened\nCaused by:\n  The device was poisoned during launch\nCaused by:\n  \
                 cuLaunchKernel failed with status 719\nBacktrace:\n",
                Fault,
                "cuLaunchKernel failed with status 719 (CUDA_ERROR_LAUNCH_FAILED)",
            ),
            ("The device is poisoned\nCaused by:\n  trap\nBacktrace:\n", Fault, "The device is poisoned"),
            (
                "An unknown error happened during launch\nCaused by:\n  DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \
                 \"uncorrectable ECC error encountered\")\nBacktrace\n",
                Card,
                "CUDA_ERROR_ECC_UNCORRECTABLE",
            ),
            (
                "a stream could not be created: An error happened during execution\nCaused by:\n  cuStreamCreate failed \
                 with status 46\nBacktrace:\n",
                Card,
                "cuStreamCreate failed with status 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)",
            ),
            ("memcpy_dtod_async failed with status 2", Memory, "(CUDA_ERROR_OUT_OF_MEMORY)"),
            (
                "called `Result::unwrap()` on an `Err` value: DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"the \
                 provided PTX was compiled with an unsupported toolchain.\")",
                Kernels,
                "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            ),
            (
                "An IO error happened\nCaused by:\n  CUDA allocation error: DriverError(CUDA_ERROR_NEW_IN_14, \"new\")",
                Other,
                "CUDA_ERROR_NEW_IN_14",
            ),
            ("cuGraphUpload failed with status 12345", Other, "cuGraphUpload failed with status 12345"),
            (
                "wgpu error: Validation Error\n\nCaused by:\n  Parent device is lost\n",
                Card,
                "Parent device is lost",
            ),
            ("Error in Queue::submit: Not enough memory left.", Memory, "Not enough memory left."),
        ] {
            let failure = recognised(text).unwrap_or_else(|| panic!("not recognised: {text}"));
            assert_eq!(failure.trouble, trouble, "{text}");
            assert!(failure.said.contains(said) && !failure.said.contains('\n'), "{failure}");
        }
    }

    #[test]
    fn other_panics_are_none_of_a_card() {
        for text in [
            "index out of bounds: the len is 3 but the index is 7",
            "out of memory",
            "the task failed with status 2",
            "a scoped thread panicked",
            "",
        ] {
            assert_eq!(recognised(text), None, "{text}");
        }
    }

    #[test]
    fn the_statuses_are_in_order_and_named_once() {
        assert!(STATUSES.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        assert!(STATUSES.iter().all(|(_, name, _)| name.starts_with(NAME)));
    }

    #[test]
    fn a_panic_on_another_thread_is_remembered() {
        watch_panics();
        let panics = || {
            panic!("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")")
        };
        assert!(std::thread::spawn(panics).join().is_err());
        assert_eq!(behind("index out of bounds: the len is 3"), None);
        assert_eq!(behind("a scoped thread panicked").map(|failure| failure.trouble), Some(Fault));
        assert_eq!(
            behind("out of device memory allocating 5 bytes").map(|failure| failure.trouble),
            Some(Memory)
        );
    }
}
