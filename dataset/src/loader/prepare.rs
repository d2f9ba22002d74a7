//! One sample: find its row, check it, tokenise, decode, transform; or draw a substitute.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use blip2_images::transform::ImageScratch;
use blip2_random::KeyedRng;

use super::cache::RowGroupCache;
use super::spec::LoaderSpec;
use super::statistics::Counters;
use crate::corpus::columns::RowGroup;
use crate::error::{DatasetError, Result};
use crate::plan::{PartId, RowAddress, RowGroupId, SUBSTITUTE_TRIES};
use crate::quarantine::QuarantineRecord;
use crate::text::{MAX_CAPTION_WORDS, Question, Tokens, clean_caption, is_visible};

/// A sample ready to be put into a batch.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) sample: u64,
    pub(super) address: RowAddress,
    pub(super) content: SampleContent,
    pub(super) quarantined: Vec<QuarantineRecord>,
}

/// What the model sees of a row.
#[derive(Debug)]
pub(super) struct SampleContent {
    /// `[3, S, S]`, not normalised.
    pub(super) pixels: Vec<u8>,
    pub(super) tokens: Tokens,
    pub(super) text: RowText,
    pub(super) image_id: Option<u64>,
    pub(super) key: String,
}

/// What is read of a row besides its image.
#[derive(Debug)]
pub(super) enum RowText {
    /// One of its captions, cleaned.
    Caption(String),
    /// Its question with all answers.
    Question(Question),
}

impl RowText {
    /// What is cut into tokens.
    fn text(&self) -> &str {
        match self {
            Self::Caption(caption) => caption,
            Self::Question(question) if question.asks_for_a_caption() => question.answers.most_frequent(),
            Self::Question(question) => &question.text,
        }
    }
}

/// What is used of a row besides its image.
struct Used {
    key: String,
    text: RowText,
    tokens: Tokens,
    image_id: Option<u64>,
}

/// Why a row cannot be used.
struct Unusable {
    key: String,
    reason: String,
}

/// Prepares the samples of a [`LoaderSpec`]; shared by the decode threads.
#[derive(Debug)]
pub(super) struct Preparer {
    spec: LoaderSpec,
    cache: RowGroupCache,
    counters: Arc<Counters>,
}

impl Preparer {
    pub(super) fn new(spec: LoaderSpec, cache: RowGroupCache, counters: Arc<Counters>) -> Self {
        Self { spec, cache, counters }
    }

    /// What is counted.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of a sample's pixels.
    pub(super) fn pixel_bytes(&self) -> usize {
        3 * self.spec.image.size * self.spec.image.size
    }

    /// Slots of a step.
    pub(super) fn slots(&self) -> Range<u32> {
        self.spec.slots.clone()
    }

    /// Samples of a slot in a step.
    pub(super) fn batch_per_slot(&self) -> u32 {
        self.spec.batch_per_slot
    }

    /// Steps to prepare.
    pub(super) fn steps(&self) -> Range<u64> {
        self.spec.first_step..self.spec.last_step
    }

    /// The training stage.
    pub(super) fn stage(&self) -> u32 {
        self.spec.stage
    }

    /// Decode threads.
    pub(super) fn threads(&self) -> usize {
        self.spec.settings.decode_threads
    }

    /// Steps that may be prepared and not yet taken: as many as half the budget holds, at least one.
    pub(super) fn steps_ahead(&self) -> u64 {
        let pixels = self.pixel_bytes();
        let tokens = 2 * self.spec.text.encoding().length * size_of::<i32>();
        let samples = self.spec.slots.len() * self.spec.batch_per_slot as usize;
        let step = (samples * (pixels + tokens + size_of::<Prepared>())) as u64;
        (self.spec.settings.prefetch_bytes / 2 / step.max(1)).max(1)
    }

    /// Starts reading the row groups of the window in which `step` lies and of the next, as memory allows.
    pub(super) fn prefetch(&self, step: u64) {
        let position = step * u64::from(self.spec.batch_per_slot);
        let current = self.spec.plan.part(self.spec.slots.start, position).window;
        for window in [current, current + 1] {
            let parts = self
                .spec
                .slots
                .clone()
                .map(|slot| self.spec.plan.row_groups_of_part(PartId { window, slot }));
            let parts: Vec<Vec<RowGroupId>> = parts.collect();
            // All slots' first row groups, then all second ones: every slot is needed in the next step.
            let longest = parts.iter().map(Vec::len).max().unwrap_or_default();
            let by_turn = (0..longest).flat_map(|turn| parts.iter().filter_map(move |part| part.get(turn)));
            self.cache.prefetch(by_turn.map(|id| (*id, window)), current);
        }
    }

