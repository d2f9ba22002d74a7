//! Whether the run's device is here, and what kernels for it are linked with.

use std::path::{Path, PathBuf};

use blip2_tensors::device::card::cuda_cards;
use blip2_tensors::device::{DeviceName, Present, TOOLKIT_VARIABLE, find_libdevice};

use crate::check::{Check, Finding};

const DEVICE: Check = Check {
    name: "device",
    asks: "is train.device built in and here?",
    remedy: "blip2 devices lists what this build finds; cards need a build with --features cuda, the driver, and to be visible \
             (CUDA_VISIBLE_DEVICES, nvidia.com/gpu)",
};
const LIBDEVICE: Check = Check {
    name: "libdevice",
    asks: "is NVIDIA's library of math functions here, which kernels are linked with?",
    remedy: "install the CUDA toolkit and name it in CUDA_PATH, or lay nvvm/libdevice/libdevice.10.bc beside the program \
             (docs/cuda.md)",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&DEVICE, &LIBDEVICE];

/// Looks for the device, which is not opened.
pub fn examine(name: &str) -> Vec<Finding> {
    let present = Present::probe();
    let decided = match name.parse::<DeviceName>().and_then(|name| name.decide(&present)) {
        Ok(decided) => decided,
        Err(error) => return vec![DEVICE.red(format!("train.device = \"{name}\": {error}"))],
    };
    let cards = cuda_cards(present.cuda.unwrap_or(0));
    let model = cards.iter().find(|card| card.device == decided).map(|card| format!(", {}", card.model));
    let device = DEVICE.green(format!("train.device = \"{name}\" is {decided}{}", model.unwrap_or_default()));
    let toolkit = std::env::var_os(TOOLKIT_VARIABLE).map(PathBuf::from);
    let libdevice = libdevice(decided, toolkit.as_deref(), Path::exists);
    [device].into_iter().chain(libdevice).collect()
}

/// Of a device that needs it.
fn libdevice(device: DeviceName, toolkit: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Option<Finding> {
    if !matches!(device, DeviceName::Cuda(_)) {
        return None;
    }
    Some(match find_libdevice(toolkit, exists) {
        Ok(file) => LIBDEVICE.green(file.display().to_string()),
        Err(looked) => {
            let looked: Vec<String> = looked.iter().map(|file| file.display().to_string()).collect();
            LIBDEVICE.red(format!("not at {}", looked.join(" or ")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    #[test]
    fn a_device_that_is_not_here_is_red() {
        let states = |name| examine(name).into_iter().map(|finding| finding.state).collect::<Vec<_>>();
        assert_eq!(states("cpu"), [State::Green]);
        assert_eq!(states("cuda:77"), [State::Red]);
        let found = examine("tpu");
        assert!(found[0].state == State::Red && found[0].found.contains("tpu"), "{found:?}");
    }

    #[test]
    fn kernels_need_the_library() {
        let card = DeviceName::Cuda(Some(0));
        let state = |there: bool| libdevice(card, Some(Path::new("/toolkit")), |_| there).unwrap().state;
        assert_eq!((state(true), state(false)), (State::Green, State::Red));
        assert_eq!(libdevice(DeviceName::Cpu, None, |_| false), None);
    }
}
