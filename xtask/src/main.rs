//! The checks of this repository: those of every change, as CI runs them, and those that take longer.

#![expect(clippy::disallowed_macros, reason = "whoever starts it reads what it says")]

mod arrows_page;
mod book;
mod checks;
mod cuda;
mod dist;
mod driver;
mod files;
mod losses;
mod materials;
mod report;
mod repository;
mod root;
mod scenes;
mod small_run;
mod vulkan;

use std::process::ExitCode;

use cuda::Error;

/// `EX_UNAVAILABLE`: nothing was checked.
const UNAVAILABLE: u8 = 69;

const USAGE: &str = "\
usage: cargo xtask fmt|lint|docs|test|sim|bench [further arguments]
       cargo xtask arrows [--check | --circles]
       cargo xtask book
       cargo xtask scenes --out DIR [--rows N] [--held-out-rows N] [--seed S] [--size PX] [--corpus DIR]
       cargo xtask vulkan [--build fused|unfused] [--only golden|train] [--system-driver] [--root DIR]
       cargo xtask cuda setup|build|try|ptx|golden|pack [--folder DIR] [--wheels DIR] [further arguments]
       cargo xtask dist [--features F] [--profile P] [--out DIR]

  fmt               format the code; `--check` writes nothing
  lint              clippy over everything; warnings are errors
  docs              documentation of all crates, warnings are errors; fails too where docs/arrows.md is stale
  test              all tests; further arguments are those of `cargo test`
  sim               plant bugs into the coordinator's and the workers' state machines: the simulation must find each
  bench             the benchmarks; `-- NAME` for some of them

  arrows            write docs/arrows.md: which crate and which module uses which
  --check           fail where the page is stale, and write nothing
  --circles         name the files of each crate that use each other in a circle

  book              build the pages of docs/SUMMARY.md into the folder `book` of the target folder, and follow their links;
                    installs mdbook into the folder `tools` there where the machine has none

  scenes            compose small scenes with captions and questions; see docs/scenes.md
  --out DIR         the folder to write into
  --rows N          rows to train on; without it, 20,000; `--held-out-rows` of each other split; without it, 1,000
  --seed S          another seed shows other scenes; what is held out stays; without it, 42
  --size PX         side of an image, 48 to 160; without it, 96
  --corpus DIR      the emoji corpus; without it, assets/corpus

  vulkan            golden tests, and ten training steps of each stage, on a Vulkan device, compared with the CPU
  --build B         with kernels that burn fuses (`fused`) or without (`unfused`); without it, both
  --only PART       the golden tests (`golden`) or the training run (`train`); without it, both
  --system-driver   the machine's Vulkan drivers; without it, Mesa's software driver, so that a CPU is enough
  --root DIR        run the programs in the system whose root is DIR (needs root: `unshare --mount`, `chroot`), for a Mesa
                    that is newer than this machine's; one is made by
                    debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 sid DIR

  cuda setup        lay out what a CUDA build needs beyond cargo: LLVM with the card's back end, libdevice and ptxas
  cuda build        build and link `blip2` for CUDA, into the folder `cuda` of the target folder, with libdevice beside it
    --fused         with kernels that burn fuses, to compare with
    --profile P     with the profile P; without it, `release`
  cuda try          run the binary of `cuda build` on this machine, which has no card
  cuda ptx          run the binary on a driver's double and assemble every kernel it makes
    --arch N        for compute capability N alone: 80, 90 or 100; without it, for each
    --keep DIR      leave runs and kernels in DIR
    --counts FILE   compare launches and copies of a step with FILE, which BLIP2_BLESS=1 writes
  cuda golden       build the golden tests for CUDA and run them on the double, on which each must fail
  cuda pack         build binary and golden tests, and pack them small, to carry to a machine with a card
    --out DIR       the folder they are left in; without it, target/gpu
  --folder DIR      where the parts of `cuda setup` lie; without it, `blip2-cuda` in the user's cache folder
  --wheels DIR      take the packages from DIR; without it, pip downloads them

  dist              build `blip2` to ship: an archive with configurations and licences, what it is built from as CycloneDX,
                    and the SHA-256 of both; the same files for the same commit and compiler
  --features F      features of `blip2`, separated by commas: `cuda`, `vulkan`
  --profile P       with the profile P; without it, `dist`, whose link takes long
  --out DIR         the folder they are left in; without it, target/dist

Exit codes: 0 passed, 1 failed, 2 wrong usage, 69 what it needs cannot be had here.
Environment: CARGO_TARGET_DIR, and CARGO_NET_OFFLINE=true to use no network.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument] = &arguments[..]
        && ["--help", "-h"].contains(&argument.as_str())
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match arguments.split_first().ok_or("no command".into()).and_then(|(command, rest)| run(command, rest)) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Unavailable(_)) { UNAVAILABLE } else { 1 })
        }
        Err(reason) => {
            eprintln!("error: {reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Whether what the command checks passed; outside, why the arguments are wrong.
fn run(command: &str, rest: &[String]) -> Result<Result<bool, Error>, String> {
    if let Some(check) = checks::Check::named(command) {
        return Ok(checks::run(check, rest).map_err(Error::from));
    }
    Ok(match command {
        "arrows" => arrows_page::run(arrows_page::Options::parse(rest)?).map_err(Error::from),
        "book" if rest.is_empty() => book::run(),
        "scenes" => scenes::run(rest)?.map_err(Error::from),
        "vulkan" => vulkan::run(vulkan::Options::parse(rest)?).map_err(Error::from),
        "cuda" => cuda::run(cuda::Options::parse(rest)?),
        "dist" => dist::run(&dist::Options::parse(rest)?).map_err(Error::from),
        other => return Err(format!("unknown command `{other}`")),
    })
}
