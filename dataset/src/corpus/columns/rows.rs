//! The needed columns of a row group in memory, and what a row of them is.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use sha2::Digest;

use super::cells::{binary, cell_text, cell_texts};
use super::file::FileColumns;
use super::kinds::{answer_texts, caption_texts, plain};
use super::names::HashOf;
use crate::text::{Answers, MAX_CAPTION_WORDS, Question, clean_question, is_visible};

/// What is read of a caption, bytes: far more than the words that are kept, and a bound for what a tokenizer
/// meets.
const CAPTION_BYTES: usize = 16 << 10;
/// The status of a row whose image was downloaded; a null stands for it.
pub(crate) const SUCCESS: &str = "success";
/// Hashes that are looked at to find out whose they are: that many at least, as long as all agree or none,
/// and that many at most.
const HASHES_LOOKED_AT: std::ops::RangeInclusive<usize> = 4..=32;

/// The needed columns of one row group, in memory.
#[derive(Debug)]
pub struct RowGroup {
    image: ArrayRef,
    captions: Vec<ArrayRef>,
    key: Option<ArrayRef>,
    status: Option<ArrayRef>,
    /// Only if they are of the stored bytes.
    sha256: Option<ArrayRef>,
    hashes_passed_over: bool,
    url: Option<ArrayRef>,
    question: Option<ArrayRef>,
    answers: Option<ArrayRef>,
    image_id: Option<ArrayRef>,
    hashes_images: bool,
    rows: usize,
    bytes: u64,
}

