//! Which device a name means, and how it is opened.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use burn::tensor::Device;

/// Environment variable with the folder of a CUDA toolkit, in which the compiler of kernels looks for
/// libraries.
pub const TOOLKIT_VARIABLE: &str = "CUDA_PATH";

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The first of: a CUDA device, a discrete GPU under Vulkan, the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number; `None`: any, of which a worker takes the one of its
    /// [seat](crate::device::seat::Seat).
    Cuda(Option<usize>),
    /// A Vulkan device by its number, or any: discrete GPUs first, then integrated and virtual ones, then
    /// software.
    Vulkan(Option<usize>),
}

/// A device that cannot be had: what was asked for, why not, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error(
        "\"{0}\" is not a device; use \"auto\", \"cpu\", \"cuda\", \"cuda:N\", \"vulkan\" or \"vulkan:N\""
    )]
    Unknown(String),
    /// A kind of device that this program was built without.
    #[error(
        "\"{name}\": this program was built without it; build it with `--features {feature}`, or use \"cpu\""
    )]
    NotCompiled {
        /// What was asked for.
        name: DeviceName,
        /// The Cargo feature that has it.
        feature: &'static str,
    },
    /// A device that this machine does not have, or whose driver does not work.
    #[error("\"{name}\": {reason}; check the driver, or use \"auto\" or \"cpu\"")]
    NotPresent {
        /// What was asked for.
        name: DeviceName,
        /// What was found instead.
        reason: String,
    },
    /// The library of math functions that CUDA kernels are linked with is not there.
    #[error(
        "\"{name}\": CUDA kernels take math functions from NVIDIA's libdevice, which is not at {looked}; install the CUDA \
         toolkit (of its parts, nvvm is enough), set CUDA_PATH to a folder with nvvm/libdevice/libdevice.10.bc, or put that \
         folder nvvm beside this program"
    )]
    Libdevice {
        /// What was asked for.
        name: DeviceName,
        /// The files that were looked for.
        looked: String,
    },
    /// A device that this process uses already, with the other products of float32.
    #[error("\"{name}\" is in use in this process with train.tf32 = {}; it cannot be both", !.tf32)]
    Products {
        /// What was asked for.
        name: DeviceName,
        /// What was asked for now.
        tf32: bool,
    },
    /// Workers that would have to share a card, which nobody has allowed.
    #[error(
        "{who}, and {cards}: each worker takes a card of its own; {remedy}, or let workers share cards with \
         launch.share_devices = true"
    )]
    TooFewCards {
        /// The workers, or the one that is left without a card.
        who: String,
        /// The cards that were found.
        cards: String,
        /// What to do instead of sharing.
        remedy: String,
    },
    /// A scheduler's number of a task that is none.
    #[error(
        "SLURM_LOCALID = {0:?} is not the number of a task on this machine; name the device with --device cuda:N"
    )]
    Task(String),
}

/// What kind of hardware is behind a Vulkan device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VulkanKind {
    /// A card of its own.
    Discrete,
    /// A part of the processor, or shared with other machines.
    Shared,
    /// The processor itself: a driver that computes in software.
    Software,
}

/// The devices of this machine that this program can use; `None` where it was built without a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Number of CUDA devices.
    pub cuda: Option<usize>,
    /// The Vulkan devices in their order.
    pub vulkan: Option<Vec<VulkanKind>>,
    /// `CUDA_VISIBLE_DEVICES`, which the driver itself heeds: the devices above are what it leaves.
    pub cuda_visible: Option<String>,
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.into());
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", number) => Ok(Self::Cuda(number)),
            ("vulkan", number) => Ok(Self::Vulkan(number)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Vulkan(None) => f.write_str("vulkan"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            Self::Vulkan(Some(number)) => write!(f, "vulkan:{number}"),
        }
    }
}

