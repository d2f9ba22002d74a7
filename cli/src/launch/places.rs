//! What each worker of this machine is given: a card, cores and threads.

use std::path::Path;
use std::process::{Command, Stdio};

use blip2_tensors::device::card::cuda_cards;
use blip2_tensors::device::seat::deal;
use blip2_tensors::device::{DeviceName, Present};

use super::cores::{Cores, node_of};
use crate::config::LaunchSection;
use crate::error::CliError;

/// The program that starts another one on some cores, of util-linux.
pub(super) const TASKSET: &str = "taskset";

/// What a worker is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its device; `None`: that of the configuration, which is the CPU.
    pub(crate) device: Option<DeviceName>,
    /// Hardware threads of the host it is kept to; none: all.
    pub(crate) cores: Vec<u32>,
    /// Its compute threads.
    pub(crate) threads: usize,
}

/// What there is to be dealt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) present: Present,
    /// The node of memory of each CUDA card, by number, as far as it is known.
    pub(crate) nodes: Vec<Option<u32>>,
    pub(crate) cores: Cores,
    /// Hardware threads that this process may use.
    pub(crate) threads: usize,
}

impl Machine {
    /// Looks at this machine, as far as workers on `device` need it. For the CPU nothing is looked for, which
    /// would load drivers.
    pub(crate) fn look(device: DeviceName) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        if device == DeviceName::Cpu {
            return Self { threads, ..Self::default() };
        }
        let root = Path::new("/");
        let present = Present::probe();
        let cards = cuda_cards(present.cuda.unwrap_or(0));
        let nodes = cards.iter().map(|card| node_of(root, &card.bus_id)).collect();
        Self { present, nodes, cores: Cores::read(root), threads }
    }

    fn node(&self, device: DeviceName) -> Option<u32> {
        match device {
            DeviceName::Cuda(Some(number)) => self.nodes.get(number).copied().flatten(),
            _ => None,
        }
    }
}

/// How many workers are started where nobody said: one for each card, `most` at most, or what is
/// `configured`.
pub(crate) fn default_workers(device: DeviceName, machine: &Machine, configured: u32, most: u32) -> u32 {
    match machine.present.cards(device).len() {
        0 => configured,
        cards => u32::try_from(cards).unwrap_or(u32::MAX).min(most),
    }
}

/// What each of `count` workers on `device`, which `key` names, is given.
///
/// # Errors
/// A device that is not there, or fewer cards than workers.
pub(crate) fn places(
    key: &str,
    device: DeviceName,
    count: u32,
    launch: &LaunchSection,
    machine: &Machine,
) -> Result<Vec<Place>, CliError> {
    let even = match launch.threads_per_worker {
        0 => (machine.threads / count.max(1) as usize).max(1),
        configured => configured,
    };
    if device == DeviceName::Cpu || machine.present.cards(device).is_empty() && device == DeviceName::Auto {
        return Ok(vec![Place { device: None, cores: Vec::new(), threads: even }; count as usize]);
    }
    let devices = deal(device, count as usize, &machine.present, launch.share_devices)
        .map_err(|error| CliError::config(format!("{key}: {error}")))?;
    let nodes: Vec<Option<u32>> = devices.iter().map(|device| machine.node(*device)).collect();
    let cores = match launch.pin_cores {
        true => machine.cores.deal(&nodes),
        false => vec![Vec::new(); devices.len()],
    };
    let place = |(device, cores): (DeviceName, Vec<u32>)| {
        let own = if launch.threads_per_worker == 0 && !cores.is_empty() { cores.len() } else { even };
        Place { device: Some(device), cores, threads: own }
    };
    Ok(devices.into_iter().zip(cores).map(place).collect())
}

/// Leaves the cores to the kernel where they cannot be dealt, and says so once: no run fails over it.
pub(crate) fn as_far_as_possible(mut places: Vec<Place>) -> Vec<Place> {
    let asks = places.iter().any(|place| !place.cores.is_empty());
    if asks && !can_pin() {
        eprintln!(
            "warning: workers are not kept to the cores near their cards: there is no {TASKSET} (of util-linux); \
             launch.pin_cores = false says that none is wanted"
        );
        places.iter_mut().for_each(|place| place.cores.clear());
    }
    places
}

