"""Sentences behind notes of what they describe: how the language models of the scenes learn to be told what to write.

In BLIP-2 a language model reads a few vectors, one for each query, and writes what they say. A language model of
this size that has read sentences alone makes little of vectors before them. So these are trained on text in the
same form: as many places as there are queries, then the sentence. A place stands for a part of the image, so that a
query has to look at one part alone:

    0 to 8   the word for the thing there, in three rows of three
    9        the colour of the ground
    10, 11   the colour of a shape, and "circle" or "square"

Where a sentence's things would stand is drawn from what it says; no image is looked at. Noise is added to the notes,
since no query is ever exactly a word: from none to so much that a word can hardly be told. A model that has seen
little noise alone takes any vector for some word and is sure of it; its gradient then says nothing to a Q-Former
that begins. Nothing but text is read, and of the training scenes only.
"""

import random
import re

import torch

import scenes_rows
from train_tokenizers import PROMPTS

PLACES = 12
GROUND, BEHIND, SHAPE = 9, 10, 11
# Sides of a thing that is alone, as shares of the image's.
ALONE = (0.42, 0.64)

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
GROUP = r"(\w+) (\w+)"
RELATION = "(left of|right of|above|below)"
SINGLE = re.compile(rf"{GROUP} on (\w+)")
PAIR = re.compile(rf"{GROUP} {RELATION} {GROUP} on (\w+)")
CORNER = re.compile(rf"{GROUP} {RELATION} {GROUP} and {RELATION} {GROUP} on (\w+)")
INSIDE = re.compile(rf"{GROUP} inside a (\w+) (\w+) on (\w+)")
OPPOSITE = {"right of": "left of", "below": "above"}
SINGULAR = scenes_rows.singular()


def quarter(row, column):
    return 6 * row + 2 * column


def one_of_a_pair(number, half, is_horizontal, word, filled):
    if number == 1:
        filled[(1, 2 * half) if is_horizontal else (2 * half, 1)] = word
        return
    for other in (0, 1):
        row, column = (other, half) if is_horizontal else (half, other)
        filled[2 * row, 2 * column] = word


def notes(caption, generator):
    """The notes of a caption whose things stand where it says, elsewhere none."""
    filled = [None] * PLACES
    cells = {}
    word = lambda text: SINGULAR.get(text, text)
    if found := CORNER.fullmatch(caption):
        _, first, one, _, second, other, _, third, ground = found.groups()
        aside, aslope = (one, second), (other, third)
        if one in ("above", "below"):
            aside, aslope = aslope, aside
        column, row = int(aside[0] == "right of"), int(aslope[0] == "below")
        cells[2 * row, 2 * column] = word(first)
        cells[2 * row, 2 * (1 - column)] = word(aside[1])
        cells[2 * (1 - row), 2 * column] = word(aslope[1])
    elif found := INSIDE.fullmatch(caption):
        _, thing, behind, shape, ground = found.groups()
        cells[1, 1] = word(thing)
        filled[BEHIND], filled[SHAPE] = behind, shape
    elif found := PAIR.fullmatch(caption):
        first, one, relation, second, other, ground = found.groups()
        groups = [(NUMBERS[first], word(one)), (NUMBERS[second], word(other))]
        if relation in OPPOSITE:
            groups.reverse()
        is_horizontal = relation in ("left of", "right of")
        for half, (number, thing) in enumerate(groups):
            one_of_a_pair(number, half, is_horizontal, thing, cells)
    elif found := SINGLE.fullmatch(caption):
        number, thing, ground = found.groups()
        if NUMBERS[number] == 1:
            side = generator.uniform(*ALONE)
            at = lambda: int(3 * generator.uniform(side / 2, 1 - side / 2))
            cells[at(), at()] = word(thing)
        else:
            for place in generator.sample(range(4), NUMBERS[number]):
                cells[2 * (place // 2), 2 * (place % 2)] = word(thing)
    else:
        raise ValueError(f"not a sentence of the grammar: {caption}")
    for (row, column), thing in cells.items():
        filled[3 * row + column] = thing
    filled[GROUND] = ground
    return filled


def read_texts(folder):
    """The captions that images have, and caption, question and answer, of the training scenes."""
    return [caption for caption in scenes_rows.captions(folder) if is_first(caption)], scenes_rows.questions(folder)


def is_first(caption):
    """Whether it is the sentence of its scene that an image is captioned with."""
    relations = re.findall(RELATION, caption)
    if len(relations) == 2:
        return relations[0] in ("left of", "right of")
    return not relations or relations[0] in ("left of", "above")


def drawn(captions, questions, generator):
    """Notes, prompt and what is to be written after them."""
    kind = generator.random()
    if kind < 0.05:
        # A language model knows its sentences without being told.
        return [None] * PLACES, "", generator.choice(captions)
    if kind < 0.4:
        caption = generator.choice(captions)
        return notes(caption, generator), "", caption
    caption, question, answer = generator.choice(questions)
    if kind < 0.55:
        # A Q-Former that reads the question may give the answer itself.
        filled = [None] * PLACES
        for place in generator.sample(range(PLACES), generator.randint(1, 3)):
            filled[place] = answer
        return filled, generator.choice(PROMPTS).format(question), answer
    while kind > 0.75 and answer not in ("yes", "no"):
        # Whether something is there at all is learned last.
        caption, question, answer = generator.choice(questions)
    return notes(caption, generator), generator.choice(PROMPTS).format(question), answer


def embedded(filled, tokenizer, embedding, noise, generator):
    """(batch, places, width): embeddings of the notes, and noise alone where there are none. Its size is drawn for
    each row, small ones far more often, up to `noise` times that of the embeddings."""
    word = lambda text: tokenizer(f" {text}", add_special_tokens=False)["input_ids"][-1]
    ids = torch.tensor([[-1 if text is None else word(text) for text in row] for row in filled])
    vectors = embedding(ids.clamp(min=0)) * (ids >= 0).unsqueeze(-1)
    size = embedding.weight.detach().std()
    level = noise * torch.rand(len(filled), 1, 1, generator=generator) ** 4
    return vectors + level * size * torch.randn(vectors.shape, generator=generator)


def generators(seed):
    """One for choices, one for noise."""
    return random.Random(seed), torch.Generator().manual_seed(seed)