impl DeviceName {
    /// The device that is meant on a machine with `present` devices, with its number and never `Auto`: the
    /// first one where several are meant.
    ///
    /// `Auto` does not take a Vulkan device without a card of its own: software is slower than this program's
    /// CPU code. Such a device is used where it is named.
    ///
    /// # Errors
    /// A device that is not compiled in or not there.
    pub fn decide(self, present: &Present) -> Result<Self, DeviceError> {
        match self {
            Self::Auto => Ok(present.best()),
            Self::Cpu => Ok(Self::Cpu),
            Self::Cuda(number) => {
                let number = number.unwrap_or(0);
                let restricted = present.restricted();
                self.among(number, present.cuda, "CUDA", "cuda", &restricted)?;
                Ok(Self::Cuda(Some(number)))
            }
            Self::Vulkan(number) => {
                let number = number.unwrap_or(0);
                self.among(number, present.vulkan.as_ref().map(Vec::len), "Vulkan", "vulkan", "")?;
                Ok(Self::Vulkan(Some(number)))
            }
        }
    }

    fn among(
        self,
        number: usize,
        count: Option<usize>,
        kind: &str,
        feature: &'static str,
        restricted: &str,
    ) -> Result<(), DeviceError> {
        let count = count.ok_or(DeviceError::NotCompiled { name: self, feature })?;
        if number < count {
            return Ok(());
        }
        let reason = match count {
            0 => format!("no {kind} device was found{restricted}"),
            1 => format!("1 {kind} device was found{restricted}, number 0"),
            count => format!("{count} {kind} devices were found{restricted}, numbers 0 to {}", count - 1),
        };
        Err(DeviceError::NotPresent { name: self, reason })
    }

    /// Opens the device, without autodiff, and says in the log which one `auto` became. Products of float32
    /// are computed in float32, and sums in one order, on every device.
    ///
    /// # Errors
    /// A device that is not compiled in, not there or not usable.
    pub fn open(self) -> Result<Device, DeviceError> {
        self.open_with(false)
    }

    /// Opens the device as [`open`](Self::open) does; with `tf32`, products of float32 may round their
    /// factors to TF32 where the device has units for that.
    ///
    /// # Errors
    /// As `open`, and a device that this process has opened otherwise.
    pub fn open_with(self, tf32: bool) -> Result<Device, DeviceError> {
        // The CPU is there without looking, and looking loads drivers.
        let present = if self == Self::Cpu { Present::default() } else { Present::probe() };
        let decided = self.decide(&present)?;
        if self == Self::Auto {
            tracing::info!(device = %decided, found = %present, "the device was chosen by what is there");
        }
        if let Self::Vulkan(Some(number)) = decided
            && present.vulkan.as_ref().and_then(|kinds| kinds.get(number)) == Some(&VulkanKind::Software)
        {
            tracing::warn!(device = %decided, "this Vulkan device computes in software; \"cpu\" is faster");
        }
        if cfg!(feature = "autotune") && decided != Self::Cpu {
            tracing::warn!(
                "built with `autotune`: kernels are chosen by their times, so that bits depend on a stopwatch"
            );
        }
        decided.check_parts()?;
        super::queue::share();
        #[cfg(feature = "cube")]
        if decided != Self::Cpu {
            super::kernel_cache::begin(tf32);
        }
        let unusable = |reason: String| DeviceError::NotPresent { name: self, reason };
        let device = decided.device().ok_or_else(|| unusable("it was found and then no more".into()))?;
        match narrowed(&device, tf32).map_err(unusable)? {
            own if own == tf32 => Ok(device),
            _ => Err(DeviceError::Products { name: self, tf32 }),
        }
    }

    /// What a device needs beyond its driver.
    fn check_parts(self) -> Result<(), DeviceError> {
        if !cfg!(feature = "cuda") || !matches!(self, Self::Cuda(_)) {
            return Ok(());
        }
        super::libdevice::find(toolkit().as_deref(), Path::exists).map(|_| ()).map_err(|looked| {
            let looked =
                looked.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" or ");
            DeviceError::Libdevice { name: self, looked }
        })
    }

    fn device(self) -> Option<Device> {
        match self {
            Self::Auto | Self::Cpu => Some(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(number) => Some(Device::cuda(number.unwrap_or(0))),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => None,
            Self::Vulkan(number) => guarded(vulkan_devices)?.into_iter().nth(number.unwrap_or(0)),
        }
    }
}

