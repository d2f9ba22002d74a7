"""Loads exported models with `transformers` and PyTorch and compares them with this program.

    pip install torch transformers safetensors pillow tokenizers pyarrow
    python tests/transformers/check_export.py --blip2 target/release/blip2 \
        --huggingface FOLDER --retrieval FOLDER --lavis FILE.pth --images PICTURE...

Every option but `--blip2` and `--images` may be left out; what is given is checked:
- `--huggingface`: no tensor is missing or unexpected, the processor opens, and greedy and beam search write the
  same tokens as `blip2 generate`;
- `--retrieval`: the same, and both kinds of scores are numbers; with `--checkpoint` (the stage-1 checkpoint it was exported from)
  and `--data` (a Parquet file), the recalls are those of `blip2 eval retrieval` with captions cleaned as by LAVIS and cut to
  `--text-length` (`stage1.text_length`) tokens;
- `--lavis`: `torch.load(weights_only=True)` takes the file, and its tensors are those of the `--retrieval` folder.
"""

import argparse
import io
import json
import re
import subprocess

import pyarrow.parquet
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

# Names of the tensors that both layouts have, as (LAVIS, transformers) prefixes.
PREFIXES = [
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
    ("Qformer.bert.embeddings.", "embeddings."),
    ("Qformer.bert.encoder.", "qformer.encoder."),
    ("vision_proj.", "vision_projection."),
    ("text_proj.", "text_projection."),
    ("ln_vision.", "vision_model.post_layernorm."),
]


def load(kind, folder):
    model, info = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(map(str, info[problem]))
        assert not found, f"{folder}: {problem}: {found[:8]}"
    return model.eval(), AutoProcessor.from_pretrained(folder)


def ours(program, folder, images, options):
    command = [program, "generate", "--model", folder, "--json", *options]
    for image in images:
        command += ["--image", image]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line["tokens"] for line in map(json.loads, lines) if "tokens" in line]


def check_generation(program, folder, images):
    model, processor = load(Blip2ForConditionalGeneration, folder)
    for beams in (1, 3):
        written = ours(program, folder, images, ["--beams", str(beams), "--max-new-tokens", "12"])
        for image, tokens in zip(images, written, strict=True):
            inputs = processor(images=Image.open(image).convert("RGB"), text="", return_tensors="pt")
            with torch.no_grad():
                output = model.generate(**inputs, num_beams=beams, max_new_tokens=12, do_sample=False)[0].tolist()
            # The end of the output is what was written; an encoder-decoder starts it with its start token.
            start = 1 if model.config.is_encoder_decoder or not model.config.use_decoder_only_language_model else 0
            theirs = output[start:]
            theirs = theirs[-len(tokens):] if start == 0 else theirs[: len(tokens)]
            assert theirs == tokens, f"{image}, {beams} beams: {output}, ours {tokens}"
            print(f"{image}, {beams} beams: {processor.tokenizer.decode(tokens, skip_special_tokens=True)!r}")


def check_retrieval(folder, images):
    model, processor = load(Blip2ForImageTextRetrieval, folder)
    inputs = processor(images=Image.open(images[0]).convert("RGB"), text="a red heart", return_tensors="pt")
    with torch.no_grad():
        for matching in (False, True):
            scores = model(**inputs, use_image_text_matching_head=matching).logits_per_image
            assert torch.isfinite(scores).all(), f"{folder}: {scores}"
            print(f"{'matching' if matching else 'contrastive'}: {scores.tolist()}")
    return model, processor


def cleaned(caption):
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", caption.lower()).split()[:50])


def check_recalls(program, model, processor, checkpoint, data, text_length):
    table = pyarrow.parquet.read_table(data)
    captions = [cleaned(caption) for caption in table["caption"].to_pylist()]
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in table["jpg"].to_pylist()]
    texts = sorted(set(captions))

    def embeds(images, texts):
        pixels = processor.image_processor(images=images, return_tensors="pt").pixel_values
        words = processor.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=text_length)
        # The processor would put the places of the queries in front, and not cut the text.
        places = torch.full((len(texts), model.config.num_query_tokens), model.config.image_token_index)
        return model(
            pixel_values=pixels,
            input_ids=torch.cat([places, words.input_ids], 1),
            attention_mask=torch.cat([torch.ones_like(places), words.attention_mask], 1),
            use_image_text_matching_head=False,
        )

    with torch.no_grad():
        parts = [images[start : start + 64] for start in range(0, len(images), 64)]
        pictures = torch.cat([embeds(part, ["a picture"] * len(part)).image_embeds for part in parts])
        parts = [texts[start : start + 64] for start in range(0, len(texts), 64)]
        words = torch.cat([embeds(images[: len(part)], part).text_embeds for part in parts])
    # The best of a picture's queries counts.
    ranks = torch.einsum("iqd,td->iqt", pictures, words).max(1).values.argsort(1, descending=True)
    own = torch.tensor([texts.index(caption) for caption in captions])[:, None]
    command = [program, "eval", "retrieval", "--model", checkpoint, "--data", data, "--json"]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for first in (1, 5, 10):
        found = (ranks[:, :first] == own).any(1).double().mean().item()
        print(f"R@{first}: {found:.4f}, ours {ours[f'r@{first}']:.4f}")
        # Decoders of JPEG round differently: a picture between two captions may change places.
        assert abs(found - ours[f"r@{first}"]) <= 1.5 / len(images), first


def check_lavis(file, retriever):
    content = torch.load(file, weights_only=True)["model"]
    assert all(tensor.is_contiguous() for tensor in content.values())
    assert content["temp"].shape == ()
    if retriever is None:
        return
    theirs = retriever.state_dict()
    compared = 0
    for name, tensor in content.items():
        for lavis, published in PREFIXES:
            if name.startswith(lavis):
                name = published + name[len(lavis):]
                break
        name = name.replace(".attention.self.", ".attention.attention.")
        name = name.replace(".crossattention.self.", ".crossattention.attention.")
        if name in theirs:
            assert torch.equal(theirs[name], tensor.to(theirs[name].dtype)), name
            compared += 1
    print(f"{file}: {len(content)} tensors, {compared} equal to the folder's")
    assert compared > 50, compared


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blip2", default="target/release/blip2")
    parser.add_argument("--huggingface")
    parser.add_argument("--retrieval")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    parser.add_argument("--text-length", type=int, default=32)
    parser.add_argument("--lavis")
    parser.add_argument("--images", nargs="+", required=True)
    arguments = parser.parse_args()
    if arguments.huggingface:
        check_generation(arguments.blip2, arguments.huggingface, arguments.images)
    retriever = None
    if arguments.retrieval:
        retriever, processor = check_retrieval(arguments.retrieval, arguments.images)
        if arguments.checkpoint:
            check_recalls(arguments.blip2, retriever, processor, arguments.checkpoint, arguments.data, arguments.text_length)
    if arguments.lavis:
        check_lavis(arguments.lavis, retriever)
    print("all checks passed")


if __name__ == "__main__":
    main()
