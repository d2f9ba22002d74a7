"""Sentences behind notes of them: how the language models of the scenes learn to be told what to write.

In BLIP-2 a language model reads a few vectors, one for each query, and writes what they say. A language model of
this size that has read sentences alone makes little of vectors before them. So these are trained on text in the
same form: as many places as there are queries, in which the words that matter stand in their order ("two cats
left dog green"), then the sentence. Noise is added to the notes, since no query is ever exactly a word: from none
to so much that a word can hardly be told. A model that has seen little noise alone takes any vector for some word
and is sure of it; its gradient then says nothing to a Q-Former that begins. Nothing but text is read, and of the
training scenes only.
"""

import random

import torch

from train_tokenizers import PROMPTS

# Words that a sentence needs and a note does not.
SMALL = {"a", "an", "of", "and", "on"}


def notes(caption, queries, generator):
    """The words that matter, in order, at drawn places among `queries`; elsewhere none."""
    words = [word for word in caption.split() if word not in SMALL]
    places = sorted(generator.sample(range(queries), len(words)))
    filled = [None] * queries
    for place, word in zip(places, words):
        filled[place] = word
    return filled


def drawn(captions, questions, queries, generator):
    """Notes, prompt and what is to be written after them."""
    kind = generator.random()
    if kind < 0.1:
        # A language model knows its sentences without being told.
        return [None] * queries, "", generator.choice(captions)
    if kind < 0.55:
        caption = generator.choice(captions)
        return notes(caption, queries, generator), "", caption
    caption, question, answer = generator.choice(questions)
    return notes(caption, queries, generator), generator.choice(PROMPTS).format(question), answer


def embedded(filled, tokenizer, embedding, noise, generator):
    """(batch, queries, width): embeddings of the notes, and noise alone where there are none. Its size is drawn for
    each row, small ones more often, up to `noise` times that of the embeddings."""
    word = lambda text: tokenizer(f" {text}", add_special_tokens=False)["input_ids"][-1]
    ids = torch.tensor([[-1 if text is None else word(text) for text in row] for row in filled])
    vectors = embedding(ids.clamp(min=0)) * (ids >= 0).unsqueeze(-1)
    size = embedding.weight.detach().std()
    level = noise * torch.rand(len(filled), 1, 1, generator=generator) ** 2
    return vectors + level * size * torch.randn(vectors.shape, generator=generator)


def generators(seed):
    """One for choices, one for noise."""
    return random.Random(seed), torch.Generator().manual_seed(seed)