impl Present {
    /// Looks for devices, which creates none. A driver that fails counts as none.
    pub fn probe() -> Self {
        let vulkan = guarded(vulkan_devices).map(|devices| kinds(&devices));
        Self { cuda: guarded(cuda_count), vulkan, cuda_visible: std::env::var("CUDA_VISIBLE_DEVICES").ok() }
    }

    /// The cards that `name` may mean: each a device of its own, which workers do not share unasked. None for
    /// the CPU, and for Vulkan devices that are no cards.
    pub fn cards(&self, name: DeviceName) -> Vec<DeviceName> {
        let cuda = || (0..self.cuda.unwrap_or(0)).map(|number| DeviceName::Cuda(Some(number))).collect();
        let discrete = || {
            let kinds = self.vulkan.iter().flatten().enumerate();
            let discrete = kinds.filter(|(_, kind)| **kind == VulkanKind::Discrete);
            discrete.map(|(number, _)| DeviceName::Vulkan(Some(number))).collect()
        };
        match name {
            DeviceName::Cpu => Vec::new(),
            DeviceName::Auto if self.cuda.unwrap_or(0) > 0 => cuda(),
            DeviceName::Auto => discrete(),
            DeviceName::Cuda(None) => cuda(),
            DeviceName::Vulkan(None) => discrete(),
            DeviceName::Cuda(Some(_)) => vec![name],
            DeviceName::Vulkan(Some(number)) => {
                let kind = self.vulkan.as_ref().and_then(|kinds| kinds.get(number));
                if kind == Some(&VulkanKind::Discrete) { vec![name] } else { Vec::new() }
            }
        }
    }

    /// The words on `CUDA_VISIBLE_DEVICES` behind a number of CUDA devices.
    pub(crate) fn restricted(&self) -> String {
        let set = self.cuda_visible.as_ref();
        set.map_or(String::new(), |visible| format!(" (CUDA_VISIBLE_DEVICES={visible})"))
    }

    /// What `auto` takes.
    fn best(&self) -> DeviceName {
        self.cards(DeviceName::Auto).first().copied().unwrap_or(DeviceName::Cpu)
    }
}

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cuda {
            Some(count) => write!(f, "{count} CUDA")?,
            None => f.write_str("CUDA not compiled in")?,
        }
        match &self.vulkan {
            Some(kinds) => write!(f, ", Vulkan {kinds:?}"),
            None => f.write_str(", Vulkan not compiled in"),
        }
    }
}

/// The folder that the environment variable `CUDA_PATH` should name, because the library of math functions
/// came with the program, in the folder of `executable`, and the variable is not set. None without CUDA.
pub fn toolkit_beside(executable: &Path) -> Option<PathBuf> {
    let toolkit = toolkit();
    super::libdevice::beside(executable, toolkit.as_deref(), Path::exists).filter(|_| cfg!(feature = "cuda"))
}

/// The folder of the CUDA toolkit that is named.
fn toolkit() -> Option<PathBuf> {
    std::env::var_os(TOOLKIT_VARIABLE).map(PathBuf::from)
}

/// Makes a device exact, once; whether TF32 was left to it, or what its driver refused.
#[cfg(feature = "cube")]
fn narrowed(device: &Device, tf32: bool) -> Result<bool, String> {
    let driver = catch_unwind(AssertUnwindSafe(|| super::narrowing::narrow(device, tf32)));
    driver.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("its driver refused it: {}", text.unwrap_or("no reason was given")))
    })
}

#[cfg(not(feature = "cube"))]
fn narrowed(_: &Device, tf32: bool) -> Result<bool, String> {
    Ok(tf32)
}

/// What a probe finds; no device if the driver makes it panic.
fn guarded<T: Default>(probe: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(probe)).unwrap_or_else(|_| Some(T::default()))
}

#[cfg(feature = "cuda")]
fn cuda_count() -> Option<usize> {
    Some(Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len())
}

