//! NVIDIA's library of math functions, where it came with the program.

#[cfg(unix)]
use blip2_tensors::device::{TOOLKIT_VARIABLE, toolkit_beside};

/// Lets the compiler of CUDA kernels find the library beside this program: it looks where an environment
/// variable says, so the program is started anew with it. Returns where nothing lies beside it, or another
/// place is named.
pub(crate) fn beside_the_program() {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        let Ok(executable) = std::env::current_exe() else { return };
        let Some(toolkit) = toolkit_beside(&executable) else { return };
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let mut again = std::process::Command::new(&executable);
        let error = again.arg0(name).args(arguments).env(TOOLKIT_VARIABLE, &toolkit).exec();
        eprintln!("warning: {} is not started anew with {TOOLKIT_VARIABLE}: {error}", executable.display());
    }
}
