//! What is not there, not readable or not understood: each has its exit code and names what is wrong.

use blip2_tests::process::{blip2, finish, repository};
use blip2_tests::run::SmallRun;

/// A picture of the repository.
const PICTURE: &str = "docs/report-row.png";

/// Arguments, exit code, and words of standard error.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

fn all(cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for (arguments, code, words) in cases {
        let ended = finish(blip2(arguments));
        let says_all = words.iter().all(|word| ended.stderr.contains(word));
        let panicked = ended.stderr.contains("panicked");
        if ended.code != Some(*code) || !says_all || panicked {
            wrong.push(format!("{arguments:?}: {code} and {words:?} were due, it was {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_has_its_exit_code() {
    let run = SmallRun::short("");
    let scratch = run.scratch();
    let path = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let (nowhere, empty) = (path("nowhere"), path("empty"));
    std::fs::create_dir(&empty).unwrap();
    let config = run.config();
    let empty_token = path("token");
    std::fs::write(&empty_token, "\n").unwrap();
    let export = path("export");

    all(&[
        // A run, or a checkpoint of it.
        (&["checkpoint", "ls", &nowhere], 1, &["nowhere", "is not a run"]),
        (&["checkpoint", "ls", &empty], 1, &["empty", "is not a run"]),
        (&["checkpoint", "verify", &nowhere], 1, &["is not a run"]),
        (&["checkpoint", "digest", &nowhere], 1, &["is not a run"]),
        (&["checkpoint", "export", &nowhere, "--out", &export], 1, &["is not a run"]),
        (&["audit", &nowhere], 1, &["nowhere", "is not a run"]),
        (
            &["eval", "retrieval", "--model", &nowhere, "--data", "assets/corpus/test-00000.parquet"],
            1,
            &["is not a run"],
        ),
        (
            &["eval", "caption", "--model", &empty, "--data", "assets/corpus/test-00000.parquet"],
            1,
            &["is not a run"],
        ),
        // A kind of storage that is none.
        (&["checkpoint", "ls", "ftp://host/run"], 2, &["ftp"]),
        (&["checkpoint", "digest", "ftp://host/run"], 2, &["ftp"]),
        (&["audit", "ftp://host/run"], 2, &["ftp"]),
        (&["corpus", "verify", "ftp://host/corpus"], 2, &["ftp"]),
        (&["corpus", "inspect", "ftp://host/a.parquet"], 2, &["ftp"]),
        (&["train", "--config", config, "--set", "run.root=ftp://host/run"], 78, &["ftp"]),
        (&["train", "--config", config, "--set", "data.train=[\"ftp://host/a.parquet\"]"], 78, &["ftp"]),
        // A token.
        (
            &["coordinator", "--config", config, "--listen", "127.0.0.1:0", "--token-file", &nowhere],
            1,
            &["nowhere", "token"],
        ),
        (
            &["worker", "--coordinator", "http://127.0.0.1:1", "--token-file", &nowhere],
            1,
            &["nowhere", "token"],
        ),
        (
            &["worker", "--coordinator", "http://127.0.0.1:1", "--token-file", &empty_token],
            4,
            &["token file is empty"],
        ),
        // A model.
        (&["generate", "--model", &nowhere, "--image", PICTURE], 1, &["nowhere"]),
        (&["chat", "--model", &empty, "--image", PICTURE], 1, &["empty"]),
        (&["train", "--config", config, "--set", "model.image_encoder=nowhere"], 78, &["nowhere"]),
        (&["train", "--config", config, "--set", "model.language_model=nowhere"], 78, &["nowhere"]),
        // A corpus.
        (&["corpus", "verify", &nowhere], 3, &["nowhere"]),
        (&["corpus", "inspect", &nowhere, "--out", &export], 3, &["nowhere"]),
        (&["train", "--config", config, "--set", "data.train=[\"nowhere-*.parquet\"]"], 3, &["nowhere"]),
        // A configuration.
        (&["train", "--config", &nowhere], 78, &["nowhere"]),
        (&["train", "--config", config, "--set", "no.such.key=1"], 78, &["no.such.key"]),
        (&["config", "show", "--set", "stage1.steps=many"], 78, &["stage1.steps"]),
        (&["train", "--config", config, "--set", "tls.ca=nowhere"], 78, &["tls"]),
        // A process.
        (&["status", "127.0.0.1:1"], 1, &["127.0.0.1:1"]),
        (&["worker", "--coordinator", "http://127.0.0.1:1", "--join-timeout", "0.5"], 1, &["127.0.0.1:1"]),
        // A command line.
        (&["no-such-command"], 2, &["no-such-command"]),
        (&["train", "--no-such-flag"], 2, &["--no-such-flag"]),
        (&["coordinator", "--listen", "fd00::1:7100"], 2, &["[fd00::1]:7100"]),
        (&["worker", "--coordinator", "a:1", "--advertise", "0.0.0.0:7200"], 2, &["all interfaces"]),
        (&["completions", "no-such-shell"], 2, &["no-such-shell"]),
        (&["man", "/dev/null/man"], 1, &["/dev/null/man"]),
    ]);
}

/// A copy of a folder of small backbones.
fn copied(run: &SmallRun, asset: &str) -> std::path::PathBuf {
    let copy = run.scratch().join(asset);
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(repository().join("assets/backbones").join(asset)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

/// What a worker finds when it loads the weights has the code of what is found before the run begins.
#[test]
fn a_model_that_cannot_be_used_is_bad_configuration_whichever_it_is() {
    for (key, asset) in [("model.image_encoder", "eva-tiny"), ("model.language_model", "opt-tiny")] {
        let run = SmallRun::short("");
        let folder = copied(&run, asset);
        let named = format!("{key}={}", folder.display());
        let weights = folder.join("model.safetensors");
        let whole = std::fs::read(&weights).unwrap();
        let mut odd = whole.clone();
        // Every number, with all bits set: none in any format.
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        odd[8 + header..].fill(0xff);
        std::fs::write(&weights, odd).unwrap();
        run.train(&["--workers", "1", "--set", &named]).expect(78).says(&[key, "finite"]);
        std::fs::write(&weights, whole).unwrap();
        std::fs::write(folder.join("config.json"), "{").unwrap();
        run.train(&["--workers", "1", "--set", &named]).expect(78).says(&[key, "config.json"]);
    }
}
