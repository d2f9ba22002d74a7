//! The `blip2` binary; what it does is in the library beside it.

// The system's allocator hands the pages of a step's buffers back and forth with the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    blip2_cli::run()
}
