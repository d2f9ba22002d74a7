//! Metrics of captions against those of the caption toolkit: words exactly, numbers to 1e-9.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_evaluation::metrics::captions::coco::{self, Source};
use blip2_evaluation::metrics::captions::corpus::Corpus;
use blip2_evaluation::metrics::captions::meteor::MeteorStatistics;
use blip2_evaluation::metrics::captions::ptb::{REMOVED, Tokenizer};
use blip2_evaluation::metrics::captions::scores::{CaptionNumbers, CaptionScores};
use serde::Deserialize;

const SETS: [&str; 6] =
    ["main", "one_image", "uneven_references", "same_references", "edges", "empty_hypothesis"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Cases {
    removed: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    group: String,
    text: String,
    tokens: String,
    kept: String,
}

#[test]
fn words_are_those_of_the_reference() {
    let cases: Cases = read(&fixtures().join("ptb/cases.json"));
    assert_eq!(cases.removed, REMOVED);
    let mut tokenizer = Tokenizer::default();
    let other = cases.cases.iter().filter_map(|case| {
        let (tokens, words) = (tokenizer.tokens(&case.text).join(" "), tokenizer.words(&case.text));
        let same = tokens == case.tokens && words == case.kept;
        (!same).then(|| format!("{} {:?}: {tokens:?}, not {:?}", case.group, case.text, case.tokens))
    });
    let other: Vec<String> = other.collect();
    assert!(other.is_empty(), "{}", other.join("\n"));
    assert!(cases.cases.len() > 90);
}

/// A metric of a set.
#[derive(Deserialize)]
struct Metric {
    corpus: f64,
    images: Vec<f64>,
    statistics: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Captions {
    references: Vec<String>,
    hypothesis: String,
}

#[derive(Deserialize)]
struct Expected {
    images: Vec<i64>,
    tokens: BTreeMap<String, Captions>,
    #[serde(flatten)]
    metrics: BTreeMap<String, Metric>,
}

fn corpus(set: &str) -> Corpus {
    let file = |name: &str| std::fs::read(fixtures().join("captions").join(set).join(name)).unwrap();
    let (annotations, results) = (file("annotations.json"), file("results.json"));
    coco::corpus(
        Source { origin: "annotations.json", content: &annotations },
        Source { origin: "results.json", content: &results },
    )
    .unwrap()
}

fn expected(set: &str) -> Expected {
    read(&fixtures().join("captions").join(set).join("expected.json"))
}

#[track_caller]
fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9, "{what}: {found} is not {expected}");
}

/// The number of this name.
fn named(numbers: &CaptionNumbers, name: &str) -> f64 {
    let named = numbers.named();
    named.iter().find(|(own, _)| *own == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn captions_of_files_have_the_references_words() {
    for set in SETS {
        let (corpus, expected) = (corpus(set).tokenized(), expected(set));
        assert_eq!(corpus.images().len(), expected.tokens.len());
        for image in corpus.images() {
            let Captions { references, hypothesis } = &expected.tokens[&image.image.to_string()];
            assert_eq!(
                (&image.references, &image.hypothesis),
                (references, hypothesis),
                "{set} {}",
                image.image
            );
        }
    }
}

#[test]
fn bleu_rouge_and_cider_are_the_toolkits() {
    for set in SETS {
        let (scores, expected) = (CaptionScores::of(&corpus(set).tokenized()), expected(set));
        for name in ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"] {
            let metric = &expected.metrics[name];
            close(named(&scores.corpus(), name), metric.corpus, &format!("{set} {name}"));
            assert_eq!(metric.images.len(), scores.images.len());
            for (id, value) in expected.images.iter().zip(&metric.images) {
                let image = scores.images.iter().find(|image| image.image.to_string() == id.to_string());
                close(named(&image.unwrap().numbers(), name), *value, &format!("{set} {name} of {id}"));
            }
        }
    }
}

#[test]
fn meteor_of_its_counts_is_what_its_program_says() {
    let mut seen = 0;
    for set in SETS {
        for (name, metric) in expected(set).metrics.iter().filter(|(name, _)| name.starts_with("METEOR")) {
            let lines = metric.statistics.as_ref().unwrap();
            let counts: Vec<_> = lines.iter().map(|line| MeteorStatistics::parse(line).unwrap()).collect();
            for (counts, value) in counts.iter().zip(&metric.images) {
                close(counts.score(), *value, &format!("{set} {name}"));
                seen += 1;
            }
            close(
                counts.iter().copied().sum::<MeteorStatistics>().score(),
                metric.corpus,
                &format!("{set} {name}"),
            );
        }
    }
    assert!(seen > 100, "{seen} values of METEOR");
}

#[test]
fn a_draw_counts_an_image_as_often_as_it_is_drawn() {
    let scores = CaptionScores::of(&corpus("main").tokenized());
    let whole: Vec<usize> = (0..scores.images.len()).collect();
    assert_eq!(scores.of_draw(&whole), scores.corpus());
    let twice = scores.of_draw(&[3, 3]);
    assert_eq!(twice.cider, scores.images[3].cider);
    assert_ne!(scores.of_draw(&[0, 1]).bleu, scores.of_draw(&[0, 0]).bleu);
}
