//! Decode threads and the order in which their work is handed out: samples by step, batches by step.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blip2_images::transform::ImageScratch;
use bytes::Bytes;

use super::batch::SlotBatch;
use super::prepare::{Prepared, Preparer, RowText};
use super::statistics::LoaderStatistics;
use crate::coverage::Coverage;
use crate::error::{DatasetError, Result};

/// How often a waiting thread looks around, in case a notice was missed.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// The running loader.
#[derive(Debug)]
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    preparer: Preparer,
    steps_ahead: u64,
    samples_per_step: usize,
    state: Mutex<State>,
    /// Buffers of samples that were put into a batch, for the next ones.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// A thread may find work.
    work: Condvar,
    /// The taker may find a batch.
    ready: Condvar,
}

#[derive(Debug)]
struct State {
    /// The sample handed out next.
    step: u64,
    sample: usize,
    /// The step taken next.
    taken: u64,
    last_step: u64,
    building: BTreeMap<u64, Building>,
    finished: BTreeMap<u64, Result<Vec<SlotBatch>>>,
    failed: Option<DatasetError>,
    stopping: bool,
}

/// A step whose samples are being prepared.
#[derive(Debug)]
struct Building {
    samples: Vec<Option<Result<Prepared>>>,
    missing: usize,
}

/// A sample to prepare.
#[derive(Debug, Clone, Copy)]
struct Task {
    step: u64,
    /// Slot by slot within the step.
    sample: usize,
}

impl Pipeline {
    pub(super) fn start(preparer: Preparer) -> Result<Self> {
        let steps = preparer.steps();
        let threads = preparer.threads();
        let state = State {
            step: steps.start,
            sample: 0,
            taken: steps.start,
            last_step: steps.end,
            building: BTreeMap::new(),
            finished: BTreeMap::new(),
            failed: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            steps_ahead: preparer.steps_ahead(),
            samples_per_step: preparer.slots().len() * preparer.batch_per_slot() as usize,
            preparer,
            state: Mutex::new(state),
            buffers: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        // Threads join the pipeline one by one, so that an early return stops those that were started.
        let mut pipeline = Self { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&pipeline.shared);
            let thread =
                std::thread::Builder::new().name(format!("decode-{index}")).spawn(move || shared.run());
            pipeline
                .threads
                .push(thread.map_err(|error| DatasetError::Thread { reason: error.to_string() })?);
        }
        Ok(pipeline)
    }

    /// The totals so far.
    pub(super) fn totals(&self) -> LoaderStatistics {
        self.shared.totals()
    }

    /// The next step and its batches.
    pub(super) fn next(&self, deadline: Duration) -> Result<(u64, Vec<SlotBatch>)> {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            let step = state.taken;
            if step >= state.last_step {
                return Err(DatasetError::Ended { step });
            }
            if let Some(finished) = state.finished.remove(&step) {
                let batches = finished.inspect_err(|error| state.failed = Some(error.clone()))?;
                state.taken += 1;
                self.shared.work.notify_all();
                return Ok((step, batches));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DatasetError::Deadline { step, seconds: deadline.as_secs_f64() });
            }
            let woken = self.shared.ready.wait_timeout(state, left.min(WAIT_STEP));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.preparer.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a decode thread panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The totals so far.
    fn totals(&self) -> LoaderStatistics {
        self.preparer.counters().totals()
    }

    /// A decode thread's life.
    fn run(&self) {
        let mut scratch = ImageScratch::default();
        while let Some(task) = self.take_task() {
            let prepared = catch_unwind(AssertUnwindSafe(|| {
                if task.sample == 0 {
                    self.preparer.prefetch(task.step);
                }
                let batch = self.preparer.batch_per_slot();
                // A step's samples are counted in 32 bits: slots and batch both are.
                let (slot, index) = (task.sample as u32 / batch, task.sample as u32 % batch);
                let place = (task.step, self.preparer.slots().start + slot, index);
                let buffer = self.buffers().pop().unwrap_or_default();
                self.preparer.prepare(place, &mut scratch, buffer)
            }));
            let panicked =
                |_| Err(DatasetError::Thread { reason: format!("preparing step {} panicked", task.step) });
            self.finish(task, prepared.unwrap_or_else(panicked));
        }
    }

