//! The user's Java programs, played by a script, and played by themselves where `BLIP2_CAPTION_TOOLS` names
//! the folder of the package `pycocoevalcap`.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use blip2_evaluation::caption_tools::java::Java;
use blip2_evaluation::caption_tools::{meteor, ptb, spice};
use blip2_evaluation::error::tools::ToolError;
use blip2_evaluation::metrics::captions::coco::{self, Source};
use blip2_evaluation::metrics::captions::corpus::{Corpus, ImageCaptions};
use blip2_evaluation::metrics::captions::scores::CaptionScores;
use blip2_evaluation::row_id::RowId;
use serde_json::Value;
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A Java that plays, with time enough for a machine that is busy.
fn java() -> Java {
    Java { program: fixtures().join("java/java"), deadline: Duration::from_secs(60) }
}

/// The folder of a tool that does this.
fn folder(jar: &str, play: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(jar), "").unwrap();
    std::fs::write(folder.path().join("play"), play).unwrap();
    folder
}

fn set(name: &str) -> Corpus {
    let file = |file: &str| std::fs::read(fixtures().join("captions").join(name).join(file)).unwrap();
    let (annotations, results) = (file("annotations.json"), file("results.json"));
    coco::corpus(
        Source { origin: "annotations.json", content: &annotations },
        Source { origin: "results.json", content: &results },
    )
    .unwrap()
}

fn expected(name: &str) -> Value {
    let path = fixtures().join("captions").join(name).join("expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const PTB: &str = "stanford-corenlp-3.4.1.jar";
const METEOR: &str = "meteor-1.5.jar";
const SPICE: &str = "spice-1.0.jar";

/// The tool's error, as users read it.
fn message<T>(result: Result<T, ToolError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn words_are_the_lines_that_the_program_prints() {
    // References come before generated captions; a caption is one line whatever is in it.
    let play = r#"[ "$*" = "-Dfile.encoding=UTF-8 -cp stanford-corenlp-3.4.1.jar \
edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase" ] || exit 9
nl -ba -w1 -s' ' | tr A-Z a-z"#;
    let folder = folder(PTB, play);
    let image = |id, references: &[&str], hypothesis: &str| ImageCaptions {
        image: RowId::Number(id),
        references: references.iter().map(|&text| text.to_owned()).collect(),
        hypothesis: hypothesis.to_owned(),
    };
    let images = vec![image(1, &["One , .", "Two\nlines"], "Three"), image(2, &["Four"], "")];
    let words = ptb::tokenized(&Corpus::new(images).unwrap(), folder.path(), &java()).unwrap();
    assert_eq!(words.images()[0].references, ["1 one", "2 two lines"]);
    assert_eq!(words.images()[0].hypothesis, "4 three");
    assert_eq!(words.images()[1].references, ["3 four"]);
    assert_eq!(words.images()[1].hypothesis, "5");
}

#[test]
fn the_packages_folder_is_as_good_as_the_tools() {
    let package = tempfile::tempdir().unwrap();
    let tool = package.path().join("tokenizer");
    std::fs::create_dir(&tool).unwrap();
    std::fs::write(tool.join(PTB), "").unwrap();
    std::fs::write(tool.join("play"), "cat").unwrap();
    ptb::tokenized(&set("one_image"), package.path(), &java()).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let (corpus, empty) = (set("one_image"), tempfile::tempdir().unwrap());
    let jar = message(ptb::tokenized(&corpus, empty.path(), &java()));
    assert!(jar.contains(PTB) && jar.contains("pycocoevalcap"), "{jar}");
    let folder = folder(METEOR, "");
    let none = Java { program: PathBuf::from("no-such-java"), ..java() };
    let started = meteor::statistics(&corpus.tokenized(), folder.path(), &none);
    assert!(matches!(&started, Err(ToolError::NoJava { .. })), "{started:?}");
    assert!(message(started).contains("install a Java runtime"));
}

#[test]
fn a_program_that_waits_is_stopped() {
    let folder = folder(METEOR, "exec sleep 600");
    let java = Java { deadline: Duration::from_millis(200), ..java() };
    let waited = message(meteor::statistics(&set("one_image").tokenized(), folder.path(), &java));
    assert!(waited.starts_with("METEOR said nothing"), "{waited}");
}

#[test]
fn a_program_that_fails_is_quoted() {
    let folder = folder(PTB, "echo 'java.lang.OutOfMemoryError: heap' >&2; exit 3");
    let failed = message(ptb::tokenized(&set("one_image"), folder.path(), &java()));
    assert!(failed.contains("OutOfMemoryError") && failed.contains('3'), "{failed}");
}

#[test]
fn fewer_lines_than_captions_are_no_words() {
    let folder = folder(PTB, "head -n 2");
    assert!(message(ptb::tokenized(&set("one_image"), folder.path(), &java())).contains("ended early"));
}

/// A METEOR that answers with the counts of a set in the order of its ids, and says this of all of them.
fn meteor_of(name: &str, own: f64) -> TempDir {
    let expected = expected(name);
    let values = |pointer: &str| expected.pointer(pointer).unwrap().as_array().unwrap().clone();
    let mut counts: Vec<_> = values("/images").into_iter().zip(values("/METEOR/statistics")).collect();
    counts.sort_by_key(|(image, _)| image.as_i64());
    let lines: Vec<&str> = counts.iter().map(|(_, line)| line.as_str().unwrap()).collect();
    let play = format!(
        r#"[ "$*" = "-Xmx2G -Dfile.encoding=UTF-8 -jar {METEOR} - - -stdio -l en -norm" ] || exit 9
exec 3< counts
while read -r line; do
  case $line in
    "SCORE ||| "*) read -r answer <&3; echo "$answer" ;;
    "EVAL ||| "*) for each in $(seq {}); do echo 0.5; done; echo {own} ;;
    *) exit 9 ;;
  esac
done"#,
        lines.len()
    );
    let folder = folder(METEOR, &play);
    std::fs::write(folder.path().join("counts"), lines.join("\n") + "\n").unwrap();
    folder
}