#[cfg(not(feature = "cuda"))]
fn cuda_count() -> Option<usize> {
    None
}

#[cfg(feature = "vulkan")]
fn vulkan_devices() -> Option<Vec<Device>> {
    Some(Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec())
}

#[cfg(not(feature = "vulkan"))]
fn vulkan_devices() -> Option<Vec<Device>> {
    None
}

#[cfg(feature = "vulkan")]
fn kinds(devices: &[Device]) -> Vec<VulkanKind> {
    use burn::tensor::DeviceKind;
    let is = |device: &Device, kind: fn(usize) -> DeviceKind| {
        (0..devices.len()).any(|number| *device == Device::vulkan(kind(number)))
    };
    let kind_of = |device: &Device| {
        if is(device, DeviceKind::DiscreteGpu) {
            VulkanKind::Discrete
        } else if is(device, DeviceKind::IntegratedGpu) || is(device, DeviceKind::VirtualGpu) {
            VulkanKind::Shared
        } else {
            VulkanKind::Software
        }
    };
    devices.iter().map(kind_of).collect()
}

#[cfg(not(feature = "vulkan"))]
fn kinds(_: &[Device]) -> Vec<VulkanKind> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(name: &str, cuda: Option<usize>, vulkan: Option<&[VulkanKind]>) -> Result<String, String> {
        let present = Present { cuda, vulkan: vulkan.map(<[_]>::to_vec), cuda_visible: None };
        let name: DeviceName = name.parse().map_err(|error: DeviceError| error.to_string())?;
        name.decide(&present).map(|name| name.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_cuda_then_a_card_under_vulkan_then_the_cpu() {
        use VulkanKind::{Discrete, Shared, Software};
        let auto = |cuda, vulkan| decide("auto", cuda, vulkan).unwrap();
        assert_eq!(auto(Some(2), Some(&[Discrete])), "cuda:0");
        assert_eq!(auto(Some(0), Some(&[Shared, Discrete, Software])), "vulkan:1");
        assert_eq!(auto(Some(0), Some(&[Shared, Software])), "cpu");
        assert_eq!(auto(None, Some(&[Software])), "cpu");
        assert_eq!(auto(None, Some(&[])), "cpu");
        assert_eq!(auto(None, None), "cpu");
    }

    #[test]
    fn a_named_device_is_taken_or_refused_with_what_to_do() {
        use VulkanKind::Software;
        assert_eq!(decide("cuda", Some(1), None).unwrap(), "cuda:0");
        assert_eq!(decide("cuda:3", Some(4), None).unwrap(), "cuda:3");
        assert_eq!(decide("vulkan", None, Some(&[Software])).unwrap(), "vulkan:0");
        assert_eq!(decide("cpu", None, None).unwrap(), "cpu");
        let refused = |name, cuda, vulkan| decide(name, cuda, vulkan).unwrap_err();
        assert!(refused("cuda", None, None).contains("`--features cuda`"));
        assert!(refused("vulkan", None, None).contains("`--features vulkan`"));
        let error = refused("cuda:1", Some(1), None);
        assert!(error.contains("\"cuda:1\"") && error.contains("1 CUDA device was found"), "{error}");
        assert!(refused("vulkan", None, Some(&[])).contains("no Vulkan device was found"));
        let hidden = Present { cuda: Some(0), vulkan: None, cuda_visible: Some("7".into()) };
        let error = DeviceName::Cuda(None).decide(&hidden).unwrap_err().to_string();
        assert!(error.contains("no CUDA device was found (CUDA_VISIBLE_DEVICES=7)"), "{error}");
        for name in ["gpu", "", "cpu:1", "auto:0", "cuda:", "cuda:x", "cuda:-1", "CUDA"] {
            let error = refused(name, Some(1), None);
            assert!(error.contains("is not a device") && error.contains("\"auto\""), "{error}");
        }
    }

    #[test]
    fn probing_this_machine_does_not_panic() {
        DeviceName::Auto.open().unwrap();
        assert_eq!(guarded(|| -> Option<usize> { panic!("a driver") }), Some(0));
    }
}