fn can_pin() -> bool {
    let mut command = Command::new(TASKSET);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use blip2_run::exit::Exit;

    const KEY: &str = "train.device";

    /// Four cards at two nodes of four cores.
    fn machine() -> Machine {
        let cores = |first: u32| (first..first + 4).map(|core| vec![core]).collect();
        Machine {
            present: Present { cuda: Some(4), vulkan: None, cuda_visible: None },
            nodes: vec![Some(0), Some(0), Some(1), Some(1)],
            cores: Cores(BTreeMap::from([(0, cores(0)), (1, cores(4))])),
            threads: 8,
        }
    }

    fn place(device: usize, cores: &[u32], threads: usize) -> Place {
        Place { device: Some(DeviceName::Cuda(Some(device))), cores: cores.to_vec(), threads }
    }

    #[test]
    fn each_worker_gets_its_card_and_the_cores_near_it() {
        let launch = LaunchSection::default();
        let dealt = places(KEY, DeviceName::Cuda(None), 4, &launch, &machine()).unwrap();
        let expected =
            [place(0, &[0, 1], 2), place(1, &[2, 3], 2), place(2, &[4, 5], 2), place(3, &[6, 7], 2)];
        assert_eq!(dealt, expected);
        // Threads that are asked for are those that are started; cores may be left to the kernel.
        let free = LaunchSection { pin_cores: false, threads_per_worker: 3, ..launch.clone() };
        assert_eq!(
            places(KEY, DeviceName::Auto, 2, &free, &machine()).unwrap(),
            [place(0, &[], 3), place(1, &[], 3)]
        );
        let shared = LaunchSection { share_devices: true, ..launch };
        let dealt = places(KEY, DeviceName::Cuda(Some(3)), 2, &shared, &machine()).unwrap();
        assert_eq!(dealt, [place(3, &[4, 5], 2), place(3, &[6, 7], 2)]);
    }

    #[test]
    fn more_workers_than_cards_are_a_wrong_configuration() {
        let launch = LaunchSection::default();
        let error = places(KEY, DeviceName::Auto, 8, &launch, &machine()).unwrap_err();
        assert_eq!(error.exit(), Exit::BadConfig);
        let said = error.to_string();
        assert!(said.starts_with(&format!("configuration: {KEY}: 8 workers")), "{said}");
        assert!(said.contains("4 CUDA cards were found"), "{said}");
        assert!(said.contains("launch.share_devices"), "{said}");
        let none = Machine { present: Present { cuda: Some(0), ..Present::default() }, ..machine() };
        assert_eq!(
            places(KEY, DeviceName::Cuda(None), 1, &launch, &none).unwrap_err().exit(),
            Exit::BadConfig
        );
    }

    #[test]
    fn the_cpu_is_shared_and_nobody_is_kept_from_a_core() {
        let launch = LaunchSection::default();
        let expected = vec![Place { device: None, cores: Vec::new(), threads: 4 }; 2];
        assert_eq!(places(KEY, DeviceName::Cpu, 2, &launch, &machine()).unwrap(), expected);
        let no_cards = Machine { present: Present::default(), ..machine() };
        assert_eq!(places(KEY, DeviceName::Auto, 2, &launch, &no_cards).unwrap(), expected);
        assert_eq!(places(KEY, DeviceName::Cpu, 100, &launch, &machine()).unwrap()[0].threads, 1);
        assert_eq!(Machine::look(DeviceName::Cpu).present, Present::default());
    }

    #[test]
    fn where_nobody_says_how_many_there_is_a_worker_a_card() {
        assert_eq!(default_workers(DeviceName::Auto, &machine(), 1, 16), 4);
        assert_eq!(default_workers(DeviceName::Cuda(Some(2)), &machine(), 2, 16), 1);
        assert_eq!(default_workers(DeviceName::Auto, &machine(), 1, 2), 2);
        assert_eq!(default_workers(DeviceName::Cpu, &machine(), 2, 16), 2);
        assert_eq!(default_workers(DeviceName::Auto, &Machine::default(), 2, 16), 2);
    }
}
