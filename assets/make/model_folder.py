"""Folders in Hugging Face form, weights in 16 bits."""

import json
import pathlib

import torch

# What the image encoder's input is normalised by, as in the paper.
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def normalised(images):
    """What an image encoder takes, (row, channel, y, x), of bytes of red, green and blue (row, y, x, channel)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def write(model, folder, tokenizer=None):
    """`config.json` and `model.safetensors`; with the tokenizer's files beside them if one is given."""
    folder = pathlib.Path(folder)
    model.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def write_image_processor(folder, size):
    """How images become what the encoder takes."""
    settings = {
        "image_processor_type": "BlipImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_convert_rgb": True,
    }
    (pathlib.Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
