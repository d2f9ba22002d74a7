"""Loads a folder of InstructBLIP with `transformers` and compares it with what this program made of it.

    BLIP2_PYTHON=python cargo test --release -p blip2-evaluation --test instructblip -- --ignored

starts it with a JSON file: the folder, and for each question the image, the prompt, what the Q-Former reads, the scores of the
first token behind the prompt, and the tokens that were written with so many beams.
"""

import json
import sys

import torch
from PIL import Image
from transformers import AutoProcessor, InstructBlipForConditionalGeneration

torch.set_num_threads(1)

# Largest difference of a score, relative to the largest score.
TOLERANCE = 1e-4


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        expected = json.load(file)
    folder = expected["folder"]
    model, info = InstructBlipForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(map(str, info[problem]))
        assert not found, f"{folder}: {problem}: {found[:8]}"
    model = model.eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == "InstructBlipProcessor", type(processor)
    decoder_only = model.config.use_decoder_only_language_model
    for asked in expected["asked"]:
        image = Image.open(asked["image"]).convert("RGB")
        inputs = processor(images=image, text=asked["prompt"], return_tensors="pt")
        # The processor gives the Q-Former the prompt; a model may have been trained to read the question alone.
        read = processor.qformer_tokenizer(asked["qformer"], return_tensors="pt")
        if asked["qformer"] == asked["prompt"]:
            assert torch.equal(inputs["qformer_input_ids"], read["input_ids"])
        inputs["qformer_input_ids"] = read["input_ids"]
        inputs["qformer_attention_mask"] = read["attention_mask"]
        start = model.config.text_config.decoder_start_token_id if not decoder_only else None
        written = {} if decoder_only else {"decoder_input_ids": torch.tensor([[start]])}
        with torch.no_grad():
            scores = model(**inputs, **written).logits[0, -1]
        ours = torch.tensor(asked["logits"])
        apart = ((scores - ours).abs().max() / ours.abs().max()).item()
        assert scores.shape == ours.shape and apart < TOLERANCE, (asked["prompt"], scores.shape, ours.shape, apart)
        for beams, tokens in asked["written"].items():
            with torch.no_grad():
                output = model.generate(**inputs, num_beams=int(beams), max_new_tokens=8, do_sample=False)[0].tolist()
            theirs = output[-len(tokens):] if decoder_only else output[1 : 1 + len(tokens)]
            assert theirs == tokens, f"{asked['prompt']}, {beams} beams: {output}, ours {tokens}"
        print(f"{asked['qformer']!r}: scores apart {apart:.1e}; {tokens}")


if __name__ == "__main__":
    main()
