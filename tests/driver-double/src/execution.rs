//! A launch on the host: block after block, and of each block thread after thread, each as far as it comes
//! without the others.
//!
//! What a card leaves open is chosen so that a mistake shows: shared memory begins as numbers that are none,
//! and threads and blocks may run in reverse, which changes no result of a kernel that waits where it must.

#![expect(clippy::disallowed_macros, reason = "a library under a foreign name has no log")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_uint, c_void};
use std::ptr::null_mut;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::program::Code;
use crate::record::record;
use crate::settings::SETTINGS;

const LANES: usize = 32;
/// Of a thread that waits for others: registers that the compiler spills, and calls of mathematics.
const STACK_BYTES: usize = 256 << 10;
/// Shared memory of a block lies at a multiple of it.
const SHARED_ALIGNMENT: usize = 1024;
/// Fills what no thread has written yet: no number in float32 or bf16.
const UNWRITTEN: u8 = 0xff;

/// The sizes of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch {
    pub(crate) blocks: [c_uint; 3],
    pub(crate) threads: [c_uint; 3],
    pub(crate) shared_bytes: c_uint,
}

/// Operands of a matrix product, as `struct fragments` of `machine.h`.
#[repr(C)]
#[derive(Clone)]
struct Fragments {
    a: [f32; LANES * 16],
    b: [f32; LANES * 16],
}

/// A thread of the card, as `struct thread` of `machine.h`; what follows `fault` only the host knows.
#[repr(C)]
#[derive(Clone)]
struct Thread {
    tid: [u32; 3],
    ctaid: [u32; 3],
    ntid: [u32; 3],
    nctaid: [u32; 3],
    lane: u32,
    shared_bytes: u32,
    shared: u64,
    start: u64,
    end: u64,
    fragments: *mut Fragments,
    wait: extern "C" fn(*mut Thread, u32),
    find: extern "C" fn(*mut Thread, u64, u64),
    fault: extern "C" fn(*const Thread, *const c_char, u64, u64),
    yielder: *const Yielder<(), Wait>,
    launched: *const Launched,
}

impl Thread {
    /// Takes the place of number `index` among the threads of its block.
    fn become_number(&mut self, index: usize) {
        self.tid = place(index, self.ntid);
        self.lane = (index % LANES) as u32;
    }
}

/// What all threads of a launch share.
struct Launched {
    code: Code,
    /// Where the card's memory is, from start to end, in order.
    memory: Vec<(u64, u64)>,
}

/// For whom a thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Block,
    Warp,
}

/// Where a thread of a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Waits(Wait),
    Done,
}

type Running = Coroutine<(), Wait, (), DefaultStack>;

thread_local! {
    /// Stacks of threads that have ended, for those to come.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// Runs a kernel to its end.
///
/// # Safety
/// `parameters` are the addresses of all that the kernel takes.
pub(crate) unsafe fn run(code: &Code, launch: Launch, parameters: *mut *mut c_void) {
    if code.kernel.threads.is_some_and(|threads| threads != launch.threads) {
        stop(
            code,
            &format!("takes {:?} threads, was launched with {:?}", code.kernel.threads, launch.threads),
        );
    }
    let mut shared = Shared::new(launch.shared_bytes as usize);
    let mut memory: Vec<_> = record().memory().map(|(start, end)| (start as u64, end as u64)).collect();
    memory.push(code.constants);
    memory.sort_unstable();
    let launched = Launched { code: code.clone(), memory };
    let first = Thread {
        tid: [0; 3],
        ctaid: [0; 3],
        ntid: launch.threads,
        nctaid: launch.blocks,
        lane: 0,
        shared_bytes: launch.shared_bytes,
        shared: shared.address(),
        start: 0,
        end: 0,
        fragments: null_mut(),
        wait,
        find,
        fault,
        yielder: std::ptr::null(),
        launched: &raw const launched,
    };
    for block in in_order(number(launch.blocks)) {
        shared.forget();
        let first = Thread { ctaid: place(block, launch.blocks), ..first.clone() };
        // SAFETY: the caller's.
        unsafe {
            if code.kernel.waits {
                run_together(code, &first, parameters);
            } else {
                run_alone(code, first, parameters);
            }
        }
    }
}

/// A block whose threads need nothing of each other.
///
/// # Safety
/// As for [`run`].
unsafe fn run_alone(code: &Code, mut thread: Thread, parameters: *mut *mut c_void) {
    for index in in_order(number(thread.ntid)) {
        thread.become_number(index);
        // SAFETY: the caller's.
        unsafe { (code.entry)((&raw mut thread).cast(), parameters) };
    }
}

/// A block whose threads wait for each other: each has a stack of its own.
///
/// # Safety
/// As for [`run`].
unsafe fn run_together(code: &Code, first: &Thread, parameters: *mut *mut c_void) {
    let count = number(first.ntid);
    let mut fragments = vec![Fragments { a: [0.0; LANES * 16], b: [0.0; LANES * 16] }; count.div_ceil(LANES)];
    let mut threads = vec![first.clone(); count];
    for (index, thread) in threads.iter_mut().enumerate() {
        thread.become_number(index);
        thread.fragments = &raw mut fragments[index / LANES];
    }
    let started = |thread: &mut Thread| -> Running {
        let (entry, thread) = (code.entry, std::ptr::from_mut(thread));
        Coroutine::with_stack(stack(code), move |yielder, ()| {
            // SAFETY: the thread outlives its coroutine, and only this one uses it; the parameters are the
            // caller's.
            unsafe {
                (*thread).yielder = yielder;
                entry(thread.cast(), parameters);
            }
        })
    };
    let mut running: Vec<Running> = threads.iter_mut().map(started).collect();
    let mut states = vec![State::Ready; count];
    while !states.iter().all(|state| *state == State::Done) {
        for (running, states) in running.chunks_mut(LANES).zip(states.chunks_mut(LANES)) {
            run_warp(code, running, states);
        }
        // Those that have ended are not waited for.
        for state in &mut states {
            if *state == State::Waits(Wait::Block) {
                *state = State::Ready;
            }
        }
    }
    STACKS.with_borrow_mut(|stacks| stacks.extend(running.into_iter().map(Coroutine::into_stack)));
}

/// Runs the lanes of a warp until each waits for the block or has ended.
fn run_warp(code: &Code, running: &mut [Running], states: &mut [State]) {
    loop {
        for lane in in_order(states.len()) {
            if states[lane] == State::Ready {
                states[lane] = match running[lane].resume(()) {
                    CoroutineResult::Yield(wait) => State::Waits(wait),
                    CoroutineResult::Return(()) => State::Done,
                };
            }
        }
        let at = |wait| states.iter().filter(|state| **state == State::Waits(wait)).count();
        match (at(Wait::Block), at(Wait::Warp)) {
            (_, 0) => return,
            (0, _) => {}
            (block, warp) => stop(
                code,
                &format!("{block} lanes of a warp wait for the block and {warp} for the warp: no end of it"),
            ),
        }
        for state in states.iter_mut().filter(|state| **state == State::Waits(Wait::Warp)) {
            *state = State::Ready;
        }
    }
}

fn stack(code: &Code) -> DefaultStack {
    STACKS
        .with_borrow_mut(Vec::pop)
        .or_else(|| DefaultStack::new(STACK_BYTES).ok())
        .unwrap_or_else(|| stop(code, "no memory for the stack of a thread"))
}

/// Numbers below `count`, forwards or in reverse as the settings say.
fn in_order(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| if SETTINGS.reversed { count - 1 - index } else { index })
}

