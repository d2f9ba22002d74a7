//! Which worker takes which card: one rule for those that a command starts on this machine and for the tasks
//! of a job scheduler.

use crate::device::name::{DeviceError, DeviceName, Present};

/// The number of a task among those of its machine, as Slurm's `srun` sets it.
pub const SLURM_TASK: &str = "SLURM_LOCALID";

/// A worker's place among those that share this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Seat {
    /// Nobody else is known of.
    #[default]
    Alone,
    /// The `index`-th of `count` workers that one command starts.
    Of {
        /// From 0.
        index: usize,
        /// At least 1.
        count: usize,
    },
    /// A scheduler's task, of whose neighbours only the numbers are known.
    Task(usize),
}

impl Seat {
    /// The seat of a worker that was started by itself; `variable` reads the environment.
    ///
    /// # Errors
    /// [`DeviceError::Task`]: a number of a task that is none.
    pub fn of_process(variable: impl Fn(&str) -> Option<String>) -> Result<Self, DeviceError> {
        match variable(SLURM_TASK) {
            None => Ok(Self::Alone),
            Some(text) => text.parse().map(Self::Task).map_err(|_| DeviceError::Task(text)),
        }
    }

    /// The device that a worker of this seat takes where `name` is asked for and `present` is there. Never
    /// `Auto`, and always with its number. `share` lets workers share a card, dealt round robin.
    ///
    /// # Errors
    /// A device that is not there, or fewer cards than workers.
    pub fn take(self, name: DeviceName, present: &Present, share: bool) -> Result<DeviceName, DeviceError> {
        let first = name.decide(present)?;
        let cards = present.cards(name);
        let is_named = matches!(name, DeviceName::Cuda(Some(_)) | DeviceName::Vulkan(Some(_)));
        let index = match self {
            _ if cards.is_empty() => return Ok(first),
            Self::Alone => 0,
            // Whoever started the task gave it its card, by name or by hiding the others.
            Self::Task(_) if is_named || cards.len() == 1 => 0,
            Self::Of { index, .. } | Self::Task(index) if share => index % cards.len(),
            Self::Of { index, count } if count <= cards.len() => index,
            Self::Task(index) if index < cards.len() => index,
            Self::Of { count, .. } => {
                let found = if is_named { format!("{name} is one card") } else { found(&cards, present) };
                return Err(DeviceError::TooFewCards {
                    who: format!("{count} workers are to be started"),
                    cards: found,
                    remedy: format!("start {} at most", cards.len()),
                });
            }
            Self::Task(index) => {
                return Err(DeviceError::TooFewCards {
                    who: format!("this is task {index} of its machine ({SLURM_TASK}, from 0)"),
                    cards: found(&cards, present),
                    remedy: "start as many tasks a machine as it has cards".into(),
                });
            }
        };
        Ok(cards[index])
    }
}

/// Which device a worker is to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceChoice {
    /// Instead of the one that is configured.
    pub device: Option<DeviceName>,
    /// Its place among the workers of this machine.
    pub seat: Seat,
    /// Whether workers may share a card.
    pub share: bool,
}

/// Why a worker has no device.
#[derive(Debug, thiserror::Error)]
pub enum NoDevice {
    /// What is configured names none.
    #[error("{key} = {error}")]
    Named {
        /// The configuration's key.
        key: String,
        /// What is wrong.
        error: DeviceError,
    },
    /// It is not there, or has no card left for this worker.
    #[error("the device of this worker: {0}")]
    Taken(DeviceError),
}

impl DeviceChoice {
    /// The device, with its number, where the configuration's `key` names `configured`.
    ///
    /// # Errors
    /// [`NoDevice`].
    pub fn decide(&self, key: &str, configured: &str) -> Result<DeviceName, NoDevice> {
        let unknown = |error| NoDevice::Named { key: key.to_owned(), error };
        let name = self.device.map_or_else(|| configured.parse(), Ok).map_err(unknown)?;
        // The CPU is there without looking, and looking loads drivers.
        let present = if name == DeviceName::Cpu { Present::default() } else { Present::probe() };
        let decided = self.seat.take(name, &present, self.share).map_err(NoDevice::Taken)?;
        if decided != name {
            tracing::info!(asked = %name, found = %present, seat = ?self.seat, "takes {decided}");
        }
        Ok(decided)
    }
}

/// The device of each of `count` workers that one command starts on this machine.
///
/// # Errors
/// As [`Seat::take`].
pub fn deal(
    name: DeviceName,
    count: usize,
    present: &Present,
    share: bool,
) -> Result<Vec<DeviceName>, DeviceError> {
    (0..count).map(|index| Seat::Of { index, count }.take(name, present, share)).collect()
}

