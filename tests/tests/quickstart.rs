//! A quick start of a few steps, and what can be done with what it leaves.

use blip2_tests::process::{blip2, finish, finish_with_input, repository};

#[test]
fn a_short_quick_start_leaves_a_report_a_run_and_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let at = |name: &str| out.join(name).to_str().unwrap().to_owned();
    let short = ["stage1.steps=3", "stage2.steps=3", "stage1.batch=16", "stage2.batch=16", "eval.captions=6"];
    let mut command = blip2(&["quickstart", "--corpus", "emoji", "--json", "--out", out.to_str().unwrap()]);
    for value in short {
        command.args(["--set", value]);
    }
    let ended = finish(command).expect(0);
    let summary = ended.json_lines().pop().unwrap();
    for key in ["seconds", "r@1", "r@5", "r@10", "stage2_loss", "stage2_loss_shuffled", "language_model_loss"]
    {
        assert!(summary[key].is_number(), "{key} in {summary}");
    }
    let survival = &summary["survival"];
    assert!(
        survival["undisturbed"].is_string() && survival["undisturbed"] == survival["killed"],
        "{summary}"
    );
    assert!(survival["epochs_lost"].as_u64() >= Some(1), "a worker was killed: {summary}");
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(report.matches("<figure").count(), 6);

    let again = finish(blip2(&["quickstart", "--corpus", "emoji", "--out", out.to_str().unwrap()]));
    again.expect(4).says(&["--out"]);

    let listed = finish(blip2(&["checkpoint", "ls", &at("run"), "--json"])).expect(0).json_lines();
    assert_eq!(listed.last().unwrap()["step"], 6, "{listed:?}");
    finish(blip2(&["checkpoint", "verify", &at("run")])).expect(0);
    let digest = finish(blip2(&["checkpoint", "digest", &at("run")])).expect(0).stdout;
    assert!(digest.trim_end().ends_with("  6"), "{digest}");
    finish(blip2(&["checkpoint", "export", &at("run"), "--out", &at("again")])).expect(0);
    let weights = |folder: &str| std::fs::read(out.join(folder).join("model.safetensors")).unwrap();
    assert!(weights("again") == weights("export"), "two exports of one checkpoint are the same bytes");

    let picture = folder.path().join("picture.png");
    image::RgbImage::from_pixel(80, 40, image::Rgb([200, 30, 30])).save(&picture).unwrap();
    let picture = picture.to_str().unwrap();
    let export = at("export");
    let generate = |more: &[&str]| {
        blip2(&[&["generate", "--model", &export, "--json", "--image", picture], more].concat())
    };
    let line = finish(generate(&["--beams", "3"])).expect(0).json_lines().remove(0);
    assert_eq!(line["image"], picture);
    assert!(line["text"].is_string() && line["tokens"].is_array(), "{line}");
    let prompted = finish(generate(&["--prompt", "a red"])).expect(0).json_lines().remove(0);
    assert_eq!(prompted["prompt"], "a red");
    let missing = finish(generate(&["none.png"])).expect(3).says(&["none.png"]);
    assert_eq!(missing.json_lines(), [finish(generate(&[])).expect(0).json_lines().remove(0)]);

    let draw = |seed: &str| {
        let options = ["--sample", "--top-p", "0.9", "--samples", "2", "--seed", seed];
        finish(generate(&options)).expect(0).json_lines()
    };
    let drawn = draw("1");
    assert_eq!((drawn.len(), &drawn[1]["sample"]), (2, &serde_json::json!(1)));
    assert!(drawn == draw("1") && drawn != draw("2"), "{drawn:?}");

    let chat = blip2(&["chat", "--model", &export, "--image", picture, "--json", "--max-new-tokens", "8"]);
    let questions = "what is it?\n/nothing\n/image none.png\nwhere?\n/reset\nwhy?\n/quit\nnot asked\n";
    let chat = finish_with_input(chat, questions).expect(0).says(&["/nothing is not a command", "none.png"]);
    let turns = chat.json_lines();
    assert_eq!(turns.len(), 3, "{turns:?}");
    let second = turns[1]["prompt"].as_str().unwrap();
    assert!(
        second.starts_with("Question: what is it? Answer: ") && second.ends_with("Question: where? Answer:")
    );
    assert_eq!(turns[2]["prompt"], "Question: why? Answer:");

    let held_out = format!("{}/assets/corpus/test-00000.parquet", repository().display());
    for (kind, key) in [("retrieval", "r@5"), ("caption", "loss")] {
        let measured = finish(blip2(&["eval", kind, "--model", &at("run"), "--data", &held_out, "--json"]));
        let line = measured.expect(0).json_lines().pop().unwrap();
        assert!(line[key].is_number(), "{line}");
    }
    let exported = blip2(&["eval", "retrieval", "--model", &export, "--data", &held_out]);
    finish(exported).expect(2).says(&["exported", "run"]);
}

