//! Models and corpora at URLs: fetched, signed, and never shown with what lets one in.

use std::collections::BTreeMap;
use std::process::Command;

use blip2_tests::file_server::{FileServer, Site};
use blip2_tests::process::{blip2, finish, repository};
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use blip2_tests::secrets::Secrets;

/// `reader:tops3cret`, as HTTP encodes it.
const BASIC: &str = "Basic cmVhZGVyOnRvcHMzY3JldA==";
/// What must not be found anywhere.
fn secrets() -> Secrets {
    Secrets::new(["tops3cret", "5ignature-one", "5ignature-two"])
}

/// A command whose models are kept in the run's folder.
fn cached(run: &SmallRun, arguments: &[&str]) -> Command {
    let mut command = blip2(arguments);
    command.env("BLIP2_CACHE", run.scratch().join("cache"));
    command
}

#[test]
fn a_run_on_signed_urls_is_the_same_run_and_stores_no_secret() {
    let local = SmallRun::short("");
    local.train(&["--workers", "2"]).expect(0);

    let server = FileServer::start(Site {
        folder: Some(repository().join("assets")),
        authorization: Some(BASIC.into()),
        signatures: vec!["id=7&sig=5ignature-one".into(), "id=7&sig=5ignature-two".into()],
        ..Site::default()
    });
    let run = SmallRun::short("");
    let model = |key: &str, folder: &str| {
        format!("model.{key}=http://reader:tops3cret@{}/backbones/{folder}", server.address)
    };
    let corpus = |signature: &str| {
        format!("data.train=[\"http://{}/corpus/test-00000.parquet?id=7&sig={signature}\"]", server.address)
    };
    let set = |signature: &str| {
        [
            corpus(signature),
            model("image_encoder", "eva-tiny"),
            model("language_model", "opt-tiny"),
            model("qformer_init", "bert-tiny"),
            model("qformer_tokenizer", "qformer-tokenizer"),
        ]
    };
    let train = |signature: &str, more: &[&str]| {
        let set = set(signature);
        let mut arguments = vec!["--log", "json", "train", "--config", run.config(), "--workers", "2"];
        set.iter().for_each(|value| arguments.extend(["--set", value]));
        arguments.extend(more);
        finish({
            let mut command = cached(&run, &arguments);
            command.env("BLIP2_LOG", "debug");
            command
        })
    };
    secrets().assert_unsaid(&train("5ignature-one", &[]).expect(0));
    assert_eq!(run.digest(), local.digest(), "where models and rows come from changes no bit");
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);
    secrets().assert_not_below(&run.root());
    let pinned = std::fs::read_to_string(run.root().join("run.toml")).unwrap();
    assert!(pinned.contains("http://REDACTED@127.0.0.1") && pinned.contains("?id=7&REDACTED"), "{pinned}");

    // What is stored lacks the credentials; the models that were fetched with them are here.
    let root = run.root().display().to_string();
    let data = format!("{}/assets/corpus/test-00000.parquet", repository().display());
    let measured =
        finish(cached(&run, &["eval", "retrieval", "--model", &root, "--data", &data, "--json"])).expect(0);
    assert!(measured.json_lines()[0]["r@1"].is_number());

    // A URL that was signed anew is the same URL; one that has expired says so.
    let again = train("5ignature-two", &["--resume"]);
    secrets().assert_unsaid(&again);
    assert!(!again.stderr.contains("another configuration"), "{}", again.stderr);
    let fresh = run.scratch().join("other");
    let root = format!("run.root={}", fresh.display());
    let expired = train("5ignature-old", &["--set", &root]);
    assert_ne!(expired.code, Some(0));
    assert!(
        expired.stderr.contains("expired") && !expired.stderr.contains("5ignature-old"),
        "{}",
        expired.stderr
    );

    let shown = set("5ignature-one");
    let mut arguments = vec!["config", "show"];
    shown.iter().for_each(|value| arguments.extend(["--set", value]));
    secrets().assert_unsaid(&finish(blip2(&arguments)).expect(0));
}

