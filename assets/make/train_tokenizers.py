"""Trains the tokenizers of the scenes from the text of the training scenes alone.

Three of them, of the kinds that the models have: WordPiece for BERT and the Q-Former (with `[DEC]` and `[ENC]`),
byte-level BPE for OPT, Unigram for T5. The text has few words, so that each is one token. What is before and
after a model of words (normaliser, splitting, special tokens) is that of `assets/backbones`.

    python assets/make/train_tokenizers.py --scenes runs/scenes --out runs/tokenizers
"""

import argparse
import json
import pathlib
import re

from transformers import AutoTokenizer

import scenes_rows

BACKBONES = pathlib.Path(__file__).parents[1] / "backbones"
# How a question is put to a language model.
PROMPTS = ("Question: {} Answer:", "Question: {} Short answer:")


def texts(folder):
    """What the tokenizers are trained on: every sentence as the models will read it."""
    yield from scenes_rows.captions(folder)
    for caption, question, answer in scenes_rows.questions(folder):
        yield from (f"{prompt.format(question)} {answer}" for prompt in PROMPTS)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--scenes", required=True, help="folder that `cargo xtask scenes` has written")
    arguments.add_argument("--out", required=True, help="folder for the tokenizers' folders")
    arguments.add_argument("--most", type=int, default=1024, help="most tokens")
    options = arguments.parse_args()
    lines = sorted(set(texts(options.scenes)))
    words = sorted({word for line in lines for word in re.findall(r"\w+", line)})
    # A byte-level model reads a word within a sentence and at its beginning as two: each is to be one token.
    lines += [line for word in words for line in (word, f" {word}")] * 100
    for name in ("qformer-tokenizer", "opt-tiny", "t5-scenes"):
        template = AutoTokenizer.from_pretrained(BACKBONES / name)
        trained = template.train_new_from_iterator(lines, options.most)
        folder = pathlib.Path(options.out) / name.split("-tiny")[0].split("-scenes")[0]
        trained.save_pretrained(folder)
        if name == "t5-scenes":
            whole_words(folder / "tokenizer.json", words)
            trained = AutoTokenizer.from_pretrained(folder)
        spoken = lambda word: f" {word}" if name == "opt-tiny" else word
        tokens = {word: len(trained(spoken(word), add_special_tokens=False)["input_ids"]) for word in words}
        several = [word for word in words if tokens[word] > 1]
        print(f"{name}: {len(trained)} tokens; of {len(words)} words, of several tokens: {several}")


def whole_words(path, words):
    """Gives a Unigram tokenizer every word as one piece, and all single characters below them."""
    tokenizer = json.loads(path.read_text())
    pieces = [piece for piece in tokenizer["model"]["vocab"] if piece[0] in ("<pad>", "</s>", "<unk>")]
    characters = sorted(set("".join(words)) | set("?:.,\n\u2581QAS0123456789"))
    pieces += [[f"\u2581{word}", -5.0] for word in words] + [[character, -10.0] for character in characters]
    tokenizer["model"]["vocab"] = pieces
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))


if __name__ == "__main__":
    main()