fn found(cards: &[DeviceName], present: &Present) -> String {
    let kind = if matches!(cards.first(), Some(DeviceName::Cuda(_))) { "CUDA" } else { "Vulkan" };
    let restricted = if kind == "CUDA" { present.restricted() } else { String::new() };
    match cards.len() {
        1 => format!("1 {kind} card was found{restricted}"),
        count => format!("{count} {kind} cards were found{restricted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::name::VulkanKind::{self, Discrete, Shared, Software};

    fn present(cuda: Option<usize>, vulkan: &[VulkanKind]) -> Present {
        let vulkan = (!vulkan.is_empty()).then(|| vulkan.to_vec());
        Present { cuda, vulkan, cuda_visible: cuda.is_some().then(|| "all of them".to_owned()) }
    }

    fn dealt(name: &str, count: usize, present: &Present, share: bool) -> Result<String, String> {
        let dealt = deal(name.parse().unwrap(), count, present, share).map_err(|error| error.to_string())?;
        Ok(dealt.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_worker_of_a_machine_takes_a_card_of_its_own() {
        let four = present(Some(4), &[]);
        let mixed = present(Some(0), &[Shared, Discrete, Software, Discrete]);
        for (name, count, present, share, expected) in [
            ("cuda", 4, &four, false, "cuda:0 cuda:1 cuda:2 cuda:3"),
            ("auto", 2, &four, false, "cuda:0 cuda:1"),
            ("cuda", 1, &four, false, "cuda:0"),
            ("cuda:3", 1, &four, false, "cuda:3"),
            ("cuda:3", 2, &four, true, "cuda:3 cuda:3"),
            ("cuda", 6, &four, true, "cuda:0 cuda:1 cuda:2 cuda:3 cuda:0 cuda:1"),
            ("auto", 2, &mixed, false, "vulkan:1 vulkan:3"),
            ("vulkan", 2, &mixed, false, "vulkan:1 vulkan:3"),
            ("vulkan:3", 1, &mixed, false, "vulkan:3"),
            // What is no card is shared, as the CPU is.
            ("vulkan:2", 2, &mixed, false, "vulkan:2 vulkan:2"),
            ("vulkan", 2, &present(None, &[Software]), false, "vulkan:0 vulkan:0"),
            ("cpu", 3, &four, false, "cpu cpu cpu"),
            ("auto", 2, &present(None, &[Shared]), false, "cpu cpu"),
            ("auto", 2, &present(None, &[]), false, "cpu cpu"),
        ] {
            assert_eq!(dealt(name, count, present, share).as_deref(), Ok(expected), "{name} for {count}");
        }
    }

    #[test]
    fn a_worker_takes_the_device_it_is_told_or_the_configured_one() {
        let choice = DeviceChoice { device: None, seat: Seat::Task(5), share: false };
        assert_eq!(choice.decide("train.device", "cpu").unwrap(), DeviceName::Cpu);
        let told = DeviceChoice { device: Some(DeviceName::Cpu), ..choice };
        assert_eq!(told.decide("train.device", "cuda:7").unwrap(), DeviceName::Cpu);
        let error = choice.decide("train.device", "gpu").unwrap_err();
        assert!(error.to_string().contains("train.device = \"gpu\""), "{error}");
    }

    #[test]
    fn more_workers_than_cards_are_refused_with_what_was_found() {
        let four = present(Some(4), &[]);
        for (name, count, present, words) in [
            (
                "cuda",
                8,
                &four,
                [
                    "8 workers",
                    "4 CUDA cards were found (CUDA_VISIBLE_DEVICES=all of them)",
                    "start 4 at most",
                ],
            ),
            ("auto", 5, &four, ["5 workers", "4 CUDA cards", "start 4 at most"]),
            ("cuda:3", 2, &four, ["2 workers", "cuda:3 is one card", "start 1 at most"]),
            (
                "vulkan",
                3,
                &present(None, &[Shared, Discrete]),
                ["3 workers", "1 Vulkan card was found", "start 1 at most"],
            ),
        ] {
            let error = dealt(name, count, present, false).expect_err(name);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            assert!(error.contains("launch.share_devices = true"), "{error}");
        }
        assert!(dealt("cuda", 2, &present(Some(0), &[]), true).unwrap_err().contains("no CUDA device"));
        assert!(dealt("cuda:4", 1, &four, false).unwrap_err().contains("numbers 0 to 3"));
    }

    #[test]
    fn a_task_takes_the_card_it_is_shown_or_that_of_its_number() {
        for (cards, task, name, share, expected) in [
            // The scheduler shows each task one card: its number is that of the first.
            (1, Some("5"), "cuda", false, Ok("cuda:0")),
            (8, Some("5"), "cuda", false, Ok("cuda:5")),
            (8, Some("5"), "auto", false, Ok("cuda:5")),
            (8, Some("5"), "cuda:2", false, Ok("cuda:2")),
            (8, Some("0"), "auto", false, Ok("cuda:0")),
            (8, None, "auto", false, Ok("cuda:0")),
            (4, Some("5"), "cuda", true, Ok("cuda:1")),
            (4, Some("5"), "cuda", false, Err("task 5 of its machine")),
            (4, Some("x"), "cuda", false, Err("SLURM_LOCALID = \"x\"")),
            (0, Some("5"), "auto", false, Ok("cpu")),
            (0, Some("5"), "cuda", false, Err("no CUDA device was found")),
        ] {
            let seat = Seat::of_process(|name| (name == SLURM_TASK).then(|| task.map(str::to_owned))?);
            let taken = seat.and_then(|seat| seat.take(name.parse()?, &present(Some(cards), &[]), share));
            let taken = taken.map(|name| name.to_string()).map_err(|error| error.to_string());
            match (&taken, expected) {
                (Ok(taken), Ok(expected)) => assert_eq!(taken, expected),
                (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
                _ => panic!("{cards} cards, task {task:?}, {name}: {taken:?}"),
            }
        }
    }
}