#[test]
fn a_run_as_beginning_means_its_newest_whole_checkpoint() {
    let first = SmallRun::short("");
    first.train(&["--workers", "1", "--set", "stage2.steps=0"]).expect(0);
    let checkpoints = first.root().join("checkpoints");
    let mut names: Vec<_> =
        std::fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let [.., whole, damaged] = names.as_slice() else { panic!("two checkpoints or more: {names:?}") };
    let part = std::fs::read_dir(checkpoints.join(damaged)).unwrap().flatten().map(|entry| entry.path());
    let part = part.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).min().unwrap();
    let flip_a_bit = || {
        let mut content = std::fs::read(&part).unwrap();
        let last = content.len() - 1;
        content[last] ^= 1;
        std::fs::write(&part, content).unwrap();
    };
    flip_a_bit();

    let second = SmallRun::short("");
    let init = format!("model.init_checkpoint={}", first.root().display());
    let arguments = ["--workers", "1", "--set", "stage1.steps=0", "--set", &init];
    let (whole, damaged) = (whole.to_str().unwrap(), damaged.to_str().unwrap());
    second.train(&arguments).expect(0).says(&[
        damaged,
        "passed over",
        &format!("starting from checkpoint {whole}"),
    ]);
    let pinned = std::fs::read_to_string(second.root().join("run.toml")).unwrap();
    assert!(pinned.contains(&format!("checkpoints/{whole}\"")), "{pinned}");
    // The checkpoint it began with stays, whatever the first run does since.
    flip_a_bit();
    let again = second.train(&[&arguments[..], &["--resume"]].concat());
    assert!(!again.stderr.contains("another configuration"), "{}", again.stderr);
}

#[test]
fn places_that_are_none_are_refused_with_what_may_be_named() {
    let run = SmallRun::short("");
    let known = ["`ftp://`", "s3://", "gs://", "az://", "http(s)://", "file://"];
    for arguments in [
        &["checkpoint", "ls", "ftp://host/run"][..],
        &["audit", "ftp://host/run"],
        &["generate", "--model", "ftp://host/model", "--image", "x.png"],
        &["eval", "retrieval", "--model", "ftp://host/run", "--data", "x.parquet"],
    ] {
        finish(blip2(arguments)).expect(2).says(&known);
    }
    for setting in [
        "run.root=ftp://host/run",
        "data.train=[\"ftp://host/a.parquet\"]",
        "model.image_encoder=ftp://host/eva",
        "model.init_checkpoint=ftp://host/a.pth",
    ] {
        run.train(&["--set", setting]).expect(78).says(&known);
    }
    run.train(&["--set", "run.root=s3://key:s3cret@bucket/run"])
        .expect(78)
        .says(&["AWS_ACCESS_KEY_ID", "REDACTED@"]);
}

#[test]
fn s3_without_credentials_says_what_to_set() {
    let mut command = blip2(&["checkpoint", "ls", "s3://some-bucket/run"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    // As on every machine that is not Amazon's.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    finish(command).expect(1).says(&[
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT",
        "AWS_SKIP_SIGNATURE",
    ]);
}

/// A hub with the tokenizer's folder as a model, and weights.
fn hub() -> Site {
    let listing = serde_json::json!({
        "sha": "abc123",
        "cardData": {"license": "mit"},
        "siblings": [
            {"rfilename": "config.json", "size": 2}, {"rfilename": "model.safetensors", "size": 5},
            {"rfilename": "pytorch_model.bin", "size": 5}, {"rfilename": "tf_model.h5", "size": 5},
        ],
    });
    let answers = BTreeMap::from([
        ("/api/models/owner/tiny/revision/main".to_owned(), listing.to_string().into_bytes()),
        ("/owner/tiny/resolve/abc123/config.json".to_owned(), b"{}".to_vec()),
        ("/owner/tiny/resolve/abc123/model.safetensors".to_owned(), b"abcde".to_vec()),
    ]);
    Site { answers, authorization: Some("Bearer hf_tops3cret".into()), ..Site::default() }
}

