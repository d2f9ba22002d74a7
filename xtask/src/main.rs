//! Checks that take longer than those of every change: `cargo xtask test-vulkan`, `cargo xtask cuda`.

mod arrows_page;
mod cuda;
mod driver;
mod files;
mod losses;
mod repository;
mod root;
mod small_run;
mod test_vulkan;

use std::process::ExitCode;

use cuda::Error;

/// `EX_UNAVAILABLE`: nothing was checked.
const UNAVAILABLE: u8 = 69;

const USAGE: &str = "\
usage: cargo xtask arrows [--check | --circles]
       cargo xtask test-vulkan [--build fused|unfused] [--only golden|train] [--system-driver] [--root DIR]
       cargo xtask cuda setup|build|try|ptx|golden|pack [--folder DIR] [--wheels DIR] [further arguments]

  arrows            write docs/arrows.md: which crate and which module uses which
  --check           fail where the page is stale, and write nothing
  --circles         name the files of each crate that use each other in a circle

  test-vulkan       golden tests, and ten training steps of each stage, on a Vulkan device, compared with the CPU
  --build B         with kernel fusion (`fused`) or without (`unfused`); without it, both
  --only PART       the golden tests (`golden`) or the training run (`train`); without it, both
  --system-driver   the machine's Vulkan drivers; without it, Mesa's software driver, so that a CPU is enough
  --root DIR        run the programs in the system whose root is DIR (needs root: `unshare --mount`, `chroot`), for a Mesa
                    that is newer than this machine's; one is made by
                    debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 sid DIR

  cuda setup        lay out what a CUDA build needs beyond cargo: LLVM with the card's back end, libdevice and ptxas
  cuda build        build and link `blip2` for CUDA, into the folder `cuda` of the target folder, with libdevice beside it
    --unfused       with a kernel for each operation
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

Exit codes: 0 passed, 1 failed, 2 wrong usage, 69 the parts of `cuda setup` cannot be had here.
Environment: CARGO_TARGET_DIR, and CARGO_NET_OFFLINE=true to use no network.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done =
        match arguments.split_first() {
            Some((command, rest)) if command == "test-vulkan" => test_vulkan::Options::parse(rest)
                .map(|options| test_vulkan::run(options).map_err(Error::from)),
            Some((command, rest)) if command == "arrows" => arrows_page::Options::parse(rest)
                .map(|options| arrows_page::run(options).map_err(Error::from)),
            Some((command, rest)) if command == "cuda" => cuda::Options::parse(rest).map(cuda::run),
            Some((command, _)) if command == "--help" || command == "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            Some((command, _)) => Err(format!("unknown command `{command}`")),
            None => Err("no command".into()),
        };
    match done {
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