    /// The sample at `index` of a slot's batch; its pixels are put into `pixels`, a buffer of any length.
    ///
    /// # Errors
    /// Of the store; [`DatasetError::NoUsableRow`].
    pub(super) fn prepare(
        &self,
        (step, slot, index): (u64, u32, u32),
        scratch: &mut ImageScratch,
        mut pixels: Vec<u8>,
    ) -> Result<Prepared> {
        pixels.resize(self.pixel_bytes(), 0);
        let spec = &self.spec;
        let batch = u64::from(spec.batch_per_slot);
        let position = step * batch + u64::from(index);
        let sample = (step * u64::from(spec.slots_total) + u64::from(slot)) * batch + u64::from(index);
        let part = spec.plan.part(slot, position);
        let planned = spec.plan.locate(slot, position);
        let mut quarantined: Vec<QuarantineRecord> = Vec::new();
        for address in spec.plan.candidates(slot, position, sample) {
            if quarantined.iter().any(|record| self.is_at(record, address)) {
                continue;
            }
            match self.content(address, part, sample, scratch, &mut pixels)? {
                Ok(Used { key, text, tokens, image_id }) => {
                    let content = SampleContent { pixels, tokens, text, image_id, key };
                    return Ok(Prepared { sample, address, content, quarantined });
                }
                Err(unusable) => quarantined.push(self.record(address, sample, unusable)),
            }
        }
        Err(DatasetError::NoUsableRow {
            sample,
            tries: SUBSTITUTE_TRIES,
            file: self.file(planned),
            row_group: planned.row_group,
            row: planned.row,
            reason: quarantined.pop().map(|record| record.reason).unwrap_or_default(),
        })
    }

    /// Ends all reads.
    pub(super) fn close(&self) {
        self.cache.close();
    }

    fn file(&self, address: RowAddress) -> String {
        self.spec.manifest.files[address.file as usize].location.clone()
    }

    fn is_at(&self, record: &QuarantineRecord, address: RowAddress) -> bool {
        record.row == address.row
            && record.row_group == address.row_group
            && record.file == self.spec.manifest.files[address.file as usize].location
    }

    fn record(&self, address: RowAddress, sample: u64, unusable: Unusable) -> QuarantineRecord {
        QuarantineRecord {
            key: unusable.key,
            file: self.file(address),
            row_group: address.row_group,
            row: address.row,
            reason: unusable.reason,
            sample,
            stage: self.spec.stage,
        }
    }

    /// The row's text and, in `pixels`, its image; or why it cannot be used.
    fn content(
        &self,
        address: RowAddress,
        part: PartId,
        sample: u64,
        scratch: &mut ImageScratch,
        pixels: &mut [u8],
    ) -> Result<Result<Used, Unusable>> {
        let id = RowGroupId { file: address.file, row_group: address.row_group };
        let group = self.cache.get(id, part.window)?;
        let row = address.row as usize;
        let content = group.image(row).and_then(|image| {
            let started = Instant::now();
            let image_id = group.image_id(row, image)?;
            let text = self.text(&group, row, sample)?;
            let tokens = self.tokens(&text)?;
            self.counters.tokenise.add_time(started.elapsed());
            let mut rng = KeyedRng::new(self.spec.seed, "augment", &[u64::from(self.spec.stage), sample]);
            let applied = self.spec.image.apply(image, self.spec.max_pixels, &mut rng, scratch, pixels);
            applied.map_err(|error| error.to_string())?;
            let times = scratch.take_times();
            self.counters.decode.add_time(times.decode);
            self.counters.transform.add_time(times.transform);
            self.counters.samples.add(1);
            self.counters.image_bytes.add(image.len() as u64);
            Ok((text, tokens, image_id))
        });
        let key = group.key(row);
        Ok(match content {
            Ok((text, tokens, image_id)) => Ok(Used { key, text, tokens, image_id }),
            Err(reason) => Err(Unusable { key, reason }),
        })
    }

    /// The row's question where questions are read, else one of its captions, which is an answer where
    /// captions are read too.
    fn text(&self, group: &RowGroup, row: usize, sample: u64) -> Result<RowText, String> {
        let columns = &self.spec.columns;
        if columns.ask() {
            if let Some(question) = group.question(row) {
                return Ok(RowText::Question(question));
            }
            if !columns.captions_too {
                return Err("it has no question with an answer".into());
            }
        }
        let caption = self.caption(&group.captions(row), sample)?;
        Ok(match columns.captions_too {
            true => RowText::Question(Question::of_caption(&caption)),
            false => RowText::Caption(caption),
        })
    }

    /// One of the row's captions, cleaned.
    fn caption(&self, written: &[&str], sample: u64) -> Result<String, String> {
        let mut captions: Vec<_> =
            written.iter().map(|caption| clean_caption(caption, MAX_CAPTION_WORDS)).collect();
        captions.retain(|caption| is_visible(caption));
        let mut rng = KeyedRng::new(self.spec.seed, "caption", &[u64::from(self.spec.stage), sample]);
        let drawn = rng.below(captions.len() as u64) as usize;
        captions.into_iter().nth(drawn).ok_or_else(|| "it has no text".to_owned())
    }

    fn tokens(&self, text: &RowText) -> Result<Tokens, String> {
        let tokens = self.spec.text.encode(text.text()).map_err(|error| error.to_string())?;
        match tokens.has_text {
            true => Ok(tokens),
            false => Err("it has no text that the tokenizer knows".to_owned()),
        }
    }
}