#[test]
fn models_are_got_from_a_hub_by_name() {
    let server = FileServer::start(hub());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny");
    let get = |name: &str, variables: &[(&str, &str)]| {
        let mut command = blip2(&["models", "get", name, "--out", out.to_str().unwrap()]);
        for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", folder.path()).envs(variables.iter().copied());
        finish(command)
    };
    let endpoint = format!("http://{}", server.address);
    get("owner/tiny", &[("HF_ENDPOINT", &endpoint)]).expect(4).says(&["HF_TOKEN", "owner/tiny"]);
    let known = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "hf_tops3cret")];
    let got = get("owner/tiny", &known).expect(0).says(&["licence: mit", "2 files"]);
    secrets().assert_unsaid(&got);
    assert_eq!(std::fs::read(out.join("model.safetensors")).unwrap(), b"abcde");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2, "one format");
    get("owner/tiny", &known).expect(0).says(&["there already"]);
    get("owner/none", &known).expect(1).says(&["no model `owner/none`"]);
    get("no name", &known).expect(2).says(&["OWNER/NAME"]);
    get("owner/tiny", &[("HF_HUB_OFFLINE", "1")]).expect(4).says(&["HF_HUB_OFFLINE"]);
    let nobody = [("HF_ENDPOINT", "http://127.0.0.1:1")];
    get("owner/tiny", &nobody).expect(1).says(&["cannot reach http://127.0.0.1:1", "HF_ENDPOINT"]);
    finish(blip2(&["models", "list"])).expect(0);
}

#[test]
fn the_models_of_a_configuration_are_checked_without_reading_weights() {
    let run = SmallRun::short("");
    let check = |set: &[&str]| {
        let mut arguments = vec!["models", "check", "--config", run.config(), "--json"];
        set.iter().for_each(|value| arguments.extend(["--set", value]));
        finish(blip2(&arguments))
    };
    let fine = check(&[]).expect(0);
    let report = &fine.json_lines()[0];
    assert_eq!(
        (&report["ok"], report["problems"].as_array().unwrap().len()),
        (&serde_json::json!(true), 0),
        "{report}"
    );
    let parts: Vec<_> =
        report["parts"].as_array().unwrap().iter().map(|part| part["key"].as_str().unwrap()).collect();
    for key in
        ["model.image_encoder", "model.language_model", "model.qformer_tokenizer", "model.qformer_init"]
    {
        assert!(parts.contains(&key), "{parts:?}");
    }
    assert!(report["parts"][0]["parameters"].as_u64().unwrap() > 100_000, "{report}");
    assert!(!report["parts"][0]["files"].as_array().unwrap().is_empty(), "{report}");
    assert_eq!(report["trained"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["precision"], serde_json::json!({"compute": "f32", "frozen_dtype": "auto"}));
    let in_bf16 = check(&["train.compute=bf16", "model.frozen_dtype=bf16"]).expect(0);
    let named = serde_json::json!({"compute": "bf16", "frozen_dtype": "bf16"});
    assert_eq!(in_bf16.json_lines()[0]["precision"], named);
    check(&["train.compute=f16"]).expect(78).says(&["train.compute", "f16", "f32", "bf16"]);
    assert!(!run.root().exists(), "nothing is written");

    // All that does not fit is named, not the first alone.
    let broken = check(&[
        "model.image_encoder=assets/backbones/opt-tiny",
        "model.qformer_tokenizer=/nonexistent",
        "model.language_model=assets/backbones/bert-tiny",
    ])
    .expect(78);
    let keys: Vec<_> = broken.json_lines()[0]["problems"].as_array().unwrap().clone();
    for key in ["model.image_encoder", "model.qformer_tokenizer", "model.language_model"] {
        assert!(keys.iter().any(|problem| problem["key"] == key), "{keys:?}");
    }
    check(&["model.qformer.hidden=64"]).expect(78).says(&["do not fit"]);
    finish(blip2(&["models", "check"])).expect(78);
    finish(blip2(&["models", "check", "--config", "configs/curate-quickstart.toml"])).expect(0);
}
