//! `libdevice`: NVIDIA's library of the math functions that a card has no instruction for. The compiler of
//! CUDA kernels links it, and looks for it where this does.

use std::path::{Path, PathBuf};

/// The file, below the folder of a toolkit.
const FILE: &str = "nvvm/libdevice/libdevice.10.bc";

/// Folders of toolkits that are tried where none is named.
const TOOLKITS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];

/// The file that kernels are linked with. `named` is the toolkit that the environment names; `exists` says
/// whether a file or folder is there.
///
/// # Errors
/// It is not there: where it should have been.
pub fn find(named: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, Vec<PathBuf>> {
    let toolkits: Vec<&Path> = match named {
        Some(toolkit) => vec![toolkit],
        None => TOOLKITS.map(Path::new).to_vec(),
    };
    // The first toolkit with the folder is the one, whatever is in it.
    let files = toolkits.iter().map(|toolkit| toolkit.join(FILE));
    match files.clone().find(|file| file.parent().is_some_and(&exists)) {
        Some(file) if exists(&file) => Ok(file),
        Some(file) => Err(vec![file]),
        None => Err(files.collect()),
    }
}

/// The toolkit that should be named because the file came with the program, in the same folder, and none is.
pub(super) fn beside(
    executable: &Path,
    named: Option<&Path>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let folder = executable.parent()?;
    (named.is_none() && exists(&folder.join(FILE))).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files and all folders above them.
    fn among<'a>(files: &'a [&str]) -> impl Fn(&Path) -> bool + 'a {
        |path| files.iter().any(|file| Path::new(file).starts_with(path))
    }

    #[test]
    fn the_file_is_that_of_the_named_toolkit_or_of_the_first_one() {
        let file = |toolkit: &str| format!("{toolkit}/nvvm/libdevice/libdevice.10.bc");
        let (local, opt, own) = (file("/usr/local/cuda"), file("/opt/cuda"), file("/own"));
        let all = [local.as_str(), opt.as_str(), own.as_str()];
        let found = |named: Option<&str>, files: &[&str]| {
            find(named.map(Path::new), among(files)).map(|file| file.display().to_string())
        };
        assert_eq!(found(None, &all), Ok(local.clone()));
        assert_eq!(found(None, &all[1..]), Ok(opt.clone()));
        assert_eq!(found(Some("/own"), &all), Ok(own.clone()));
        assert_eq!(found(None, &[]).unwrap_err().len(), TOOLKITS.len());
        // A toolkit that is named is the only one that is looked at.
        assert_eq!(found(Some("/none"), &all).unwrap_err(), [PathBuf::from(file("/none"))]);
        // So is the first one that has the folder.
        let other = "/usr/local/cuda/nvvm/libdevice/libdevice.compute_20.bc";
        assert_eq!(found(None, &[other, &opt]).unwrap_err(), [PathBuf::from(&local)]);
    }

    #[test]
    fn the_file_may_come_with_the_program() {
        let exists = among(&["/app/nvvm/libdevice/libdevice.10.bc"]);
        let program = Path::new("/app/blip2");
        assert_eq!(beside(program, None, &exists), Some("/app".into()));
        assert_eq!(beside(program, Some(Path::new("/own")), &exists), None);
        assert_eq!(beside(Path::new("/other/blip2"), None, &exists), None);
        assert_eq!(beside(Path::new("/"), None, &exists), None);
    }
}
