"""Drops from a model's vocabulary what no text of the corpus needs, and the rows of its tables with it.

A text of the corpus, alone or behind a prompt, becomes the same tokens before and after; words that were never
needed fall into smaller pieces. What is kept besides are single characters and, up to `--tokens`, the most frequent
of the others. Tokens keep their order, so that special ones stay first or last.

    python assets/make/trim_vocabulary.py --model bert-tiny --out runs/bert-tiny --tokens 1792
"""

import argparse
import json
import pathlib
import shutil

import pyarrow.parquet
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

ASSETS = pathlib.Path(__file__).parents[1]
PROMPTS = ("", " ", "a picture of ", "a photo of ", "Question: ", "Question: what is this? Answer: ")


def captions():
    """Every caption of the corpus, true or not."""
    found = set()
    for path in sorted((ASSETS / "corpus").glob("*.parquet")):
        columns = [name for name in ("caption", "true_caption") if name in pyarrow.parquet.read_schema(path).names]
        for column in pyarrow.parquet.read_table(path, columns=columns).columns:
            found.update(column.to_pylist())
    return sorted(found)


def texts():
    """What is to become the same tokens as before."""
    for caption in captions():
        yield from (prompt + caption for prompt in PROMPTS)
        yield from (caption + "\n", caption.title(), f"Question: {caption}? Short answer:")


def with_parts(kept, merges):
    """These tokens and all that they are merged of."""
    parts = {first + second: (first, second) for first, second in merges}
    waiting = list(kept)
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part not in kept:
                kept.add(part)
                waiting.append(part)
    return kept


def trimmed(path, most):
    """The tokenizer's table without what is not needed, and the old numbers of what is kept."""
    table, tokenizer = json.loads(path.read_text()), Tokenizer.from_file(str(path))
    model, tokens = table["model"], tokenizer.get_vocab()
    names = sorted(tokens, key=tokens.get)
    kept = {token["content"] for token in table["added_tokens"]}
    kept.update(names[number] for text in tokenizer.encode_batch(list(texts())) for number in text.ids)
    kept.update(name for name in names if len(name.removeprefix("##").removesuffix("</w>")) == 1)
    pair = lambda merge: tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
    merges = [pair(merge) for merge in model.get("merges", ())]
    kept = with_parts(kept, merges)
    assert len(kept) <= most, f"{path}: {len(kept)} tokens are needed"
    for name in names:
        if len(kept) < most and with_parts({name}, merges) <= kept | {name}:
            kept.add(name)
    old = [tokens[name] for name in names if name in kept]
    number = {name: new for new, name in enumerate(name for name in names if name in kept)}
    model["vocab"] = {name: number[name] for name in model["vocab"] if name in kept}
    if merges:
        model["merges"] = [list(merge) for merge in merges if {*merge, "".join(merge)} <= kept]
    for token in table["added_tokens"]:
        token["id"] = number[token["content"]]
    for token in table["post_processor"]["special_tokens"].values():
        token["ids"] = [number[name] for name in token["tokens"]]
    return table, old


def renumbered(settings, new, size):
    """Settings whose tokens have other numbers."""
    for key, value in settings.items():
        if isinstance(value, dict):
            renumbered(value, new, size)
        elif key == "vocab_size":
            settings[key] = size
        elif key.endswith("_token_id") and value is not None:
            settings[key] = new[value]
    return settings


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", required=True, help="folder in assets/backbones")
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--tokens", type=int, required=True, help="how many are kept")
    options = arguments.parse_args()
    model, out = ASSETS / "backbones" / options.model, pathlib.Path(options.out)
    table, old = trimmed(model / "tokenizer.json", options.tokens)
    before = Tokenizer.from_file(str(model / "tokenizer.json"))
    after = Tokenizer.from_str(json.dumps(table))
    for text in texts():
        assert [old[number] for number in after.encode(text).ids] == before.encode(text).ids, text
    size = before.get_vocab_size()
    shutil.copytree(model, out, dirs_exist_ok=True)
    (out / "tokenizer.json").write_text(json.dumps(table, ensure_ascii=False, separators=(",", ": ")) + "\n")
    new = {number: place for place, number in enumerate(old)}
    for name in ("config.json", "generation_config.json"):
        if (out / name).exists():
            settings = renumbered(json.loads((out / name).read_text()), new, len(old))
            (out / name).write_text(json.dumps(settings, indent=2) + "\n")
    if (out / "model.safetensors").exists():
        weights = load_file(out / "model.safetensors")
        weights = {name: value[old] if value.shape[:1] == (size,) else value for name, value in weights.items()}
        save_file({name: value.contiguous() for name, value in weights.items()}, out / "model.safetensors", {"format": "pt"})
    print(f"{options.model}: {len(old)} of {size} tokens")


if __name__ == "__main__":
    main()
