"""Loads an exported adapter with `peft` and compares its scores with those of the merged folder.

    pip install torch transformers peft safetensors
    python tests/transformers/check_adapter.py --language-model FOLDER --adapter FOLDER --merged FOLDER

`--language-model` is the one that the run was trained with, `--adapter` what `--layout peft` wrote, `--merged` the folder of
`Blip2ForConditionalGeneration` of the same checkpoint. The same is done by the test `peft_and_the_merged_folder_score_alike`.
"""

import argparse

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, Blip2ForConditionalGeneration

# Largest difference of a score, relative to the largest one: sums are made in another order.
TOLERANCE = 1e-5


def scores(model, ids):
    # An encoder-decoder writes what it reads.
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


def main():
    parser = argparse.ArgumentParser()
    for option in ("language-model", "adapter", "merged"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_encoder_decoder = AutoConfig.from_pretrained(options.language_model).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM
    base = kind.from_pretrained(options.language_model, dtype=torch.float32).eval()
    tokens = base.config.vocab_size
    ids = torch.randint(3, tokens, (2, 9), generator=torch.Generator().manual_seed(1))
    plain = scores(base, ids)
    adapted = scores(PeftModel.from_pretrained(base, options.adapter).eval(), ids)
    whole = Blip2ForConditionalGeneration.from_pretrained(options.merged, dtype=torch.float32).eval()
    # The folder's vocabulary may have a token for images besides.
    merged = scores(whole.language_model, ids)[..., :tokens]
    apart, changed = ((adapted - other).abs().max().item() / plain.abs().max().item() for other in (merged, plain))
    print(f"{options.adapter}: {apart:.2g} from the merged folder, {changed:.2g} from the model without")
    assert apart < TOLERANCE < changed, (apart, changed)


if __name__ == "__main__":
    main()
