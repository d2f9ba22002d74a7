"""Trains the image encoder of the scenes: `Blip2VisionModel` in EVA's layout, 64 patches, d=128, L=6.

Every patch learns to tell which thing it shows, what colour is behind it, and its own row and column; the first
token, which things there are and the colour of the ground. So the features say which thing is where, and nothing
tells them how a scene is put into words. Only the split `train` is read; the other splits are measured.

A Q-Former adds no positions of its own to what it looks at: a query finds the left half of an image by what the
patches themselves say of their place. An encoder that is asked for things alone forgets it.

    cargo xtask scenes --out runs/scenes --rows 40,000
    python assets/make/train_vision.py --scenes runs/scenes --out runs/eva-scenes --recolour 0.5

`--recolour` is the share of images whose ground gets a colour that is none of the six, so that no thing is known by
the grounds that it is seen on: held out is which things stand on which colours.
"""

import argparse
import time

import numpy
import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2VisionConfig, Blip2VisionModel

import model_folder
import scenes_rows

SIDE = 8  # patches of an image's side
# A thing is where it covers so much of a patch; between these it is neither asked for nor denied.
COVERED, BARE = 0.4, 0.1
IGNORED = -100
# That length: the longer, the less of the features goes into places.
SHARP = 2.0


class Places(nn.Module):
    """Scores of the rows, or of the columns, along directions of one length: for the scores to tell them apart the
    features must, and no weight grows in their stead."""

    def __init__(self, width):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(SIDE, width) * 0.02)

    def forward(self, features):
        return functional.linear(features, SHARP * functional.normalize(self.directions, dim=1))


class Tagger(nn.Module):
    """The encoder with the heads that are thrown away after training."""

    def __init__(self, size, things, colours):
        super().__init__()
        self.encoder = Blip2VisionModel(
            Blip2VisionConfig(
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=6,
                num_attention_heads=4,
                image_size=size,
                patch_size=size // SIDE,
                hidden_act="gelu",
                layer_norm_eps=1e-6,
                initializer_range=0.02,
            )
        )
        self.norm = nn.LayerNorm(128)
        self.thing = nn.Linear(128, things + 1)
        self.behind = nn.Linear(128, colours)
        self.things = nn.Linear(128, things)
        self.ground = nn.Linear(128, colours)
        self.row, self.column = Places(128), Places(128)

    def features(self, images):
        """(batch, 1 + 64, 128), before `post_layernorm`."""
        embedded = self.encoder.embeddings(images)
        return self.encoder.encoder(inputs_embeds=embedded).last_hidden_state

    def forward(self, images):
        raw = self.features(images)
        features = self.norm(raw)
        first, patches = features[:, 0], features[:, 1:]
        # Places are read from the features as a Q-Former reads them, without the norm's own weights.
        bare = functional.layer_norm(raw, (128,))[:, 1:]
        places = self.row(bare), self.column(bare)
        return self.thing(patches), self.behind(patches), self.things(first), self.ground(first), places


def targets(scenes, size, things, colours):
    """For each scene: what each patch shows and what is behind it, which things there are, the ground."""
    patch = size // SIDE
    edges = numpy.arange(SIDE) * patch
    shown = numpy.zeros((len(scenes), SIDE, SIDE), numpy.int64)  # 0: no thing
    behind = numpy.zeros_like(shown)
    there = numpy.zeros((len(scenes), len(things)), numpy.float32)
    ground = numpy.zeros(len(scenes), numpy.int64)

    def covered(box):
        along = lambda start, length: numpy.clip(
            numpy.minimum(edges + patch, start + length) - numpy.maximum(edges, start), 0, None
        )
        return along(box["y"], box["height"])[:, None] * along(box["x"], box["width"])[None] / patch**2

    for row, structure in enumerate(scenes):
        ground[row] = colours.index(structure["scene"]["background"])
        behind[row] = ground[row]
        if structure["shape"]:
            inside = structure["scene"]["content"]["inside"]
            share = covered(structure["shape"])
            if inside["shape"] == "circle":
                box = structure["shape"]
                middle = edges + patch / 2
                away = numpy.hypot(
                    middle[:, None] - box["y"] - box["height"] / 2, middle[None] - box["x"] - box["width"] / 2
                )
                share = numpy.clip((box["width"] / 2 - away) / patch + 0.5, 0, 1)
            behind[row][share > BARE] = IGNORED
            behind[row][share > 0.9] = colours.index(inside["colour"])
        for group in structure["groups"]:
            thing = things.index(group["thing"])
            there[row, thing] = 1
            for box in group["boxes"]:
                share = covered(box)
                shown[row][(share > BARE) & (share < COVERED)] = IGNORED
                shown[row][share >= COVERED] = thing + 1
    flat = lambda array: torch.from_numpy(array.reshape(len(scenes), -1))
    return flat(shown), flat(behind), torch.from_numpy(there), torch.from_numpy(ground)


# A colour is another one where some channel differs by more than this; a ground's pixels differ by less than the other.
FAR, NEAR = 40, 12


def recoloured(images, behind, ground, palette, share, generator):
    """Some grounds in a colour that is far from all of the palette; what is behind is then not asked for."""
    images, behind, ground = images.clone(), behind.clone(), ground.clone()
    for row in range(len(images)):
        if torch.rand((), generator=generator) < share:
            while True:
                colour = torch.randint(90, 256, (3,), generator=generator)
                if (palette - colour).abs().max(1).values.min() > FAR:
                    break
            own = ground[row].item()
            mask = ((images[row].int() - palette[own]).abs() <= NEAR).all(-1)
            images[row][mask] = colour.to(torch.uint8)
            behind[row][behind[row] == own] = IGNORED
            ground[row] = IGNORED
    return images, behind, ground


