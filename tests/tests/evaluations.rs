//! `eval caption|vqa|retrieval|itm` over sets of one's own: the same results by one process, by shares and
//! after a stop; results that `eval score` reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use blip2_tests::process::{Ended, blip2, finish, poll, signal, start};
use blip2_tests::run::SmallRun;
use serde_json::{Value, json};

/// Images of the set, each of one colour.
const COLOURS: [(&str, [u8; 3]); 5] = [
    ("red", [200, 30, 30]),
    ("green", [30, 200, 30]),
    ("blue", [30, 30, 200]),
    ("white", [250, 250, 250]),
    ("black", [5, 5, 5]),
];

/// A set and the run that is evaluated on it.
struct Set<'a> {
    folder: tempfile::TempDir,
    run: &'a SmallRun,
}

impl<'a> Set<'a> {
    /// Five images with two captions and a question each.
    fn new(run: &'a SmallRun) -> Self {
        let set = Self { folder: tempfile::tempdir().unwrap(), run };
        let images = set.path("images");
        std::fs::create_dir(&images).unwrap();
        let (mut captions, mut questions) = (String::new(), "image,question,answer\n".to_owned());
        for (name, colour) in COLOURS {
            image::RgbImage::from_pixel(40, 30, image::Rgb(colour))
                .save(images.join(format!("{name}.png")))
                .unwrap();
            let texts = [format!("a {name} square"), format!("all is {name} here")];
            captions += &format!("{}\n", json!({"image": format!("{name}.png"), "caption": texts}));
            questions += &format!("{name}.png,\"What colour, please?\",{name}\n");
        }
        std::fs::write(set.path("captions.jsonl"), captions).unwrap();
        std::fs::write(set.path("questions.csv"), questions).unwrap();
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// Evaluates the run on a file of the set, two items a unit, with results in `out`.
    fn evaluate(&self, kind: &str, data: &str, out: &str, more: &[&str]) -> Ended {
        finish(self.command(kind, data, out, more))
    }

    fn command(&self, kind: &str, data: &str, out: &str, more: &[&str]) -> Command {
        let (model, data, out) = (self.run.root(), self.text(data), self.text(out));
        let images = self.text("images");
        let set = ["--model", model.to_str().unwrap(), "--data", &data, "--images", &images];
        let units = ["--out", &out, "--unit-items", "2", "--bootstrap", "50", "--json"];
        blip2(&[&["eval", kind], &set[..], &units[..], more].concat())
    }

    /// What `eval score` says of results.
    fn rescored(&self, task: &str, results: &str, references: &str, more: &[&str]) -> Value {
        let (results, references) = (self.text(results), self.text(references));
        let files = ["--results", &results, "--references", &references, "--bootstrap", "50", "--json"];
        let ended = finish(blip2(&[&["eval", "score", "--task", task], &files[..], more].concat()));
        line(&ended.expect(0))
    }
}

fn line(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

const SHORT: [&str; 6] = ["--beams", "2", "--max-new-tokens", "5", "--min-new-tokens", "1"];

fn same_file(first: &Path, second: &Path) {
    let read = |path: &Path| std::fs::read(path).unwrap();
    assert!(read(first) == read(second), "{} and {} differ", first.display(), second.display());
}

/// One run, which all parts evaluate: nothing in them depends on how well it is trained.
#[test]
fn a_run_is_evaluated_over_sets_of_ones_own() {
    let run = SmallRun::short("");
    run.train(&["--workers", "1"]).expect(0);
    captions_are_the_same_whoever_writes_them(&run);
    another_search_is_another_evaluation(&run);
    answers_are_written_in_the_data_sets_form_and_scored(&run);
    pairs_are_ranked_by_cosine_and_anew(&run);
    pairs_are_scored(&run);
}

fn captions_are_the_same_whoever_writes_them(run: &SmallRun) {
    let set = Set::new(run);
    let page = set.text("page.html");
    let whole =
        set.evaluate("caption", "captions.jsonl", "whole", &[&SHORT[..], &["--report", &page]].concat());
    let whole = line(&whole.expect(0));
    assert_eq!((&whole["task"], &whole["images"]), (&json!("caption"), &json!(5)));
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("data:image/jpeg;base64").count(), 5, "every case has its image");

    // Three units: one is the second share's, and whoever is last scores.
    let share = |share| {
        set.evaluate("caption", "captions.jsonl", "shares", &[&SHORT[..], &["--shard", share]].concat())
    };
    let first = share("1/2").expect(0).says(&["1 of 3 units"]);
    assert_eq!(first.stdout, "", "nothing is scored before all is written");
    assert_eq!(line(&share("0/2").expect(0))["scores"], whole["scores"]);
    for name in ["results.json", "references.json", "captions/000000.jsonl", "captions/000002.jsonl"] {
        same_file(&set.path("whole").join(name), &set.path("shares").join(name));
    }

    // Workers write the same, as many as there are, and so does whoever goes on after a coordinator was
    // killed.
    let one = [&SHORT[..], &["--workers", "1"]].concat();
    let three = [&SHORT[..], &["--workers", "3"]].concat();
    let by_three = line(&set.evaluate("caption", "captions.jsonl", "three", &three).expect(0));
    assert_eq!(by_three["scores"], whole["scores"]);
    let killed = start(set.command("caption", "captions.jsonl", "killed", &one));
    let first = poll(|| std::fs::read_dir(set.path("killed/captions")).ok()?.next());
    assert!(first.is_some(), "{}", killed.stderr());
    signal(killed.id(), "KILL");
    killed.wait();
    set.evaluate("caption", "captions.jsonl", "killed", &three).expect(0);
    for name in ["results.json", "captions/000000.jsonl", "captions/000001.jsonl", "captions/000002.jsonl"] {
        same_file(&set.path("whole").join(name), &set.path("three").join(name));
        same_file(&set.path("whole").join(name), &set.path("killed").join(name));
    }

    // A unit that is lost is written again, and no other.
    std::fs::remove_file(set.path("shares/captions/000001.jsonl")).unwrap();
    let again = set.evaluate("caption", "captions.jsonl", "shares", &SHORT).expect(0);
    assert_eq!(line(&again)["scores"], whole["scores"]);

    let rescored = set.rescored("caption", "whole/results.json", "whole/references.json", &[]);
    assert_eq!(rescored["scores"], whole["scores"]);
}

fn another_search_is_another_evaluation(run: &SmallRun) {
    let set = Set::new(run);
    set.evaluate("caption", "captions.jsonl", "out", &SHORT).expect(0);
    let other = [&SHORT[..], &["--prompt", "this is"]].concat();
    set.evaluate("caption", "captions.jsonl", "out", &other).expect(4).says(&["another --out"]);
    std::fs::remove_file(set.path("images/blue.png")).unwrap();
    set.evaluate("caption", "captions.jsonl", "new", &SHORT).expect(3).says(&["blue.png", "--images"]);
}

fn answers_are_written_in_the_data_sets_form_and_scored(run: &SmallRun) {
    let set = Set::new(run);
    let scored = line(&set.evaluate("vqa", "questions.csv", "out", &SHORT).expect(0));
    // There is one answer a question: nobody is left to agree with.
    assert_eq!((&scored["mode"], &scored["scores"][0]["items"]), (&json!("exact"), &json!(5)));
    let results = set.json("out/results.json");
    let ids: Vec<i64> =
        results.as_array().unwrap().iter().map(|row| row["question_id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    let answer = results[0]["answer"].as_str().unwrap();
    assert_eq!(answer, answer.trim().to_lowercase());
    let rescored = set.rescored("vqa", "out/results.json", "out/references.json", &["--mode", "exact"]);
    assert_eq!(rescored["scores"], scored["scores"]);
    // With what is right as results, the very same references give 100.
    let right: Vec<Value> = (COLOURS.iter().enumerate())
        .map(|(id, (name, _))| json!({"question_id": id, "answer": name}))
        .collect();
    std::fs::write(set.path("right.json"), json!(right).to_string()).unwrap();
    let right = set.rescored("vqa", "right.json", "out/references.json", &["--mode", "exact"]);
    assert_eq!(right["scores"][0]["score"], 100.0);
}

fn pairs_are_ranked_by_cosine_and_anew(run: &SmallRun) {
    let set = Set::new(run);
    let rerank = ["--rerank", "3"];
    let whole = line(&set.evaluate("retrieval", "captions.jsonl", "whole", &rerank).expect(0));
    let rankings: Vec<&Value> =
        whole["scores"].as_array().unwrap().iter().filter(|score| score["name"] == "txt_r1").collect();
    assert_eq!(rankings.len(), 2, "{whole}");
    assert_eq!((&rankings[0]["part"], &rankings[1]["part"]), (&json!("ITC"), &json!("re-ranked")));
    let items = whole["scores"].as_array().unwrap().iter().find(|score| score["name"] == "img_r1").unwrap();
    assert_eq!(items["items"], 10, "two texts an image");
    let rescored = set.rescored("retrieval", "whole/results.safetensors", "whole/references.json", &[]);
    assert_eq!(rescored["scores"], whole["scores"]);

    // Workers rank anew what follows from the cosines of all.
    let workers = [&rerank[..], &["--workers", "2"]].concat();
    set.evaluate("retrieval", "captions.jsonl", "workers", &workers).expect(0);
    same_file(&set.path("whole/results.safetensors"), &set.path("workers/results.safetensors"));

    // The pairs to rank anew are known when all cosines are there.
    let share = |share| {
        set.evaluate("retrieval", "captions.jsonl", "shares", &[&rerank[..], &["--shard", share]].concat())
    };
    share("0/2").expect(0).says(&["of cosines are done"]);
    share("1/2").expect(0).says(&["of matches are done"]);
    assert_eq!(line(&share("0/2").expect(0))["scores"], whole["scores"]);
    same_file(&set.path("whole/results.safetensors"), &set.path("shares/results.safetensors"));
}

fn pairs_are_scored(run: &SmallRun) {
    let set = Set::new(run);
    let summary = line(&set.evaluate("itm", "captions.jsonl", "out", &[]).expect(0));
    assert_eq!((&summary["images"], &summary["scores"][0]["items"]), (&json!(5), &json!(10)));
    let results = set.json("out/results.json");
    for pair in results.as_array().unwrap() {
        let number = |name: &str| pair[name].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&number("probability")), "{pair}");
        assert!((-1.001..=1.001).contains(&number("cosine")) && number("logit").is_finite(), "{pair}");
    }
    assert_eq!(results[1]["caption"], "all is red here");
}