    /// The next sample to prepare, once there is room for its step; `None` when there is nothing left to do.
    fn take_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.stopping || state.step >= state.last_step {
                return None;
            }
            if state.step < state.taken.saturating_add(self.steps_ahead) {
                break;
            }
            state = self.work.wait_timeout(state, WAIT_STEP).unwrap_or_else(PoisonError::into_inner).0;
        }
        let task = Task { step: state.step, sample: state.sample };
        if task.sample == 0 {
            let samples = std::iter::repeat_with(|| None).take(self.samples_per_step).collect();
            state.building.insert(task.step, Building { samples, missing: self.samples_per_step });
        }
        state.sample += 1;
        if state.sample == self.samples_per_step {
            state.sample = 0;
            state.step += 1;
        }
        Some(task)
    }

    /// Files a sample; whoever files a step's last one makes the batches of it.
    fn finish(&self, task: Task, prepared: Result<Prepared>) {
        let mut state = self.lock();
        let Some(building) = state.building.get_mut(&task.step) else { return };
        building.samples[task.sample] = Some(prepared);
        building.missing -= 1;
        if building.missing > 0 {
            return;
        }
        let complete = state.building.remove(&task.step);
        drop(state);
        let samples: Vec<_> = complete.into_iter().flat_map(|building| building.samples).flatten().collect();
        let batches = self.batches(samples);
        self.lock().finished.insert(task.step, batches);
        self.ready.notify_all();
    }

    /// The batches of a step, or the error of its first sample that has one.
    fn batches(&self, samples: Vec<Result<Prepared>>) -> Result<Vec<SlotBatch>> {
        let batch = self.preparer.batch_per_slot() as usize;
        let mut samples = samples.into_iter();
        let started = Instant::now();
        let batches =
            self.preparer.slots().map(|slot| self.slot_batch(slot, samples.by_ref().take(batch))).collect();
        self.preparer.counters().assemble.add_time(started.elapsed());
        batches
    }

    /// One slot's samples in one batch; their buffers are kept for later samples.
    fn slot_batch(&self, slot: u32, samples: impl Iterator<Item = Result<Prepared>>) -> Result<SlotBatch> {
        let stage = self.preparer.stage();
        let room = self.preparer.batch_per_slot() as usize;
        let mut pixels = Vec::with_capacity(room * self.preparer.pixel_bytes());
        let mut batch = SlotBatch {
            slot,
            pixels: Bytes::new(),
            ids: Vec::new(),
            mask: Vec::new(),
            captions: Vec::with_capacity(room),
            questions: Vec::new(),
            image_ids: Vec::new(),
            samples: Vec::with_capacity(room),
            addresses: Vec::with_capacity(room),
            keys: Vec::with_capacity(room),
            coverage: Coverage::default(),
            quarantined: Vec::new(),
        };
        for prepared in samples {
            let Prepared { sample, address, content, quarantined } = prepared?;
            pixels.extend_from_slice(&content.pixels);
            self.buffers().push(content.pixels);
            batch.ids.extend(content.tokens.ids);
            batch.mask.extend(content.tokens.mask);
            match content.text {
                RowText::Caption(caption) => batch.captions.push(caption),
                RowText::Question(question) => batch.questions.push(question),
            }
            batch.image_ids.extend(content.image_id);
            batch.keys.push(content.key);
            batch.coverage += Coverage::of(stage, sample, address.row_id());
            batch.samples.push(sample);
            batch.addresses.push(address);
            batch.quarantined.extend(quarantined);
        }
        batch.pixels = pixels.into();
        Ok(batch)
    }
}