def augmented(images, shown, behind, generator):
    """Half of the images mirrored with what their patches show, and every channel a little brighter or darker."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(2), images)
    turn = lambda map: torch.where(mirrored.view(-1, 1, 1), map.view(-1, SIDE, SIDE).flip(2), map.view(-1, SIDE, SIDE))
    gain = 1 + 0.16 * (torch.rand(len(images), 1, 1, 3, generator=generator) - 0.5)
    return (images * gain).clamp(max=255), turn(shown).flatten(1), turn(behind).flatten(1)


def loss(model, images, shown, behind, there, ground):
    with torch.autocast("cpu", torch.bfloat16):
        thing, colour, things, floor, (row, column) = model(images)
    at = torch.arange(SIDE**2).repeat(len(images))
    patches = lambda scores, wanted: functional.cross_entropy(
        scores.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED
    )
    return (
        patches(thing, shown)
        + 0.2 * patches(colour, behind)
        + 5 * functional.binary_cross_entropy_with_logits(things.float(), there)
        + 0.2 * functional.cross_entropy(floor.float(), ground, ignore_index=IGNORED)
        + 0.5 * (patches(row, at // SIDE) + patches(column, at % SIDE))
    )


@torch.no_grad()
def measured(model, images, wanted):
    """Right patches of those that show a thing, and of the others; scenes whose things are all found, and no
    others; right grounds; patches whose row and column are told."""
    shown, behind, there, ground = wanted
    model.eval()
    right = {"thing": [], "bare": [], "behind": [], "all things": [], "ground": [], "place": []}
    at = torch.arange(SIDE**2)
    for first in range(0, len(images), 256):
        part = slice(first, first + 256)
        thing, colour, things, floor, (row, column) = model(model_folder.normalised(images[part]))
        found, known = thing.argmax(-1), shown[part]
        right["thing"].append((found == known)[known > 0])
        right["bare"].append((found == known)[known == 0])
        right["behind"].append((colour.argmax(-1) == behind[part])[behind[part] >= 0])
        right["all things"].append(((things > 0) == (there[part] > 0)).all(1))
        right["ground"].append(floor.argmax(-1) == ground[part])
        right["place"].append(row.argmax(-1) * SIDE + column.argmax(-1) == at)
    model.train()
    return {name: round(torch.cat(values).float().mean().item(), 4) for name, values in right.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--scenes", required=True, help="folder that `cargo xtask scenes` has written")
    arguments.add_argument("--out", required=True, help="folder for the encoder")
    arguments.add_argument("--init", help="`OUT.tagger.pt` of an earlier training to go on from")
    arguments.add_argument("--recolour", type=float, default=0.0, help="share of grounds in other colours")
    arguments.add_argument("--steps", type=int, default=6000)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--minutes", type=float, default=1e9, help="shorten the schedule to this time")
    arguments.add_argument("--measure-every", type=int, default=500)
    options = arguments.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    things, colours = scenes_rows.vocabulary()
    load = lambda split, most=None: scenes_rows.rows(options.scenes, split, most)
    images, _, scenes = load("train")
    size = images.shape[1]
    wanted = targets(scenes, size, things, colours)
    images = torch.from_numpy(images)
    held_out = {}
    for split in ("validation", "combinations", "drawings"):
        pixels, _, structures = load(split, 500)
        held_out[split] = torch.from_numpy(pixels), targets(structures, size, things, colours)
    model = Tagger(size, len(things), len(colours))
    palette = torch.tensor(scenes_rows.palette())
    if options.init:
        model.load_state_dict(torch.load(options.init), strict=False)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    started, steps, step = time.monotonic(), options.steps, 0
    order = torch.randperm(len(images), generator=generator)
    while step < steps:
        # Linear rise over 200 steps, then half a cosine; what is left of the time shortens it.
        share = max(step / steps, (time.monotonic() - started) / 60 / options.minutes)
        if share >= 1:
            break
        rate = options.learning_rate * min((step + 1) / 200, 0.02 + 0.49 * (1 + numpy.cos(numpy.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = step * options.batch % (len(images) - options.batch + 1)
        if at < options.batch:
            order = torch.randperm(len(images), generator=generator)
        chosen = order[at : at + options.batch]
        pixels, kept, floor = images[chosen], wanted[1][chosen], wanted[3][chosen]
        if options.recolour > 0:
            pixels, kept, floor = recoloured(pixels, kept, floor, palette, options.recolour, generator)
        pixels, shown, behind = augmented(pixels, wanted[0][chosen], kept, generator)
        total = loss(model, model_folder.normalised(pixels), shown, behind, wanted[2][chosen], floor)
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step} {time.monotonic() - started:.0f} s loss {total.item():.4f}", flush=True)
        if step % options.measure_every == 0:
            for split, (pixels, known) in held_out.items():
                print(f"step {step} {split} {measured(model, pixels, known)}", flush=True)
            torch.save(model.state_dict(), f"{options.out.rstrip('/')}.tagger.pt")
    for split, (pixels, known) in held_out.items():
        print(f"end {step} {split} {measured(model, pixels, known)}", flush=True)
    torch.save(model.state_dict(), f"{options.out.rstrip('/')}.tagger.pt")
    model_folder.write(model.encoder, options.out)
    model_folder.write_image_processor(options.out, size)


if __name__ == "__main__":
    main()
