//! Checks that take longer than those of every change: `cargo xtask test-vulkan`.

mod driver;
mod losses;
mod root;
mod test_vulkan;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test-vulkan [--build fused|unfused] [--only golden|train] [--system-driver] [--root DIR]

  test-vulkan       golden tests, and ten training steps of each stage, on a Vulkan device, compared with the CPU
  --build B         with kernel fusion (`fused`) or without (`unfused`); without it, both
  --only PART       the golden tests (`golden`) or the training run (`train`); without it, both
  --system-driver   the machine's Vulkan drivers; without it, Mesa's software driver, so that a CPU is enough
  --root DIR        run the programs in the system whose root is DIR (needs root: `unshare --mount`, `chroot`), for a Mesa
                    that is newer than this machine's; one is made by
                    debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 sid DIR

Environment: CARGO_TARGET_DIR, and CARGO_NET_OFFLINE=true to use no network.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "test-vulkan" => {
            test_vulkan::Options::parse(rest).map(test_vulkan::run)
        }
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
        Ok(Err(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("error: {reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
