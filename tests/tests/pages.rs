//! Commands of pages, run as they are pasted: each block in a shell of its own, in the order of the page.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use blip2_tests::corpus::good_rows;
use blip2_tests::process::{Running, binary, finish, isolate, poll, repository, start};

/// Runs of a page are of a few small steps; everything else is as written.
const SHORT: [(&str, &str); 6] = [
    ("BLIP2_STAGE1__STEPS", "2"),
    ("BLIP2_STAGE2__STEPS", "2"),
    ("BLIP2_STAGE1__BATCH", "16"),
    ("BLIP2_STAGE2__BATCH", "16"),
    ("BLIP2_EVAL__CAPTIONS", "2"),
    ("BLIP2_STAGE1__OPTIMIZER__WARMUP_STEPS", "1"),
];
/// What `cargo` is in these shells: the binary of this build where the page runs it, nothing else.
const CARGO: &str = "#!/bin/sh\ncase \"$1 $2 $3\" in 'run --release --') shift 3; exec blip2 \"$@\";; esac\n";

/// A fenced block of the page.
struct Block {
    language: String,
    text: String,
}

/// A folder that looks like the repository to the page's commands.
struct Clone {
    folder: tempfile::TempDir,
    /// Whether all runs are of a few steps, and not the quick start alone.
    is_short: bool,
}

#[test]
fn every_block_of_the_readme_works_as_pasted() {
    let clone = Clone::new();
    clone.follow("README.md");
    for left in ["quickstart/report.html", "runs/mine/run.toml", "runs/several/run.toml"] {
        assert!(clone.at(left).is_file(), "{left} is not there after the README's commands");
    }
}

#[test]
fn every_block_of_the_tutorial_works_as_pasted() {
    // The stages of pre-training have no steps there.
    let clone = Clone { is_short: false, ..Clone::new() };
    let rows = good_rows(24);
    let (train, held_out) = rows.split_at(16);
    for (folder, rows) in [("photos/train", train), ("photos/held-out", held_out)] {
        fs::create_dir_all(clone.at(folder)).expect("a folder");
        for (number, row) in rows.iter().enumerate() {
            let name = if number == 0 { "boat".to_owned() } else { number.to_string() };
            fs::write(clone.at(&format!("{folder}/{name}.jpg")), &row.image).expect("a picture");
            fs::write(clone.at(&format!("{folder}/{name}.txt")), &row.caption).expect("a caption");
        }
    }
    clone.follow("docs/tutorial.md");
    for left in
        ["own/train.html", "runs/rehearsal/report.html", "captioner/model.safetensors", "captions.html"]
    {
        assert!(clone.at(left).is_file(), "{left} is not there after the tutorial's commands");
    }
}

impl Clone {
    fn new() -> Self {
        let clone = Self { folder: tempfile::tempdir().expect("a folder"), is_short: true };
        for name in ["assets", "configs"] {
            symlink(repository().join(name), clone.at(name)).expect("a link");
        }
        for folder in ["bin", "data", "target/release"] {
            fs::create_dir_all(clone.at(folder)).expect("a folder");
        }
        let corpus = repository().join("assets/corpus/train-00000.parquet");
        symlink(corpus, clone.at("data/train-00000.parquet")).expect("a link");
        symlink(binary(), clone.at("target/release/blip2")).expect("a link");
        symlink(binary(), clone.at("bin/blip2")).expect("a link");
        fs::write(clone.at("bin/cargo"), CARGO).expect("a script");
        fs::set_permissions(clone.at("bin/cargo"), fs::Permissions::from_mode(0o755)).expect("a script");
        clone
    }

    /// Runs the blocks of a page of the repository.
    fn follow(&self, page: &str) {
        for block in blocks(page) {
            match block.language.as_str() {
                "toml" => self.write(&block.text),
                "sh" if block.text.contains("# on one machine") => self.run_on_machines(&block.text),
                "sh" => {
                    finish(self.shell(&block.text)).expect(0);
                }
                other => panic!("a block of {page} is marked `{other}`; nothing runs it"),
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file whose first line names it: `# mine.toml`.
    fn write(&self, text: &str) {
        let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
        fs::write(self.at(name.expect("the file is named in its first line")), text).expect("a file");
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder.path());
        isolate(&mut command);
        command.env("PATH", format!("{}:{path}", self.at("bin").display()));
        if self.is_short || script.contains("blip2 quickstart") {
            command.envs(SHORT);
        }
        command
    }

    /// A block whose parts belong to several machines: each begins with a comment, the first leads, the last
    /// watches. The watch begins before there are workers: what it shows is then a matter of the run, not of
    /// the machine's speed.
    fn run_on_machines(&self, script: &str) {
        let ports = [free_port(), free_port()];
        let mut parts = on_loopback(script, ports);
        let watch = parts.pop().expect("the last part");
        let mut parts = parts.into_iter().map(|part| self.shell(&part));
        let leader = start(parts.next().expect("the first part"));
        let leads = poll(|| TcpStream::connect(("127.0.0.1", ports[0])).ok());
        leads.unwrap_or_else(|| panic!("nobody listens:\n{}", leader.stderr()));
        let watch = start(self.shell(&watch));
        let watches = poll(|| Some(watch.stdout()).filter(|shown| !shown.is_empty()));
        watches.unwrap_or_else(|| panic!("the watch shows nothing:\n{}", watch.stderr()));
        let workers: Vec<Running> = parts.map(start).collect();
        for process in [leader, watch].into_iter().chain(workers) {
            process.wait().expect(0);
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The page's addresses as addresses of this machine, its ports as `ports`; cut at the comments.
fn on_loopback(script: &str, ports: [u16; 2]) -> Vec<String> {
    let mut script = script.replace("10.0.0.", "127.0.0.");
    for (written, free) in ["7100", "7200"].into_iter().zip(ports) {
        script = script.replace(written, &free.to_string());
    }
    let mut parts: Vec<String> = Vec::new();
    for line in script.lines() {
        match parts.last_mut() {
            Some(part) if !line.starts_with("# ") => *part += &format!("{line}\n"),
            _ => parts.push(format!("{line}\n")),
        }
    }
    parts
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(page)).expect("the page");
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block { language: language.to_owned(), text: String::new() });
            }
            None if open => {
                if let Some(block) = blocks.last_mut() {
                    block.text += &format!("{line}\n");
                }
            }
            None => {}
        }
    }
    assert!(blocks.len() > 3, "the blocks of {page} are found");
    blocks
}
