"""Rows and texts that `cargo xtask scenes` has written, as the training scripts beside this file read them."""

import io
import json
import pathlib
import re

import numpy
import pyarrow.parquet
from PIL import Image

WORDS = pathlib.Path(__file__).parents[2] / "scenes/src/words.rs"


def vocabulary():
    """The things and the colours, in the order of the crate's own tables."""
    source = WORDS.read_text()
    things = re.findall(r'^    of\("(\w+)", "\w+", "[\w ]+"\),$', source, re.M)
    colours = re.findall(r'\b(?:White|Gray|Yellow|Green|Blue|Pink) = "(\w+)"', source)
    assert len(things) == 64 and len(colours) == 6, f"{WORDS} is not as this script reads it"
    return things, colours


def singular():
    """Each thing's word for several, and its word for one."""
    pairs = re.findall(r'^    of\("(\w+)", "(\w+)", "[\w ]+"\),$', WORDS.read_text(), re.M)
    return {many: one for one, many in pairs}


def palette():
    """Red, green and blue of the colours, in the same order."""
    found = re.findall(r"Self::(?:White|Gray|Yellow|Green|Blue|Pink) => \[(\d+), (\d+), (\d+)\]", WORDS.read_text())
    assert len(found) == 6, f"{WORDS} is not as this script reads it"
    return [[int(value) for value in colour] for colour in found]


def rows(folder, split, most=None):
    """Images as bytes of red, green and blue (row, y, x, channel), the captions, and the scenes."""
    table = pyarrow.parquet.read_table(
        pathlib.Path(folder) / f"{split}-00000.parquet", columns=["jpg", "caption", "scene"]
    ).slice(0, most)
    decode = lambda jpg: numpy.asarray(Image.open(io.BytesIO(jpg)).convert("RGB"))
    images = numpy.stack([decode(jpg.as_py()) for jpg in table["jpg"]])
    return images, table["caption"].to_pylist(), [json.loads(scene.as_py()) for scene in table["scene"]]


def captions(folder):
    """Every caption of the training scenes."""
    return (pathlib.Path(folder) / "text/captions.txt").read_text().splitlines()


def questions(folder):
    """Caption, question and answer of the training scenes."""
    lines = (pathlib.Path(folder) / "text/questions.txt").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines]
