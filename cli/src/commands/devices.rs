//! `devices`: what this build finds on this machine.

use std::fmt::Write as _;
use std::path::Path;

use blip2_tensors::device::card::{Card, cuda_cards, gib};
use blip2_tensors::device::seat::Seat;
use blip2_tensors::device::{DeviceName, Present, VulkanKind};
use clap::Args;
use serde::Serialize;

use super::{print_json, print_text};
use crate::error::CliError;
use crate::launch::node_of;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct DevicesArguments {
    /// Print a JSON line.
    #[arg(long)]
    json: bool,
}

/// All that is found.
#[derive(Debug, Serialize)]
struct Devices {
    /// Hardware threads that this process may use.
    threads: usize,
    /// `None`: this build has no CUDA.
    cuda: Option<Vec<CudaDevice>>,
    /// `CUDA_VISIBLE_DEVICES`, where it is set.
    cuda_visible: Option<String>,
    vulkan: Option<Vec<VulkanDevice>>,
    /// What a single worker takes with `--device auto`.
    auto: String,
    /// Workers that `train --device auto` starts if nobody says how many; `None`: what the configuration
    /// says.
    workers: Option<usize>,
}

#[derive(Debug, Serialize)]
struct CudaDevice {
    name: String,
    model: String,
    bus_id: String,
    uuid: String,
    memory_bytes: u64,
    numa_node: Option<u32>,
}

#[derive(Debug, Serialize)]
struct VulkanDevice {
    name: String,
    kind: &'static str,
}

/// Lists the devices.
pub(crate) fn run(arguments: &DevicesArguments) -> Result<Exit, CliError> {
    let present = Present::probe();
    let cards = cuda_cards(present.cuda.unwrap_or(0));
    let found = found(&present, &cards, |bus_id| node_of(Path::new("/"), bus_id))?;
    match arguments.json {
        true => print_json(&found)?,
        false => print_text(&shown(&found))?,
    }
    Ok(Exit::Done)
}

fn found(present: &Present, cards: &[Card], node: impl Fn(&str) -> Option<u32>) -> Result<Devices, CliError> {
    let cuda = |number: usize| {
        let card = cards.get(number).cloned();
        let card = card.unwrap_or_else(|| Card::named(DeviceName::Cuda(Some(number))));
        CudaDevice {
            name: card.device.to_string(),
            numa_node: node(&card.bus_id),
            model: card.model,
            bus_id: card.bus_id,
            uuid: card.uuid,
            memory_bytes: card.memory_bytes,
        }
    };
    let vulkan = |(number, kind): (usize, &VulkanKind)| VulkanDevice {
        name: DeviceName::Vulkan(Some(number)).to_string(),
        kind: match kind {
            VulkanKind::Discrete => "a card",
            VulkanKind::Shared => "part of the processor, or virtual",
            VulkanKind::Software => "software",
        },
    };
    let auto = Seat::Alone.take(DeviceName::Auto, present, false);
    Ok(Devices {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        cuda: present.cuda.map(|count| (0..count).map(cuda).collect()),
        cuda_visible: present.cuda_visible.clone(),
        vulkan: present.vulkan.as_ref().map(|kinds| kinds.iter().enumerate().map(vulkan).collect()),
        auto: auto.map_err(|error| CliError::failed(error.to_string()))?.to_string(),
        workers: Some(present.cards(DeviceName::Auto).len()).filter(|cards| *cards > 0),
    })
}

fn shown(found: &Devices) -> String {
    let mut text = format!("cpu      {} threads\n", found.threads);
    // Writing to a String cannot fail.
    match &found.cuda {
        None => text += "cuda     not in this build (build it with --features cuda)\n",
        Some(cards) if cards.is_empty() => text += "cuda     no card was found\n",
        Some(cards) => {
            for card in cards {
                let node = card.numa_node.map_or(String::new(), |node| format!("node {node}"));
                let memory = match card.memory_bytes {
                    0 => String::new(),
                    bytes => gib(bytes),
                };
                let known = [card.model.as_str(), &memory, &card.bus_id, &card.uuid, &node];
                let known: Vec<&str> = known.into_iter().filter(|part| !part.is_empty()).collect();
                let _ = writeln!(text, "{:<8} {}", card.name, known.join("  "));
            }
        }
    }
    if let Some(visible) = &found.cuda_visible {
        let _ = writeln!(text, "         CUDA_VISIBLE_DEVICES={visible}: other cards are hidden");
    }
    match &found.vulkan {
        None => text += "vulkan   not in this build (build it with --features vulkan)\n",
        Some(devices) if devices.is_empty() => text += "vulkan   no device was found\n",
        Some(devices) => {
            for device in devices {
                let _ = writeln!(text, "{:<8} {}", device.name, device.kind);
            }
        }
    }
    let _ = writeln!(text, "auto     takes {}", found.auto);
    if let Some(workers) = found.workers {
        let _ =
            writeln!(text, "         train starts {workers} workers, one a card, if nobody says how many");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_listed_with_all_that_is_known() {
        let present = Present {
            cuda: Some(2),
            vulkan: Some(vec![VulkanKind::Software]),
            cuda_visible: Some("4,5".into()),
        };
        let known = Card {
            model: "NVIDIA H100".into(),
            bus_id: "0000:3b:00.0".into(),
            uuid: "GPU-1".into(),
            memory_bytes: 80 << 30,
            ..Card::named(DeviceName::Cuda(Some(0)))
        };
        let found = found(&present, &[known], |bus_id| (bus_id == "0000:3b:00.0").then_some(1)).unwrap();
        let text = shown(&found);
        for line in [
            "cuda:0   NVIDIA H100  80.0 GiB  0000:3b:00.0  GPU-1  node 1\n",
            "cuda:1   \n",
            "CUDA_VISIBLE_DEVICES=4,5",
            "vulkan:0 software\n",
            "auto     takes cuda:0\n",
            "train starts 2 workers",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["cuda"][0]["numa_node"], 1);
        assert_eq!((&json["auto"], &json["workers"]), (&"cuda:0".into(), &2.into()));
    }

    #[test]
    fn what_is_not_built_in_is_said() {
        let found = found(&Present::default(), &[], |_| None).unwrap();
        let text = shown(&found);
        assert!(text.contains("--features cuda") && text.contains("--features vulkan"), "{text}");
        assert!(text.ends_with("auto     takes cpu\n"), "{text}");
    }
}
