//! Writes scenes into a folder: what `cargo xtask scenes` starts.

#![expect(clippy::disallowed_macros, reason = "whoever starts it reads what it says")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use blip2_scenes::compose::{Composer, SIZE};
use blip2_scenes::files::{self, Rows};

const USAGE: &str = "\
usage: cargo xtask scenes --out DIR [--rows N] [--held-out-rows N] [--seed S] [--size PX] [--corpus DIR]

  --out DIR             the folder to write into
  --rows N              rows to train on; without it, 20,000
  --held-out-rows N     rows of each other split; without it, 1,000
  --seed S              another seed shows other scenes; what is held out stays; without it, 42
  --size PX             side of an image, 48 to 160; without it, 96
  --corpus DIR          the emoji corpus; without it, assets/corpus";

struct Options {
    out: PathBuf,
    rows: Rows,
    seed: u64,
    size: u32,
    corpus: PathBuf,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/corpus");
        let rows = Rows { train: 20_000, held_out: 1_000 };
        let mut options = Self { out: PathBuf::new(), rows, seed: 42, size: SIZE, corpus };
        let mut left = arguments.iter();
        while let Some(name) = left.next() {
            let value = left.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--out" => options.out = value.into(),
                "--rows" => options.rows.train = number(name, value)?,
                "--held-out-rows" => options.rows.held_out = number(name, value)?,
                "--seed" => options.seed = number(name, value)?,
                "--size" => options.size = number(name, value)?,
                "--corpus" => options.corpus = value.into(),
                other => return Err(format!("unknown option `{other}`")),
            }
        }
        if options.out.as_os_str().is_empty() {
            return Err("--out is missing".into());
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.replace(',', "").parse().map_err(|_| format!("{name} {value}: not such a number"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| ["--help", "-h"].contains(&argument.as_str())) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("error: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let composer = Composer::open(&options.corpus, options.size, options.seed);
    match composer.and_then(|composer| files::write(&composer, options.rows, &options.out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
