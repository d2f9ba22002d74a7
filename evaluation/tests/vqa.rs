//! Normalisation and accuracy against the evaluators of VQA and of LAVIS, every number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_evaluation::answer_files::questions::{self, Form, Question};
use blip2_evaluation::answer_files::results;
use blip2_evaluation::answers::{Measure, means};
use blip2_evaluation::metrics::bootstrap::{ScoreName, Scored as _};
use blip2_evaluation::metrics::rounding::two_decimals;
use blip2_evaluation::metrics::vqa::Mode;
use blip2_evaluation::metrics::vqa::normalise::{punctuation, words};
use blip2_evaluation::row_id::RowId;
use serde::Deserialize;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vqa")
}

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Normalise {
    count: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    punctuation: String,
    normalised: String,
}

#[derive(Deserialize)]
struct Expected {
    official: Accuracy,
    lavis: Accuracy,
}

#[derive(Deserialize)]
struct Accuracy {
    overall: f64,
    overall_12_digits: f64,
    per_answer_type: BTreeMap<String, f64>,
    per_question_type: BTreeMap<String, f64>,
    per_question: BTreeMap<String, f64>,
}

/// A number as it is written with twelve digits.
fn twelve(value: f64) -> f64 {
    format!("{value:.12}").parse().unwrap()
}

#[test]
fn texts_are_normalised_as_by_the_evaluators() {
    let golden: Normalise = golden("normalise.json");
    assert_eq!(golden.cases.len(), golden.count);
    for Case { text, punctuation: first, normalised } in golden.cases {
        assert_eq!(punctuation(&text), first, "{text:?}");
        assert_eq!(words(&punctuation(&text)), normalised, "{text:?}");
    }
}

fn compare(mode: Mode, expected: &Accuracy, questions: &[Question], answers: &[String]) {
    let measure = Measure::Accuracy(mode);
    let counts: Vec<f64> =
        questions.iter().zip(answers).map(|(question, answer)| measure.of(question, answer)).collect();
    assert_eq!(expected.per_question.len(), questions.len());
    for (question, value) in questions.iter().zip(&counts) {
        let id = question.id.to_string();
        assert_eq!(twelve(100.0 * value), expected.per_question[&id], "{mode:?} {id}");
    }
    let means = means(questions, &counts);
    let mut due = BTreeMap::from([(ScoreName::overall("accuracy"), expected.overall)]);
    let types = [("answer type", &expected.per_answer_type), ("question type", &expected.per_question_type)];
    for (kind, values) in types {
        due.extend(values.iter().map(|(name, value)| (ScoreName::of("accuracy", kind, name), *value)));
    }
    let rounded = means.values().into_iter().map(two_decimals);
    let found: BTreeMap<_, _> = means.names().iter().cloned().zip(rounded).collect();
    assert_eq!(found, due, "{mode:?}");
    assert_eq!(twelve(means.values()[0]), expected.overall_12_digits, "{mode:?}");
}

#[test]
fn accuracies_are_those_of_both_evaluators() {
    let expected: Expected = golden("expected.json");
    let mut questions = questions::read(&folder().join("annotations.json"), Form::Vqa).unwrap();
    questions::add_texts(&folder().join("questions.json"), &mut questions).unwrap();
    assert!(questions.iter().all(|question| question.text.is_some()));
    let answers = results::read(&folder().join("results.json"), &questions).unwrap();
    compare(Mode::Official, &expected.official, &questions, &answers);
    compare(Mode::Lavis, &expected.lavis, &questions, &answers);
}

/// A file with this text.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn all_forms_of_questions_are_read() {
    let read = |form, text| questions::read(file(text).path(), form).unwrap();
    let lavis = read(
        Form::Vqa,
        r#"[{"question_id": 3, "question": "what?", "answer": ["a", "b"], "image": "x/1.jpg", "dataset": "vqa"},
            {"question_id": 4, "question": "why?", "answer": "c", "image": "x/2.jpg"}]"#,
    );
    assert_eq!((lavis[0].answers.len(), lavis[1].answers.len()), (2, 1));
    assert_eq!(lavis[1].image, RowId::Text("x/2.jpg".into()));
    let official = r#"{"02": {"imageId": "n7", "question": "q", "answer": "yes", "isBalanced": true,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "x"}}}"#;
    let gqa = read(Form::Gqa, official);
    assert_eq!(
        (gqa[0].id.clone(), gqa[0].image.clone()),
        (RowId::Text("02".into()), RowId::Text("n7".into()))
    );
    let types = [("structural type", "verify".to_owned()), ("semantic type", "attr".to_owned())];
    assert_eq!(gqa[0].types, types);
    let list =
        read(Form::Gqa, r#"[{"question_id": "5", "question": "q", "answer": "yes", "image": "1.jpg"}]"#);
    assert_eq!(list[0].id, RowId::Number(5));
    let direct = r#"[{"question_id": "22MexN", "image_id": 9, "question": "q", "choices": ["a"],
        "direct_answers": ["a", "a", "b"], "difficult_direct_answer": false}]"#;
    assert_eq!(read(Form::AOkVqa, direct)[0].answers.len(), 3);
}

