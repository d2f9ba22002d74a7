//! Decoders of foreign bytes meet what is nearly right, and neither panic, hang nor hold more memory than
//! they may.
//!
//! Each decoder runs in a process of its own, so that one that aborts or overflows its stack is seen too. The
//! inputs are the same in every run; `BLIP2_DECODE_SEED` makes others, `BLIP2_DECODE_SECONDS` lets each
//! decoder go on for longer.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use blip2_tests::decoders::{DECODERS, Decoder, decoder, seeds};
use blip2_tests::mutation::Mutator;
use blip2_tests::process::{Ended, start};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The message of the last panic.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Inputs that each decoder gets, if they do not take too long.
const EXECUTIONS: u64 = 12_000;
/// Seconds after which a decoder gets no further inputs.
const SECONDS: u64 = 3;
/// No input takes longer.
const LONGEST: Duration = Duration::from_secs(3);
/// A process that is silent for this long after its time hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a failing input that are shown.
const SHOWN: usize = 256;

const SEED: &str = "BLIP2_DECODE_SEED";
const TIME: &str = "BLIP2_DECODE_SECONDS";
/// `NAME:FILE`: the one input that `replay` takes.
const REPLAY: &str = "BLIP2_DECODE";
/// Name of the decoder that a child process runs.
const CHILD: &str = "BLIP2_DECODE_CHILD";
/// File into which a child writes each input before it is decoded.
const TRACE: &str = "BLIP2_DECODE_TRACE";

/// What the program's own encoders write is kept, and taken (or refused) as it should be.
#[test]
fn kept_inputs_are_those_of_the_encoders() {
    if std::env::var_os("BLIP2_BLESS").is_some() {
        DECODERS.iter().for_each(|decoder| seeds::bless(decoder.name));
    }
    for decoder in &DECODERS {
        let kept = seeds::kept(decoder.name);
        for seed in seeds::encoded(decoder.name) {
            let (name, seed_name) = (decoder.name, &seed.name);
            assert_eq!((decoder.decode)(&seed.bytes), seed.taken, "{name}: {seed_name} of the encoders");
            let found = kept.iter().find(|(path, _)| path.ends_with(seed_name));
            let (path, bytes) =
                found.unwrap_or_else(|| panic!("{name}: {seed_name} is not kept; BLIP2_BLESS=1 writes it"));
            assert_eq!((decoder.decode)(bytes), seed.taken, "{} is of no use now", path.display());
        }
    }
}

