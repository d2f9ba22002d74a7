//! What `checkpoint` says of a run whose newest checkpoint is damaged.

use std::path::Path;

use blip2_tests::process::{Ended, blip2, finish};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

fn ask(command: &str, target: &Path) -> Ended {
    finish(blip2(&["checkpoint", command, target.to_str().expect("UTF-8")]))
}

/// Cuts the last byte off.
fn shorten(file: &Path) {
    let content = std::fs::read(file).unwrap();
    std::fs::write(file, &content[..content.len() - 1]).unwrap();
}

/// Changes one bit in the middle.
fn flip(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(file, content).unwrap();
}

fn remove(file: &Path) {
    std::fs::remove_file(file).unwrap();
}

fn empty(file: &Path) {
    std::fs::write(file, "").unwrap();
}

/// What is done, to which object, how, and whether the digest is concerned.
type Damage<'a> = (&'a str, &'a Path, fn(&Path), bool);

#[test]
fn a_damaged_newest_checkpoint_is_never_passed_over_in_silence() {
    let run = SmallRun::short("");
    run.train(&["--workers", "1"]).expect(0);
    let names = || {
        let entries = std::fs::read_dir(run.root().join("checkpoints")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let names = names();
    let [.., older, newest] = &names[..] else { panic!("{names:?}") };
    let folder = run.root().join("checkpoints").join(newest);
    let part = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let part =
        part.into_iter().find(|path| path.extension().is_some_and(|end| end == "safetensors")).unwrap();
    let (commit, rows) = (folder.join("COMMIT"), folder.join("quarantine.parquet"));

    // Where the parameters themselves are whole there is something to hash.
    let damages: [Damage; 9] = [
        ("COMMIT shortened", &commit, shorten, true),
        ("COMMIT empty", &commit, empty, true),
        ("part removed", &part, remove, true),
        ("part shortened", &part, shorten, true),
        ("part empty", &part, empty, true),
        ("part changed", &part, flip, true),
        ("rows removed", &rows, remove, true),
        ("rows shortened", &rows, shorten, true),
        ("rows changed", &rows, flip, false),
    ];
    for (what, file, damage, concerns_digest) in damages {
        let good = std::fs::read(file).unwrap();
        damage(file);
        println!("{what}");
        let verified = ask("verify", &run.root()).expect(3).says(&[newest]);
        assert_eq!(verified.stdout, "", "{what}");
        if concerns_digest {
            let digest = ask("digest", &run.root()).expect(3).says(&[newest]);
            assert_eq!(digest.stdout, "", "{what}");
        }
        // Of one that is named the parameters alone are read.
        if file != rows {
            ask("digest", &folder).expect(3).says(&[newest]);
        }
        ask("verify", &folder).expect(3);
        ask("verify", &run.root().join("checkpoints").join(older)).expect(0);
        std::fs::write(file, good).unwrap();
    }
    ask("verify", &run.root()).expect(0);
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);

    // What is made of the newest says that it is not the newest.
    shorten(&part);
    let root = run.root();
    let out = run.scratch().join("export");
    let exported = ["checkpoint", "export", root.to_str().unwrap(), "--out", out.to_str().unwrap()];
    finish(blip2(&exported)).expect(0).says(&["warning", newest, older]);
    let json = finish(blip2(&["checkpoint", "verify", root.to_str().unwrap(), "--json"])).expect(3);
    assert_eq!(json.json_lines()[0]["ok"], false, "{json:?}");
}
