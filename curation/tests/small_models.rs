//! The small models judge the texts of the noisy pool.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::AsArray;
use blip2_curation::models;
use blip2_curation::scored::{ScoredText, TextSource};
use blip2_curation::scoring::{CuratedImage, CurationTimes};
use blip2_curation::select::CurationMode;
use blip2_curation::settings::CurationModelSettings;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_all;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn assets(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(path).display().to_string()
}

fn settings() -> CurationModelSettings {
    CurationModelSettings {
        captioner: assets("backbones/blip-tiny"),
        clip: assets("backbones/clip-tiny"),
        max_new_tokens: 8,
        captions: 3,
        ..CurationModelSettings::default()
    }
}

/// Images of the pool, with key and the text they came with.
fn pool(most: usize) -> (Vec<String>, Vec<CuratedImage>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = [assets("corpus/web-00000.parquet")];
    let set = runtime.block_on(read_all(&files, &ColumnNames::default(), 1 << 20)).unwrap();
    let image = |(draw, sample): (u64, blip2_dataset::corpus::samples::Sample)| {
        (sample.key, CuratedImage { image: sample.image, web: sample.captions, draw })
    };
    (0..).zip(set.samples).take(most).map(image).unzip()
}

fn score(settings: &CurationModelSettings, images: &[CuratedImage]) -> Vec<Vec<ScoredText>> {
    let opened = models::open(settings, CurationMode::Rank).unwrap();
    opened.score(images, &mut CurationTimes::default()).unwrap()
}

/// Which texts of the pool are about another image, or about none.
fn truth() -> BTreeMap<String, bool> {
    let file = std::fs::File::open(assets("corpus/web-truth.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut truth = BTreeMap::new();
    for batch in reader.map(|batch| batch.unwrap()) {
        let keys = batch.column_by_name("key").unwrap().as_string::<i32>().clone();
        let wrong = batch.column_by_name("is_wrong").unwrap().as_boolean().clone();
        truth.extend((0..batch.num_rows()).map(|row| (keys.value(row).to_owned(), wrong.value(row))));
    }
    truth
}

#[test]
fn the_ranker_tells_wrong_texts_from_right_ones() {
    let (keys, images) = pool(usize::MAX);
    let texts = score(&CurationModelSettings { captions: 0, ..settings() }, &images);
    let truth = truth();
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for (key, texts) in keys.iter().zip(&texts) {
        assert!(texts.iter().all(|text| text.source == TextSource::Web && text.itm_score.is_none()));
        let score = texts[0].clip_score.unwrap();
        if truth[key] { wrong.push(score) } else { right.push(score) }
    }
    assert!(right.len() > 250 && wrong.len() > 500, "{} {}", right.len(), wrong.len());
    right.sort_by(f32::total_cmp);
    let above = |threshold: f32| wrong.iter().filter(|score| **score >= threshold).count();
    let area = 1.0
        - right.iter().map(|threshold| above(*threshold)).sum::<usize>() as f64
            / (right.len() * wrong.len()) as f64;
    // 80 % of the right ones are kept.
    let threshold = right[right.len() / 5];
    let dropped = 1.0 - above(threshold) as f64 / wrong.len() as f64;
    println!(
        "ROC area {area:.4}; at 80 % of the right texts kept, {:.1} % of the wrong ones dropped",
        100.0 * dropped
    );
    assert!(area >= 0.98, "{area}");
    assert!(dropped >= 0.95, "{dropped}");
}

/// Neither texts nor scores depend on which images are computed together.
#[test]
fn an_image_is_judged_by_itself() {
    let (_, images) = pool(7);
    let together = score(&settings(), &images);
    let alone = CurationModelSettings { batch: 1, text_batch: 1, ..settings() };
    let alone = score(&alone, &images);
    let mut distinct = 0;
    for (a, b) in together.iter().zip(&alone) {
        assert_eq!((a.len(), b.len()), (4, 4));
        for (a, b) in a.iter().zip(b) {
            assert_eq!((&a.text, a.source), (&b.text, b.source));
            let (a, b) = (a.clip_score.unwrap(), b.clip_score.unwrap());
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        assert!(a[1..].iter().all(|text| text.source == TextSource::Synthetic && !text.text.is_empty()));
        distinct += usize::from(a[1].text != a[2].text || a[2].text != a[3].text);
    }
    assert!(distinct >= 3, "captions are drawn, not repeated: {together:?}");
    let other = CurationModelSettings { seed: 7, ..settings() };
    assert_ne!(score(&other, &images), together);
}

#[test]
fn settings_say_what_is_missing() {
    let open = |settings: CurationModelSettings, mode| {
        models::open(&settings, mode).err().expect("it is refused").to_string()
    };
    let bare = CurationModelSettings::default();
    assert!(open(bare, CurationMode::Rank).contains("curation.models.captioner"));
    let none = CurationModelSettings { captions: 0, ..CurationModelSettings::default() };
    assert!(open(none.clone(), CurationMode::Rank).contains("curation.models.clip"));
    assert!(open(none, CurationMode::Filter).contains("curation.models.itm"));
    let other = CurationModelSettings { device: "tpu".into(), ..settings() };
    assert!(open(other, CurationMode::Rank).contains("curation.models.device"));
    for (settings, key) in [
        (CurationModelSettings { top_p: f64::NAN, ..settings() }, "top_p"),
        (CurationModelSettings { temperature: 0.0, ..settings() }, "temperature"),
        (CurationModelSettings { min_new_tokens: 9, ..settings() }, "max_new_tokens"),
    ] {
        assert!(open(settings, CurationMode::Rank).contains(&format!("curation.models.{key}: ")));
    }
    let swapped = CurationModelSettings { clip: assets("backbones/blip-tiny"), ..settings() };
    assert!(open(swapped, CurationMode::Rank).contains("clip"));
}