fn number(sizes: [u32; 3]) -> usize {
    sizes.iter().map(|size| *size as usize).product()
}

/// Where number `index` lies in a box of those sizes, whose first axis changes fastest.
fn place(index: usize, sizes: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = sizes.map(|size| size as usize);
    [index % x, index / x % y, index / (x * y)].map(|at| at as u32)
}

/// Shared memory of one block after the other.
struct Shared {
    memory: Vec<u8>,
    start: usize,
}

impl Shared {
    fn new(bytes: usize) -> Self {
        let memory = vec![UNWRITTEN; bytes + SHARED_ALIGNMENT];
        let start = memory.as_ptr().align_offset(SHARED_ALIGNMENT);
        Self { memory, start }
    }

    fn address(&mut self) -> u64 {
        self.memory[self.start..].as_mut_ptr() as u64
    }

    fn forget(&mut self) {
        self.memory.fill(UNWRITTEN);
    }
}

/// Ends the program: what a card would go on with or hang on.
fn stop(code: &Code, what: &str) -> ! {
    eprintln!("driver double: {}: {what}", code.kernel.name);
    std::process::abort()
}

extern "C" fn wait(thread: *mut Thread, wait: u32) {
    // SAFETY: the coroutine of the thread called it, and has its yielder.
    let yielder = unsafe { &*(*thread).yielder };
    yielder.suspend(if wait == 0 { Wait::Block } else { Wait::Warp });
}

/// Where in the card's memory an access goes, if there is such a place.
extern "C" fn find(thread: *mut Thread, address: u64, bytes: u64) {
    // SAFETY: the kernel has its thread, whose launch goes on.
    let (thread, launched) = unsafe { (&mut *thread, &*(*thread).launched) };
    let after = launched.memory.partition_point(|(start, _)| *start <= address);
    match after.checked_sub(1).map(|last| launched.memory[last]) {
        Some((start, end)) if address + bytes <= end && address.is_multiple_of(bytes) => {
            (thread.start, thread.end) = (start, end);
        }
        _ => fault(thread, c"memory".as_ptr(), address, bytes),
    }
}

extern "C" fn fault(thread: *const Thread, what: *const c_char, address: u64, bytes: u64) {
    // SAFETY: the kernel has its thread, whose launch goes on; `what` is text that does not change.
    let (thread, launched, what) =
        unsafe { (&*thread, &*(*thread).launched, CStr::from_ptr(what).to_string_lossy()) };
    let offset = address.wrapping_sub(thread.shared) as i64;
    stop(
        &launched.code,
        &format!(
            "block {:?}, thread {:?}: {bytes} bytes of {what} at {address:#x} ({offset} from shared memory's start) \
             are not there or not aligned",
            thread.ctaid, thread.tid
        ),
    )
}

#[cfg(test)]
mod tests;