#[test]
fn meteor_is_made_of_what_the_program_counts() {
    let value = expected("main").pointer("/METEOR/corpus").unwrap().as_f64().unwrap();
    let (corpus, folder) = (set("main").tokenized(), meteor_of("main", value));
    let counts = meteor::statistics(&corpus, folder.path(), &java()).unwrap();
    let scores = CaptionScores::of(&corpus).with_meteor(&counts).unwrap();
    assert!((scores.corpus().meteor.unwrap() - value).abs() < 1e-9);
    assert!(scores.images[0].numbers().meteor.unwrap() > 0.0);
}

#[test]
fn a_program_with_another_formula_is_refused() {
    let folder = meteor_of("main", 0.9);
    let refused = message(meteor::statistics(&set("main").tokenized(), folder.path(), &java()));
    assert!(refused.contains("0.9") && refused.contains("for the set"), "{refused}");
}

#[test]
fn spice_finds_its_images_by_their_places() {
    let play = r#"[ "$1 $2 $3 $4" = "-Xmx8G -Dfile.encoding=UTF-8 -jar spice-1.0.jar" ] || exit 9
[ -d "$7" ] && [ "$6 $8 ${10} ${11}" = "-cache -out -subset -silent" ] || exit 9
grep -q '"image_id":0,"test":"several laptops' "$5" || exit 9
echo '[{"image_id": 0, "scores": {"All": {"f": 0.25, "pr": 1.0}}}]' > "$9""#;
    let (corpus, tool) = (set("one_image").tokenized(), folder(SPICE, play));
    assert_eq!(spice::scores(&corpus, tool.path(), &java()).unwrap(), [0.25]);
    let other = folder(SPICE, &play.replace(r#""image_id": 0, "scores""#, r#""image_id": 7, "scores""#));
    assert!(message(spice::scores(&corpus, other.path(), &java())).contains("one for each of 1 images"));
    let silent = folder(SPICE, "exit 0");
    assert!(message(spice::scores(&corpus, silent.path(), &java())).starts_with("SPICE"));
}

/// The real ones.
#[test]
#[ignore = "runs the user's Java programs: BLIP2_CAPTION_TOOLS names the folder of pycocoevalcap"]
fn the_programs_themselves_give_the_expected_numbers() {
    let package = std::env::var_os("BLIP2_CAPTION_TOOLS").expect("BLIP2_CAPTION_TOOLS names the folder");
    for name in ["main", "one_image", "uneven_references", "same_references", "edges"] {
        let (corpus, expected) = (set(name), expected(name));
        let words = ptb::tokenized(&corpus, Path::new(&package), &Java::default()).unwrap();
        assert_eq!(words, corpus.tokenized(), "{name}");
        let counts = meteor::statistics(&words, Path::new(&package), &Java::default()).unwrap();
        let scores = CaptionScores::of(&words).with_meteor(&counts).unwrap();
        let value = expected.pointer("/METEOR/corpus").unwrap().as_f64().unwrap();
        assert!((scores.corpus().meteor.unwrap() - value).abs() < 1e-9, "{name}");
    }
}