#[test]
fn all_forms_of_results_are_read() {
    let asked = questions::read(
        file(r#"[{"question_id": 1, "answer": "a"}, {"question_id": "b2", "answer": "b"}]"#).path(),
        Form::Vqa,
    )
    .unwrap();
    for text in [
        r#"[{"question_id": "b2", "answer": "y"}, {"question_id": "1", "answer": "x"}]"#,
        r#"[{"questionId": 1, "prediction": "x"}, {"questionId": "b2", "prediction": "y"}]"#,
        r#"[{"question_id": 1, "pred_ans": "x", "gt_ans": "a"}, {"question_id": "b2", "pred_ans": "y"}]"#,
        r#"{"1": {"multiple_choice": "z", "direct_answer": "x"}, "b2": {"direct_answer": "y"}}"#,
    ] {
        assert_eq!(results::read(file(text).path(), &asked).unwrap(), ["x", "y"], "{text}");
    }
    for (text, words) in [
        (r#"[{"question_id": 1, "answer": "x"}]"#, &["lacks 1 questions", "b2"][..]),
        (
            r#"[{"question_id": 1, "answer": "x"}, {"question_id": 3, "answer": ""}, {"question_id": 4, "answer": ""}]"#,
            &["lacks 1", "has 2 ids", "3, 4"],
        ),
        (
            r#"[{"question_id": 1, "answer": "x"}, {"question_id": "1", "answer": "x"}]"#,
            &["question 1", "twice"],
        ),
        (r#"[{"question_id": 1, "answer": 5}]"#, &["line 1"]),
        (r#"[{"question_id": 1, "answer": "x", "prediction": "x"}]"#, &["duplicate"]),
        (r#"{"1": {"direct_answer": "x"}, "1": {"direct_answer": "x"}}"#, &["`1`", "twice"]),
        ("[", &["EOF"]),
        ("", &["no JSON"]),
        ("[] []", &["trailing"]),
    ] {
        let error = results::read(file(text).path(), &asked).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

#[test]
fn questions_that_cannot_be_asked_are_refused() {
    let nested = format!(r#"{{"info": {}"#, "[".repeat(100_000));
    let many = vec!["\"a\""; 1001].join(",");
    let many = format!(r#"[{{"question_id": 1, "answer": [{many}]}}]"#);
    for (form, text, word) in [
        (Form::Vqa, r#"{"annotations": []}"#, "no questions"),
        (Form::Vqa, r#"{"questions": []}"#, "annotations"),
        (Form::Vqa, r#"[{"question_id": 1, "question": "q"}]"#, "no answer"),
        (Form::Vqa, r#"[{"question_id": 1, "answer": "a"}, {"question_id": 1, "answer": "a"}]"#, "twice"),
        (Form::Gqa, r#"{"1": {"answer": "a"}, "1": {"answer": "a"}}"#, "twice"),
        (Form::Gqa, r#"{"1": {"question": "q"}}"#, "no answer"),
        (Form::AOkVqa, r#"[{"question_id": 1, "answer": "a"}]"#, "no answer"),
        (Form::AOkVqa, "{}", "list"),
        (Form::Vqa, &nested, "EOF"),
        (Form::Vqa, &many, "more than 1000"),
    ] {
        let error = questions::read(file(text).path(), form).unwrap_err().to_string();
        assert!(error.contains(word), "{form:?} {word}: {error}");
    }
    let mut asked =
        questions::read(file(r#"[{"question_id": 1, "answer": "a", "image": 7}]"#).path(), Form::Vqa)
            .unwrap();
    for (text, word) in [
        (r#"{"questions": [{"question_id": 1, "image_id": 8, "question": "q"}]}"#, "image 8"),
        (r#"{"questions": [{"question_id": 2, "image_id": 7, "question": "q"}]}"#, "lacks 1"),
    ] {
        let error = questions::add_texts(file(text).path(), &mut asked).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
