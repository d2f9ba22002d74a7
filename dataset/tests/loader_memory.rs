//! What a loader holds is bounded by `prefetch_bytes`, however long its batches are not taken and however
//! large the corpus is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::loader::{Loader, LoaderSettings, LoaderSpec};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_images::RgbImage;
use blip2_images::transform::TrainTransform;
use blip2_random::KeyedRng;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// Row groups of 2 MiB each.
const ROW_GROUPS: usize = 48;
const ROWS_PER_GROUP: usize = 16;
const PREFETCH: usize = 16 * MIB;
/// Row groups in use are held beyond the bound: those of two parts, and one that is being decoded by each of
/// two threads.
const IN_USE: usize = 16 * MIB;

/// A JPEG with bytes behind its end, which decoders pass over and readers carry.
fn heavy_image(row: u64) -> Vec<u8> {
    let mut encoded = std::io::Cursor::new(Vec::new());
    let shade = image::Rgb([row as u8, 90, 200]);
    RgbImage::from_pixel(16, 16, shade).write_to(&mut encoded, image::ImageFormat::Jpeg).unwrap();
    let mut random = KeyedRng::new(1, "filling", &[row]);
    let mut encoded = encoded.into_inner();
    encoded.extend((0..2 * MIB / ROWS_PER_GROUP).map(|_| random.below(256) as u8));
    encoded
}

fn write_corpus(path: &Path) {
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = None;
    for group in 0..ROW_GROUPS {
        let rows = (group * ROWS_PER_GROUP) as u64..((group + 1) * ROWS_PER_GROUP) as u64;
        let images: Vec<_> = rows.map(heavy_image).collect();
        let batch = RecordBatch::try_from_iter([
            ("caption", Arc::new(StringArray::from(vec!["a red apple"; ROWS_PER_GROUP])) as ArrayRef),
            ("jpg", Arc::new(BinaryArray::from_iter_values(&images))),
        ])
        .unwrap();
        let writer = writer.get_or_insert_with(|| {
            let file = std::fs::File::create(path).unwrap();
            ArrowWriter::try_new(file, batch.schema(), Some(properties.clone())).unwrap()
        });
        writer.write(&batch).unwrap();
        // Ends the row group.
        writer.flush().unwrap();
    }
    writer.unwrap().close().unwrap();
}

#[test]
fn memory_is_bounded_by_bytes_whatever_the_taker_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_corpus(&path);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let columns = ColumnNames::default();
    let sources = [path.to_str().unwrap().to_owned()];
    let manifest = Arc::new(runtime.block_on(Manifest::open(&sources, &columns)).unwrap());
    let plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 7, stage: 1 }, 2, 2).unwrap());
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/qformer-tokenizer");
    let text = Arc::new(TextEncoder::open(&tokenizer, TextEncoding::new(16, 0)).unwrap());
    let settings =
        LoaderSettings { prefetch_bytes: PREFETCH as u64, decode_threads: 2, ..LoaderSettings::default() };
    let steps = (ROW_GROUPS * ROWS_PER_GROUP / 8) as u64;
    let spec = LoaderSpec {
        manifest,
        plan,
        columns,
        slots: 0..2,
        batch_per_slot: 4,
        slots_total: 2,
        first_step: 0,
        last_step: steps,
        seed: 7,
        stage: 1,
        image: TrainTransform::new(128, [0.5, 1.0], true),
        text,
        max_pixels: 1 << 20,
        settings,
    };
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let held = || MEMORY.peak_usage().saturating_sub(before);
    let loader = Loader::start(runtime.handle().clone(), spec).unwrap();
    let still = settled(&loader);
    assert!(still < steps * 8, "all {still} samples were prepared although nobody took one");
    println!("{} MiB at most while nothing is taken", held() / MIB);
    assert!(held() < PREFETCH + IN_USE, "{} bytes are held while nothing is taken", held());
    for _ in 0..steps {
        loader.next(Duration::from_secs(30)).unwrap();
    }
    println!("{} MiB at most over a whole epoch of {} MiB", held() / MIB, 2 * ROW_GROUPS);
    assert!(held() < PREFETCH + IN_USE, "{} bytes are held on the way", held());
}

/// Samples prepared once a loader goes no further.
fn settled(loader: &Loader) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = loader.statistics().samples;
        if (now == before && now > 0) || Instant::now() > deadline {
            return now;
        }
        before = now;
    }
}