#[test]
fn a_quick_start_with_an_encoder_decoder_captions_and_exports() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let mut command = blip2(&["quickstart", "--corpus", "emoji", "--json", "--out", out.to_str().unwrap()]);
    for value in [
        "model.language_model=assets/backbones/t5-scenes",
        "stage1.steps=2",
        "stage2.steps=3",
        "stage1.batch=16",
        "stage2.batch=16",
        "eval.captions=4",
    ] {
        command.args(["--set", value]);
    }
    let summary = finish(command).expect(0).json_lines().pop().unwrap();
    for key in ["stage2_loss", "stage2_loss_shuffled", "language_model_loss"] {
        assert!(summary[key].as_f64().is_some_and(|loss| loss > 0.0 && loss < 20.0), "{key} in {summary}");
    }
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(report.matches("<figure").count(), 4);
    let config = std::fs::read_to_string(out.join("export/config.json")).unwrap();
    assert!(config.contains("\"t5\""), "{config}");
}

#[test]
fn a_short_quick_start_on_scenes_judges_captions_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let mut command = blip2(&["quickstart", "--with", "vqa", "--scenes", "256", "--json"]);
    command.args(["--out", out.to_str().unwrap()]);
    for stage in ["stage1", "stage2", "stages.vqa"] {
        command.args(["--set", &format!("{stage}.steps=2"), "--set", &format!("{stage}.batch=16")]);
    }
    command.args(["--set", "eval.captions=6"]);
    let summary = finish(command).expect(0).json_lines().pop().unwrap();
    let shares = ["r@1", "captions_right", "things_right", "answers_right", "answers_right_shuffled"];
    for key in shares {
        assert!(
            summary[key].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)),
            "{key} in {summary}"
        );
    }
    assert!(summary["captions_right"].as_f64() <= summary["things_right"].as_f64(), "{summary}");
    assert!(summary["stage2_loss"].as_f64().is_some_and(|loss| loss > 0.0), "{summary}");
    assert_eq!(summary["survival"]["undisturbed"], summary["survival"]["killed"], "{summary}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for part in ["captions", "answers", "attention", "retrieval", "caption-loss", "curves", "facts"] {
        assert!(page.contains(&format!("<section id=\"{part}\">")), "{part}");
    }
    assert_eq!(page.matches("<figure").count(), 6 + 16, "captions and answers");
    assert!(page.contains("Audit of the run: exact."));
    // What was trained for questions is measured as any run is.
    let run = out.join("run-vqa");
    let data = out.join("scenes/validation-00000.parquet");
    let measured = finish(blip2(&[
        "eval",
        "vqa",
        "--json",
        "--model",
        run.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ]));
    assert!(measured.expect(0).json_lines().pop().unwrap()["accuracy"].is_number());

    let emoji = finish(blip2(&["quickstart", "--corpus", "emoji", "--with", "vqa"]));
    emoji.expect(2).says(&["--with vqa", "emoji"]);
}
