//! The CUDA binary and the golden tests as small files, to carry to a machine with a card.

use std::path::Path;
use std::process::Command;

use super::toolchain::Toolchain;
use super::{build, golden};
use crate::files::{create, take};

/// Leaves `blip2.xz`, `golden.xz` and `libdevice.10.bc` in `folder`.
pub(crate) fn pack(toolchain: &Toolchain, folder: &Path) -> Result<bool, String> {
    if !build::build(toolchain, &build::Options::default())? {
        return Ok(false);
    }
    golden::build(toolchain)?;
    create(folder)?;
    for name in ["blip2", "golden"] {
        let packed = folder.join(name);
        take(&build::folder()?.join(name), &packed)?;
        let path = packed.display().to_string();
        finish("strip", &[&path])?;
        finish("xz", &["--force", "-6", "--threads=0", &path])?;
        println!("{path}.xz");
    }
    take(&toolchain.libdevice(), &folder.join("nvvm/libdevice/libdevice.10.bc"))?;
    Ok(true)
}

fn finish(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(arguments).status();
    let status = status.map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {arguments:?} ended with {status}")) }
}