#[test]
fn mutated_inputs_are_refused_or_taken_and_nothing_else() {
    let queue = Mutex::new(DECODERS.iter());
    let failures = Mutex::new(Vec::new());
    let work = || {
        // A statement of its own, so that the lock is not held meanwhile.
        while let Some(decoder) = { lock(&queue).next() } {
            if let Err(failure) = in_a_process(decoder) {
                lock(&failures).push(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = lock(&failures);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs what [`REPLAY`] names; nothing without it.
#[test]
fn replay() {
    let Some(place) = std::env::var_os(REPLAY) else { return };
    let place = place.into_string().expect("NAME:FILE in UTF-8");
    let (name, path) = place.split_once(':').expect("NAME:FILE");
    let decoder = decoder(name).unwrap_or_else(|| panic!("{name}: no such decoder"));
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let began = Instant::now();
    let memory = measured(|| println!("{name}: taken: {}", (decoder.decode)(&bytes)));
    println!("{name}: {memory} bytes held at most, {:?}", began.elapsed());
    assert!(memory <= decoder.memory, "{memory} bytes are more than {}", decoder.memory);
}

/// One decoder's inputs, in a process that the test above starts.
#[test]
#[ignore = "a child process of the test of mutated inputs"]
fn child() {
    let name = std::env::var(CHILD).expect("the decoder's name");
    let decoder = decoder(&name).expect("a decoder of that name");
    let trace = std::env::var_os(TRACE).map(PathBuf::from);
    let kept: Vec<Vec<u8>> = seeds::kept(&name).into_iter().map(|(_, bytes)| bytes).collect();
    let mut mutator = Mutator::new(number(SEED, 1), &name, &kept, decoder.words);
    // Decoders catch panics of others' code below them; only one that escapes is a fault.
    std::panic::set_hook(Box::new(|info| *lock(&PANIC) = info.to_string()));
    let asked_for = std::env::var_os(TIME).is_some();
    let end = Instant::now() + Duration::from_secs(number(TIME, SECONDS));
    let whole = kept.iter().cloned();
    let mut count = 0u64;
    for bytes in whole.chain(std::iter::from_fn(|| Some(mutator.make()))) {
        if (count >= EXECUTIONS && !asked_for) || Instant::now() >= end {
            break;
        }
        count += 1;
        if let Some(path) = &trace {
            std::fs::write(path, &bytes).expect("the trace can be written");
        }
        if let Err(fault) = held_to_its_bounds(decoder, &bytes) {
            let _ = std::panic::take_hook();
            panic!("{}", told(&name, &fault, &bytes));
        }
    }
    println!("{CHILD} {count} inputs");
}

fn held_to_its_bounds(decoder: &Decoder, bytes: &[u8]) -> Result<(), String> {
    let began = processor_time();
    let mut outcome = Ok(false);
    let memory = measured(|| outcome = catch_unwind(AssertUnwindSafe(|| (decoder.decode)(bytes))));
    if outcome.is_err() {
        return Err(lock(&PANIC).clone());
    }
    if memory > decoder.memory + bytes.len() {
        return Err(format!("it holds {memory} bytes, {} at most", decoder.memory));
    }
    let time = processor_time().saturating_sub(began);
    if time > LONGEST { Err(format!("it takes {time:?}")) } else { Ok(()) }
}

/// What this process has computed so far: unlike the clock's time it does not grow while others compute.
fn processor_time() -> Duration {
    // In nanoseconds, of all threads that are alive.
    let nanoseconds = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let threads = std::fs::read_dir("/proc/self/task").expect("this system has /proc");
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        nanoseconds(&std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?)
    };
    Duration::from_nanos(threads.filter_map(of_thread).sum())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with it")
}

/// Bytes that the work holds at most, beyond those held before.
fn measured(work: impl FnOnce()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    work();
    MEMORY.peak_usage().saturating_sub(before)
}

/// Runs a decoder's inputs in a child process; how it failed.
fn in_a_process(decoder: &Decoder) -> Result<(), String> {
    let name = decoder.name;
    match run_child(name, None) {
        Ok(ended) if ended.code == Some(0) => {
            let counted = ended.stdout.split(CHILD).nth(1).and_then(|rest| rest.lines().next());
            println!("{name}:{}", counted.unwrap_or_default());
            return Ok(());
        }
        Ok(ended) if ended.stdout.contains(REPLAY) || ended.stderr.contains(REPLAY) => {
            return Err(format!("{}\n{}", ended.stdout, ended.stderr));
        }
        _ => {}
    }
    // It aborted or hangs: once more, writing down each input before it is decoded.
    let trace = failures().join(format!("{name}-last"));
    let ended = run_child(name, Some(&trace));
    let bytes = std::fs::read(&trace).unwrap_or_default();
    let fault = match ended {
        Ok(ended) => format!("its process ends with {:?}: {}", ended.code, ended.stderr),
        Err(silent) => silent,
    };
    Err(told(name, &fault, &bytes))
}

fn run_child(name: &str, trace: Option<&Path>) -> Result<Ended, String> {
    let mut command = Command::new(std::env::current_exe().expect("the test executable has a path"));
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads", "1"]).env(CHILD, name);
    if let Some(path) = trace {
        command.env(TRACE, path);
    }
    let patience = Duration::from_secs(number(TIME, SECONDS)) + PATIENCE;
    start(command).wait_within(patience).map_err(|_| format!("it hangs for {patience:?}"))
}

/// The fault, the input, where it was put, and how to run it again.
fn told(name: &str, fault: &str, bytes: &[u8]) -> String {
    let path = failures().join(format!("{name}-{}-bytes", bytes.len()));
    let kept = std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes));
    let mut shown = String::new();
    for byte in bytes.iter().take(SHOWN) {
        // Writing to text cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!(
        "{name}: {fault}\ninput ({} bytes{}): {shown}{more}\n\
         {REPLAY}={name}:{} cargo test --release -p blip2-tests --test decoders replay -- --exact --nocapture",
        bytes.len(),
        if kept.is_ok() { "" } else { ", not written down" },
        path.display()
    )
}

/// Where failing inputs are put.
fn failures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decoders");
    std::fs::create_dir_all(&folder).expect("a folder for failing inputs");
    folder
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => otherwise,
    }
}
