"""Fewer layers for the small CLIP and the small BLIP: a shallow copy learns to say what the deep one says.

The copy begins as some of the layers of the deep model and sees the training rows of the corpus, as they are and
mirrored. What the deep model makes of them is computed once.

    python assets/make/distill.py --model clip-tiny --out runs/clip-tiny
    python assets/make/distill.py --model blip-tiny --out runs/blip-tiny
"""

import argparse
import copy
import io
import pathlib
import shutil

import numpy
import pyarrow.parquet
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoTokenizer, BlipForConditionalGeneration, CLIPModel

import descent
import model_folder

ASSETS = pathlib.Path(__file__).parents[1]
# The layers that are kept, of six and of four.
VISION, TEXT = (0, 4, 5), (0, 3)


def rows(pattern):
    """Normalised images and their captions."""
    images, captions = [], []
    for path in sorted((ASSETS / "corpus").glob(pattern)):
        table = pyarrow.parquet.read_table(path, columns=["jpg", "caption"])
        for jpg in table["jpg"]:
            images.append(numpy.asarray(Image.open(io.BytesIO(jpg.as_py())).convert("RGB")))
        captions += table["caption"].to_pylist()
    return model_folder.normalised(torch.from_numpy(numpy.stack(images))), captions


def shallow(deep, vision, text):
    """A copy with some of the layers; `vision` and `text` find their lists of layers in a model."""
    model = copy.deepcopy(deep)
    for layers, kept in ((vision(model), VISION), (text(model), TEXT)):
        for place in reversed(range(len(layers))):
            if place not in kept:
                del layers[place]
    model.config.vision_config.num_hidden_layers = len(VISION)
    model.config.text_config.num_hidden_layers = len(TEXT)
    return model


@torch.no_grad()
def in_parts(images, of):
    return [torch.cat(values) for values in zip(*(of(images[first : first + 128]) for first in range(0, len(images), 128)))]


def apart(found, wanted):
    """How far they are apart, in sizes of what is wanted."""
    return functional.mse_loss(found, wanted) / wanted.var()


def unit(values):
    return functional.normalize(values, dim=-1)


class Contrast:
    """CLIP: both towers' vectors, which of all captions an image is like, and the last layer's input."""

    Model = CLIPModel

    def __init__(self, deep, tokenizer, images, captions, generator):
        self.deep, self.generator = deep, generator
        self.model = shallow(
            deep, lambda model: model.vision_model.encoder.layers, lambda model: model.text_model.encoder.layers
        )
        names = sorted(set(captions))
        words = sorted({word for name in names for word in name.split()})
        # Texts of any words beside the names: a ranker is asked of many that name nothing.
        drawn = [torch.randint(len(words), (int(count),), generator=generator) for count in torch.randint(1, 9, (4000,), generator=generator)]
        self.names = self.tokens(tokenizer, names)
        self.others = self.tokens(tokenizer, [" ".join(words[place] for place in places) for places in drawn])
        with torch.no_grad():
            self.name_embeds, self.other_embeds = (
                torch.cat([self.text(deep, part) for part in self.parts(of)]) for of in (self.names, self.others)
            )
        self.inner, self.embeds = in_parts(images, lambda part: self.image(deep, part))
        self.images = images

    @staticmethod
    def tokens(tokenizer, texts):
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
        return encoded["input_ids"], encoded["attention_mask"]

    @staticmethod
    def parts(tokens):
        return zip(*(values.split(256) for values in tokens))

    @staticmethod
    def image(model, pixels):
        seen = model.vision_model(pixel_values=pixels, output_hidden_states=True)
        return seen.hidden_states[-2], unit(model.visual_projection(seen.pooler_output))

    @staticmethod
    def text(model, tokens):
        read = model.text_model(input_ids=tokens[0], attention_mask=tokens[1])
        return unit(model.text_projection(read.pooler_output))

    def loss(self, chosen):
        inner, embeds = self.image(self.model, self.images[chosen])
        draw = lambda tokens: torch.randint(len(tokens[0]), (64,), generator=self.generator)
        of_names, of_others = draw(self.names), draw(self.others)
        names, others = (
            self.text(self.model, [values[places] for values in tokens])
            for tokens, places in ((self.names, of_names), (self.others, of_others))
        )
        texts = torch.cat([names, others])
        wanted_texts = torch.cat([self.name_embeds[of_names], self.other_embeds[of_others]])
        scale = self.deep.logit_scale.exp().item()
        alike = lambda images, texts: functional.log_softmax(scale * images @ texts.T, -1)
        kinship = functional.kl_div(
            alike(embeds, texts), alike(self.embeds[chosen], wanted_texts), log_target=True, reduction="batchmean"
        )
        return (
            apart(inner, self.inner[chosen].float())
            + apart(embeds, self.embeds[chosen])
            + apart(texts, wanted_texts)
            + 0.3 * kinship
        )


class Captions:
    """BLIP: what the encoder gives, and the next words after the prompt and the caption's first ones."""

    Model = BlipForConditionalGeneration
    PROMPT = "a picture of "

    def __init__(self, deep, tokenizer, images, captions, generator):
        self.deep, self.images = deep, images
        self.model = shallow(
            deep, lambda model: model.vision_model.encoder.layers, lambda model: model.text_decoder.bert.encoder.layer
        )
        encoded = tokenizer([self.PROMPT + caption for caption in captions], padding=True, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]
        self.ids[:, 0] = deep.config.text_config.bos_token_id
        self.encoded, = in_parts(images, lambda part: (deep.vision_model(pixel_values=part).last_hidden_state.half(),))

    def words(self, model, encoded, chosen):
        rows = chosen % len(self.ids)
        longest = int(self.mask[rows].sum(1).max())
        mask = self.mask[rows, :longest]
        read = model.text_decoder(
            input_ids=self.ids[rows, :longest], attention_mask=mask, encoder_hidden_states=encoded, use_cache=False
        )
        return functional.log_softmax(read.logits[mask > 0], -1)

    def loss(self, chosen):
        wanted = self.encoded[chosen].float()
        with torch.no_grad():
            wanted_words = self.words(self.deep, wanted, chosen)
        encoded = self.model.vision_model(pixel_values=self.images[chosen]).last_hidden_state
        words = self.words(self.model, encoded, chosen)
        return apart(encoded, wanted) + 2 * functional.kl_div(words, wanted_words, log_target=True, reduction="batchmean")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", required=True, choices=("clip-tiny", "blip-tiny"))
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    folder = ASSETS / "backbones" / options.model
    task = {"clip-tiny": Contrast, "blip-tiny": Captions}[options.model]
    deep = task.Model.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    images, captions = rows("train-*.parquet")
    images = torch.cat([images, images.flip(3)])
    task = task(deep, AutoTokenizer.from_pretrained(folder), images, captions, generator)
    task.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(task.model.parameters(), options.learning_rate, weight_decay=0.01)
    for step in range(options.steps):
        chosen = torch.randint(len(images), (options.batch,), generator=generator)
        descent.descend(task.model, optimizer, task.loss(chosen), step, options)
    out = pathlib.Path(options.out)
    shutil.copytree(folder, out, dirs_exist_ok=True)
    model_folder.write(task.model, out)


if __name__ == "__main__":
    main()
