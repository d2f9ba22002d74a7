//! `eval score` over the golden results of the reference implementations, and over files that are none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_tests::process::{blip2, finish, repository};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn golden(name: &str) -> String {
    repository().join("evaluation/tests/golden").join(name).to_str().unwrap().to_owned()
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

/// The line of a command that scores.
fn scored(arguments: &[&str]) -> Value {
    let ended = finish(blip2(&[&["eval", "score", "--json"], arguments].concat())).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Scores by name and part.
fn by_name(line: &Value, number: &str) -> BTreeMap<(String, String), f64> {
    let scores = line["scores"].as_array().unwrap().iter();
    let named = scores.map(|score| {
        let text = |key: &str| score[key].as_str().unwrap_or_default().to_owned();
        ((text("name"), text("part")), score[number].as_f64().unwrap())
    });
    named.collect()
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn accuracies_are_those_of_the_evaluators() {
    let scratch = Scratch::new();
    let (results, references) = (golden("vqa/results.json"), golden("vqa/annotations.json"));
    let questions = golden("vqa/questions.json");
    let page = scratch.path("page.html").to_str().unwrap().to_owned();
    let expected = read("vqa/expected.json");
    for mode in ["official", "lavis"] {
        let files = ["--results", &results, "--references", &references, "--questions", &questions];
        let line = scored(&[&["--task", "vqa", "--mode", mode, "--report", &page], &files[..]].concat());
        let mut due = BTreeMap::new();
        due.insert(("accuracy".to_owned(), String::new()), expected[mode]["overall"].as_f64().unwrap());
        for kind in ["per_answer_type", "per_question_type"] {
            for (part, value) in expected[mode][kind].as_object().unwrap() {
                due.insert(("accuracy".to_owned(), part.clone()), value.as_f64().unwrap());
            }
        }
        assert_eq!(by_name(&line, "score"), due, "{mode}");
        assert_eq!((&line["mode"], &line["draws"], &line["seed"]), (&json!(mode), &json!(1000), &json!(0)));
        let overall = &line["scores"][0];
        let (low, high) = (&overall["interval"]["low"], &overall["interval"]["high"]);
        assert!(
            low.as_f64() < overall["exact"].as_f64() && overall["exact"].as_f64() < high.as_f64(),
            "{overall}"
        );
        let html = std::fs::read_to_string(&page).unwrap();
        assert_eq!(html.matches("<figure").count(), 49, "a figure for each question");
        assert!(
            html.find("0.00: <bdi>question 1000").unwrap() < html.find("100.00: <bdi>").unwrap(),
            "worst first"
        );
        assert!(html.contains("What is beside the giraffe?"), "the questions' texts");
    }
    // The table has the same, and standard error nothing.
    let table = finish(blip2(&[
        "eval",
        "score",
        "--task",
        "vqa",
        "--results",
        &results,
        "--references",
        &references,
        "--bootstrap",
        "0",
    ]))
    .expect(0);
    assert!(table.stdout.contains("accuracy") && table.stdout.contains("84.01"), "{}", table.stdout);
    assert!(
        table.stdout.contains("answer type number") && table.stdout.contains("one answer"),
        "{}",
        table.stdout
    );
    assert_eq!(table.stderr, "");
}

#[test]
fn two_models_are_compared_on_the_same_draws() {
    let scratch = Scratch::new();
    let mut results = read("vqa/results.json");
    for row in results.as_array_mut().unwrap().iter_mut().take(20) {
        row["answer"] = json!("something else");
    }
    let worse = scratch.write("worse.json", results.to_string());
    let (better, references) = (golden("vqa/results.json"), golden("vqa/annotations.json"));
    let compare = |results: &str, against: &str| {
        let files = ["--results", results, "--against", against, "--references", &references];
        scored(&[&["--task", "vqa", "--bootstrap", "300", "--seed", "5"], &files[..]].concat())
    };
    let line = compare(&better, &worse);
    let overall = &line["scores"][0];
    let difference = overall["against"]["difference"].as_f64().unwrap();
    let of = |score: &Value| score["exact"].as_f64().unwrap();
    assert_eq!(difference, of(overall) - of(&overall["against"]));
    assert!(difference > 10.0 && overall["against"]["interval"]["low"].as_f64().unwrap() > 0.0, "{overall}");
    assert_eq!(overall["against"]["better"], json!(1.0));
    assert_eq!(compare(&better, &worse), line, "the same seed, the same numbers");
    let turned = &compare(&worse, &better)["scores"][0]["against"];
    assert_eq!(turned["difference"].as_f64().unwrap(), -difference);
    assert_eq!(turned["better"], json!(0.0));
}

#[test]
fn captions_are_scored_as_by_the_toolkit() {
    let corpora = ["edges", "empty_hypothesis", "main", "one_image", "same_references", "uneven_references"];
    for corpus in corpora {
        let file = |name: &str| format!("evaluation/tests/fixtures/captions/{corpus}/{name}.json");
        let line = scored(&[
            "--task",
            "caption",
            "--results",
            &file("results"),
            "--references",
            &file("annotations"),
            "--bootstrap",
            "20",
        ]);
        let expected: Value =
            serde_json::from_slice(&std::fs::read(repository().join(file("expected"))).unwrap()).unwrap();
        let found = by_name(&line, "exact");
        let names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"];
        assert_eq!(found.len(), names.len(), "{line}");
        for name in names {
            let (value, due) =
                (found[&(name.to_owned(), String::new())], expected[name]["corpus"].as_f64().unwrap());
            assert!((value / 100.0 - due).abs() < 1e-9, "{corpus}, {name}: {value} is not 100 x {due}");
        }
        assert!(
            line["scores"].as_array().unwrap().iter().all(|score| score["interval"].is_object()),
            "{line}"
        );
        assert!(line["notes"].to_string().contains("without METEOR"), "{line}");
    }
}

/// A file of matrices of float32.
fn tensors(matrices: &[(&str, &Value)]) -> Vec<u8> {
    let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = matrices
        .iter()
        .map(|(name, matrix)| {
            let rows: Vec<Vec<f32>> = serde_json::from_value((*matrix).clone()).unwrap();
            let shape = vec![rows.len(), rows[0].len()];
            (*name, shape, rows.concat().into_iter().flat_map(f32::to_le_bytes).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn recalls_are_those_of_the_reference() {
    let scratch = Scratch::new();
    let due = |golden: &Value, ranking: &str| -> BTreeMap<(String, String), f64> {
        let expected = golden["expected"].as_object().unwrap();
        let named = expected
            .iter()
            .map(|(name, value)| ((name.clone(), ranking.to_owned()), value.as_f64().unwrap()));
        named.collect()
    };
    let once = read("recall.json");
    let results = scratch.write("once.safetensors", tensors(&[("cosine", &once["image_to_text"])]));
    let references = scratch.write("once.json", once.to_string());
    let page = scratch.path("page.html").to_str().unwrap().to_owned();
    let retrieval = |results: &str, references: &str| {
        let files = ["--results", results, "--references", references, "--report", &page];
        scored(&[&["--task", "retrieval"], &files[..]].concat())
    };
    assert_eq!(by_name(&retrieval(&results, &references), "exact"), due(&once, "ITC"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("rank 1"));

    let again = read("reranked.json");
    let matrices = [("scores_i2t", &again["image_to_text"]), ("scores_t2i", &again["text_to_image"])];
    let results = scratch.write("again.safetensors", tensors(&matrices));
    let references = scratch.write("again.json", again.to_string());
    assert_eq!(by_name(&retrieval(&results, &references), "exact"), due(&again, "re-ranked"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("never found"));
}

#[test]
fn other_question_sets_are_scored_by_their_own_measure() {
    let scratch = Scratch::new();
    let gqa = scratch.write(
        "gqa.json",
        r#"{"1": {"imageId": "a", "question": "q", "answer": "two dogs", "types": {"structural": "query"}},
            "2": {"imageId": "a", "question": "q", "answer": "yes", "types": {"structural": "verify"}}}"#,
    );
    let said = scratch.write(
        "said.json",
        r#"[{"questionId": "1", "prediction": "The 2 dogs!"}, {"questionId": "2", "prediction": "no"}]"#,
    );
    let line = scored(&["--task", "gqa", "--results", &said, "--references", &gqa]);
    let scores: Vec<f64> = by_name(&line, "score").into_values().collect();
    assert_eq!(scores, [50.0, 100.0, 0.0]);

    let direct = scratch.write("direct.json", r#"[{"question_id": "x", "direct_answers": ["a", "a", "b"]}]"#);
    let said = scratch.write("direct-said.json", r#"{"x": {"direct_answer": "a", "multiple_choice": "b"}}"#);
    let line = scored(&["--task", "aokvqa", "--results", &said, "--references", &direct]);
    assert_eq!(line["scores"][0]["score"], json!(66.67));

    let known = scratch.write(
        "known.json",
        r#"[{"question_id": 1, "answer": ["dog", "dog", "dog", "dog", "cat"], "image": "a.jpg"}]"#,
    );
    let said = scratch.write("known-said.json", r#"[{"question_id": 1, "answer": "dogs"}]"#);
    let okvqa = ["--task", "okvqa", "--results", &said, "--references", &known];
    let line = scored(&okvqa);
    assert_eq!(line["scores"][0]["score"], json!(0.0));
    assert!(line["notes"][0].as_str().unwrap().starts_with("without lemmatiser"), "{line}");
    let lemmas = scratch.write("lemmas.json", r#"{"dogs": "dog"}"#);
    let line = scored(&[&okvqa[..], &["--lemmas", &lemmas]].concat());
    assert_eq!((&line["scores"][0]["score"], &line["notes"]), (&json!(100.0), &json!([])));

    let own = scratch.write("own.json", r#"[{"question_id": 1, "answer": "a red boat", "image": "a.jpg"}]"#);
    let said = scratch.write("own-said.json", r#"[{"question_id": 1, "answer": "Red boat."}]"#);
    let exact = ["--task", "vqa", "--mode", "exact", "--results", &said, "--references", &own];
    assert_eq!(scored(&exact)["scores"][0]["score"], json!(100.0));
}

#[test]
fn what_cannot_be_scored_says_why() {
    let scratch = Scratch::new();
    let references = golden("vqa/annotations.json");
    let mut results = read("vqa/results.json");
    results.as_array_mut().unwrap().remove(2);
    let short = scratch.write("short.json", results.to_string());
    let nowhere = scratch.path("nowhere.json").to_str().unwrap().to_owned();
    let odd = scratch.write("odd.json", "{\"annotations\": 7}");
    let matrix = scratch.write("x.safetensors", tensors(&[("x", &json!([[1.0, 2.0]]))]));
    let pairs = scratch.write("pairs.json", "[[0], [1]]");
    let whole = golden("vqa/results.json");
    let captions = "evaluation/tests/fixtures/captions/main/annotations.json";
    let cases: [(&[&str], i32, &[&str]); 11] = [
        (&["vqa", &short, &references], 3, &["short.json", "lacks 1 questions", "1014"]),
        (&["vqa", &nowhere, &references], 1, &["nowhere.json"]),
        (&["vqa", &whole, &odd], 3, &["odd.json", "line 1"]),
        (&["retrieval", &matrix, &pairs], 3, &["pairs.json", "2 images, the similarities 1"]),
        (&["retrieval", &whole, &pairs], 3, &["results.json", ".npy or .safetensors"]),
        (&["caption", &whole, captions], 3, &["results.json"]),
        (&["caption", &whole, captions, "--tokenizer", "stanford"], 2, &["--tokenizer", "java:FOLDER"]),
        (&["vqa", &whole, &references, "--meteor", "."], 2, &["--meteor", "--task caption"]),
        (&["gqa", &whole, &references, "--mode", "lavis"], 2, &["--mode", "--task vqa or okvqa"]),
        (&["vqa", &whole, &references, "--lemmas", &odd], 2, &["--lemmas", "--task okvqa"]),
        (&["vqa", &whole, &references, "--bootstrap", "many"], 2, &["--bootstrap"]),
    ];
    for (arguments, code, words) in cases {
        let [task, results, references, more @ ..] = arguments else { unreachable!("three at least") };
        let files = ["eval", "score", "--task", task, "--results", results, "--references", references];
        finish(blip2(&[&files[..], more].concat())).expect(code).says(words);
    }
    assert!(!Path::new(&nowhere).exists());
}
