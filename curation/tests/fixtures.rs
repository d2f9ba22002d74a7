//! The other models of a curation, of the golden fixtures: BLIP's filter, and an exported BLIP-2 as the
//! captioner.

use std::path::Path;

use blip2_curation::models;
use blip2_curation::scored::ScoredText;
use blip2_curation::scoring::{CuratedImage, CurationTimes};
use blip2_curation::select::CurationMode;
use blip2_curation::settings::CurationModelSettings;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::{Sample, read_all};
use blip2_images::transform::EvalTransform;
use blip2_model::blip::BlipRetrieval;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Value, json};

/// How far scores of one text may be apart in two batches.
const CLOSE: f32 = 1e-5;

fn path(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).display().to_string()
}

fn web(count: usize) -> Vec<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = [path("assets/corpus/web-00000.parquet")];
    let mut samples = runtime.block_on(read_all(&files, &ColumnNames::default(), 1 << 20)).unwrap().samples;
    samples.truncate(count);
    samples
}

fn images(samples: &[Sample]) -> Vec<CuratedImage> {
    let image = |(draw, sample): (u64, &Sample)| CuratedImage {
        image: sample.image.clone(),
        web: sample.captions.clone(),
        draw,
    };
    (0..).zip(samples).map(image).collect()
}

fn score(
    settings: &CurationModelSettings,
    mode: CurationMode,
    images: &[CuratedImage],
) -> Vec<Vec<ScoredText>> {
    let opened = models::open(settings, mode).unwrap();
    opened.score(images, &mut CurationTimes::default()).unwrap()
}

fn assert_same(a: &[Vec<ScoredText>], b: &[Vec<ScoredText>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert_eq!((&a.text, a.source), (&b.text, b.source));
        let close = |a: Option<f32>, b: Option<f32>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < CLOSE,
            (a, b) => a == b,
        };
        assert!(close(a.clip_score, b.clip_score) && close(a.itm_score, b.itm_score), "{a:?} {b:?}");
    }
}

/// A model folder of the golden fixtures with a tokenizer of the words `w0`, `w1`… put beside it.
fn with_tokenizer(fixture: &str, words: u32, special: &[(u32, &str)], frame: &[&str]) -> tempfile::TempDir {
    let root = std::env::var("BLIP2_GOLDEN_DIR").unwrap_or_else(|_| path("tests/golden"));
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(Path::new(&root).join("hf-0").join(fixture)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let name = |id: u32| match special.iter().find(|(special, _)| *special == id) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("w{id}"),
    };
    let vocabulary: serde_json::Map<String, Value> = (0..words).map(|id| (name(id), json!(id))).collect();
    let added = special.iter().map(|(id, name)| {
        json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    });
    let single: Vec<Value> = frame
        .iter()
        .map(|part| match *part {
            "A" => json!({ "Sequence": { "id": "A", "type_id": 0 } }),
            token => json!({ "SpecialToken": { "id": token, "type_id": 0 } }),
        })
        .collect();
    let tokens: serde_json::Map<String, Value> = special
        .iter()
        .map(|(id, name)| ((*name).to_owned(), json!({ "id": name, "ids": [id], "tokens": [name] })))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": { "type": "TemplateProcessing", "single": single, "pair": [
            { "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } },
        ], "special_tokens": tokens },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": special[0].1 },
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

#[test]
fn matching_is_the_filters_probability_behind_its_own_start_token() {
    const ENC: i32 = 97;
    let special = [(1, "[UNK]"), (0, "[PAD]"), (2, "[CLS]"), (3, "[SEP]"), (96, "[DEC]"), (97, "[ENC]")];
    let folder = with_tokenizer("blip-itm", 99, &special, &["[CLS]", "A", "[SEP]"]);
    let settings = CurationModelSettings {
        itm: folder.path().display().to_string(),
        captions: 0,
        batch: 3,
        text_batch: 2,
        ..CurationModelSettings::default()
    };
    let samples = web(5);
    let texts = ["w10 w20 w30 w40", "W7.", "w50 w8"];
    let curated = |(draw, sample): (u64, &Sample)| CuratedImage {
        image: sample.image.clone(),
        web: texts[..1 + draw as usize % 3].iter().map(|text| (*text).to_owned()).collect(),
        draw,
    };
    let images: Vec<_> = (0..).zip(&samples).map(curated).collect();
    let found = score(&settings, CurationMode::Filter, &images);
    assert_same(
        &found,
        &score(&CurationModelSettings { batch: 1, text_batch: 1, ..settings }, CurationMode::Filter, &images),
    );
    let device = Device::flex();
    let model = BlipRetrieval::open(folder.path(), &device).unwrap();
    let size = model.config().vision.image_size;
    let tokens = [[ENC, 10, 20, 30, 40, 3], [ENC, 7, 3, 0, 0, 0], [ENC, 50, 8, 3, 0, 0]];
    let mut seen = 0;
    for (image, scored) in images.iter().zip(&found) {
        let pixels = EvalTransform::new(size).apply(&image.image).unwrap();
        let pixels = Tensor::from_data(TensorData::new(pixels, [1, 3, size, size]), &device);
        let features = model.image_features(pixels).unwrap();
        for (scored, ids) in scored.iter().zip(tokens) {
            let ids = Tensor::<2, Int>::from_ints([ids], &device);
            let mask = ids.clone().not_equal_elem(0).int();
            let logits = floats(model.match_logits(&features, ids, mask).unwrap()).unwrap();
            let [no, yes] = [logits[0].exp(), logits[1].exp()];
            assert!((scored.itm_score.unwrap() - yes / (no + yes)).abs() < CLOSE, "{scored:?} {logits:?}");
            assert!(scored.clip_score.is_none());
            seen += 1;
        }
    }
    assert_eq!(seen, 1 + 2 + 3 + 1 + 2);
}

#[test]
fn an_exported_blip2_writes_captions_too() {
    let special = [(1, "<pad>"), (2, "</s>"), (99, "<image>")];
    let folder = with_tokenizer("blip2-opt", 100, &special, &["</s>", "A"]);
    let settings = CurationModelSettings {
        captioner: folder.path().display().to_string(),
        clip: path("assets/backbones/clip-tiny"),
        prompt: "w68 w36".into(),
        captions: 3,
        max_new_tokens: 6,
        min_new_tokens: 2,
        ..CurationModelSettings::default()
    };
    let images = images(&web(4));
    let together = score(&settings, CurationMode::Rank, &images);
    assert_same(
        &together,
        &score(&CurationModelSettings { batch: 1, ..settings.clone() }, CurationMode::Rank, &images),
    );
    for texts in &together {
        assert_eq!(texts.len(), 4);
        assert!(texts[1..].iter().all(|text| text.text.starts_with('w')));
    }
    assert!(together[0][1].text != together[0][2].text || together[0][2].text != together[0][3].text);
}