impl RowGroup {
    /// From a batch holding [`FileColumns::projection`], in that order.
    pub(crate) fn new(batch: &RecordBatch, columns: &FileColumns) -> Self {
        let projection = columns.projection();
        // `projection` holds every index of `columns`, so the search always succeeds.
        let found = |index: usize| batch.column(projection.binary_search(&index).unwrap_or_default());
        let column = |index: usize| plain(found(index));
        let image = column(columns.image);
        let recorded = columns.sha256.map(column);
        let compared = match (columns.hash_of, &recorded) {
            (HashOf::Stored, _) | (_, None) => true,
            (HashOf::Download, _) => false,
            (HashOf::Auto, Some(recorded)) => are_of_stored_bytes(recorded, &image),
        };
        Self {
            image,
            captions: columns.captions.iter().map(|index| caption_texts(found(*index))).collect(),
            key: columns.key.map(column),
            status: columns.status.map(column),
            sha256: recorded.filter(|_| compared),
            hashes_passed_over: !compared,
            url: columns.url.map(column),
            question: columns.question.map(column),
            answers: columns.answers.map(|index| answer_texts(found(index))),
            image_id: columns.image_id.map(column),
            hashes_images: columns.hashes_images,
            rows: batch.num_rows(),
            bytes: batch.get_array_memory_size() as u64,
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Memory held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether hashes are recorded that are not those of the stored bytes.
    pub(crate) fn hashes_passed_over(&self) -> bool {
        self.hashes_passed_over
    }

    /// Without the rows whose download failed.
    ///
    /// # Errors
    /// In words, if the reader fails.
    pub(crate) fn without_failed(self) -> Result<Self, String> {
        let Some(status) = &self.status else { return Ok(self) };
        let kept: BooleanArray =
            (0..self.rows).map(|row| Some(failed_status(status, row).is_none())).collect();
        let keep =
            |column: &ArrayRef| arrow::compute::filter(column, &kept).map_err(|error| error.to_string());
        let keep_optional = |column: &Option<ArrayRef>| column.as_ref().map(keep).transpose();
        let (image, key, status) = (keep(&self.image)?, keep_optional(&self.key)?, keep(status)?);
        let captions: Vec<_> = self.captions.iter().map(keep).collect::<Result<_, _>>()?;
        let (sha256, url) = (keep_optional(&self.sha256)?, keep_optional(&self.url)?);
        let (question, answers) = (keep_optional(&self.question)?, keep_optional(&self.answers)?);
        let image_id = keep_optional(&self.image_id)?;
        let columns = captions.iter().chain([&image, &status]).chain(&key).chain(&sha256).chain(&url);
        let columns = columns.chain(&question).chain(&answers).chain(&image_id);
        let bytes = columns.map(|column| column.get_array_memory_size() as u64).sum();
        let rows = kept.true_count();
        let status = Some(status);
        Ok(Self {
            image,
            captions,
            key,
            status,
            sha256,
            url,
            question,
            answers,
            image_id,
            rows,
            bytes,
            ..self
        })
    }

    /// The row's key, or empty text.
    pub fn key(&self, row: usize) -> String {
        let shown = |keys: &ArrayRef| arrow::util::display::array_value_to_string(keys, row).ok();
        self.key.as_ref().and_then(shown).unwrap_or_default()
    }

    /// The image's source, if the file was opened with it.
    pub fn url(&self, row: usize) -> Option<&str> {
        self.url.as_ref().and_then(|urls| cell_text(urls, row))
    }

    /// The image's bytes as they are stored, if there are any.
    pub(crate) fn stored_image(&self, row: usize) -> Option<&[u8]> {
        binary(&self.image, row).filter(|image| !image.is_empty())
    }

    /// The image's bytes after the checks that need no decoding.
    ///
    /// # Errors
    /// Why the row cannot be used.
    pub fn image(&self, row: usize) -> Result<&[u8], String> {
        self.checked_image(row).map_err(|fault| fault.to_string())
    }

    /// The same, with the fault as such.
    pub(crate) fn checked_image(&self, row: usize) -> Result<&[u8], RowFault> {
        if let Some(status) = self.status.as_ref().and_then(|status| failed_status(status, row)) {
            return Err(RowFault::Status(status.to_owned()));
        }
        let image = self.stored_image(row).ok_or(RowFault::NoImage)?;
        if self.sha256.as_ref().is_some_and(|expected| !hash_agrees(expected, row, image)) {
            return Err(RowFault::WrongHash);
        }
        Ok(image)
    }

    /// The row's captions, those of the list or the single one, each cut to 16 KiB.
    pub fn captions(&self, row: usize) -> Vec<&str> {
        let cut = |caption: &'_ str| caption.floor_char_boundary(CAPTION_BYTES);
        self.written_captions(row).into_iter().map(|caption| &caption[..cut(caption)]).collect()
    }

    /// The row's question, cleaned, with its answers; `None` where there is no question or no answer.
    pub fn question(&self, row: usize) -> Option<Question> {
        let written = cell_text(self.question.as_ref()?, row)?;
        let written = &written[..written.floor_char_boundary(CAPTION_BYTES)];
        let (text, answers) = (clean_question(written, MAX_CAPTION_WORDS), self.answers(row));
        (is_visible(&text) && !answers.is_empty()).then_some(Question { text, answers })
    }

    /// What was answered in the row, whatever was asked; nothing where no column of answers is named.
    pub fn answers(&self, row: usize) -> Answers {
        let Some(answers) = &self.answers else { return Answers::default() };
        let cut = |answer: &'_ str| answer.floor_char_boundary(CAPTION_BYTES);
        Answers::of(cell_texts(answers, row).into_iter().map(|answer| &answer[..cut(answer)]))
    }

    /// What tells the row's image, whose bytes these are, from others; `None` where no ids were asked for.
    ///
    /// # Errors
    /// The row has none.
    pub(crate) fn image_id(&self, row: usize, image: &[u8]) -> Result<Option<u64>, String> {
        if self.hashes_images {
            return Ok(Some(id_of(image)));
        }
        let Some(ids) = &self.image_id else { return Ok(None) };
        let shown = arrow::util::display::array_value_to_string(ids, row).ok();
        let shown = shown.filter(|shown| ids.is_valid(row) && !shown.is_empty());
        shown.map(|shown| Some(id_of(shown.as_bytes()))).ok_or_else(|| "it has no image id".to_owned())
    }

    /// The row's captions as written.
    pub fn written_captions(&self, row: usize) -> Vec<&str> {
        self.captions
            .iter()
            .map(|column| cell_texts(column, row))
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }
}

/// The first bytes of a hash: two of 2^64 that are the same are not met.
fn id_of(content: &[u8]) -> u64 {
    let hash = blake3::hash(content);
    let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

/// Why a row's image cannot be used, before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowFault {
    /// Its download failed.
    #[error("status is `{0}`")]
    Status(String),
    /// Null, or no bytes.
    #[error("it has no picture")]
    NoImage,
    /// The bytes are others.
    #[error("its picture does not have the recorded sha256")]
    WrongHash,
}

/// What is said of a row whose download failed.
pub(crate) fn failed_status(status: &dyn Array, row: usize) -> Option<&str> {
    cell_text(status, row).filter(|status| *status != SUCCESS)
}

/// Whether the recorded hashes are those of the stored images, by the first rows that have both. A few that
/// differ are damage; where nearly all do, the hashes are of something else.
fn are_of_stored_bytes(recorded: &ArrayRef, images: &ArrayRef) -> bool {
    let hashed = |row: usize| recorded.is_valid(row) && cell_text(recorded, row) != Some("");
    let rows = (0..images.len()).filter(|row| hashed(*row));
    let rows = rows.filter_map(|row| Some((row, binary(images, row).filter(|image| !image.is_empty())?)));
    let (mut looked_at, mut agreeing) = (0, 0);
    for (row, image) in rows.take(*HASHES_LOOKED_AT.end()) {
        looked_at += 1;
        agreeing += usize::from(hash_agrees(recorded, row, image));
        if looked_at == *HASHES_LOOKED_AT.start() && (agreeing == 0 || agreeing == looked_at) {
            break;
        }
    }
    looked_at == 0 || agreeing > 0 && looked_at - agreeing <= (looked_at / 4).max(1)
}

/// Whether the recorded hash is absent or that of `image`.
fn hash_agrees(expected: &ArrayRef, row: usize, image: &[u8]) -> bool {
    let actual = sha2::Sha256::digest(image);
    match (cell_text(expected, row), binary(expected, row)) {
        (Some(""), _) => true,
        (Some(hex), _) => {
            let written: String = actual.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.eq_ignore_ascii_case(&written)
        }
        (None, Some(bytes)) => bytes == actual.as_slice(),
        (None, None) => true,
    }
}
