"""Greedy captions of an exported folder: token for token the same in `transformers` and in `blip2 generate`."""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="exported folder")
    parser.add_argument("--data", required=True, type=Path, help="Parquet file with a `jpg` column")
    parser.add_argument("--blip2", default="target/release/blip2", type=Path, help="the binary")
    parser.add_argument("--images", default=20, type=int)
    parser.add_argument("--max-new-tokens", default=12, type=int)
    return parser.parse_args()


def write_images(data, count, folder):
    """Evenly spaced rows of the file, as PNG so that both sides decode the same pixels."""
    import pyarrow.parquet
    from PIL import Image

    rows = pyarrow.parquet.read_table(data, columns=["jpg"]).column("jpg")
    stride = max(1, len(rows) // count)
    paths = []
    for index in range(0, len(rows), stride)[:count]:
        path = folder / f"{index:05}.png"
        Image.open(io.BytesIO(rows[index].as_py())).convert("RGB").save(path)
        paths.append(path)
    return paths


def captions_of_blip2(options, paths):
    command = [str(options.blip2), "generate", "--model", str(options.model), "--json"]
    command += ["--max-new-tokens", str(options.max_new_tokens), "--beams", "1", "--image"]
    result = subprocess.run(command + [str(path) for path in paths], stdout=subprocess.PIPE, check=True, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["image"]: line["tokens"] for line in lines if "image" in line}


def captions_of_transformers(options, paths):
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    processor = AutoProcessor.from_pretrained(options.model)
    model = Blip2ForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).eval()
    eos = model.generation_config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos])
    captions = {}
    for path in paths:
        inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=options.max_new_tokens)[0]
        tokens = ids.tolist()
        prompt = model.config.num_query_tokens + 1
        # Newer versions return the prompt (image tokens and BOS) before the new tokens.
        if tokens[: prompt - 1] == [model.config.image_token_index] * (prompt - 1):
            tokens = tokens[prompt:]
        captions[str(path)] = until_end(tokens, ends)
    return captions


def until_end(tokens, ends):
    """The tokens before the first end."""
    kept = []
    for token in tokens:
        if token in ends:
            break
        kept.append(token)
    return kept


def main():
    options = arguments()
    generation = json.loads((options.model / "generation_config.json").read_text())
    eos = generation["eos_token_id"]
    ends = set(eos if isinstance(eos, list) else [eos])
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(options.data, options.images, Path(folder))
        ours = captions_of_blip2(options, paths)
        theirs = captions_of_transformers(options, paths)
    different = 0
    for path, tokens in theirs.items():
        if until_end(ours[path], ends) != tokens:
            different += 1
            print(f"{Path(path).name}: transformers {tokens}, blip2 {ours[path]}")
    print(f"{len(theirs) - different} of {len(theirs)} captions are the same, token for token")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
