"""Writes the logits that `transformers` computes with an exported folder of `Blip2ForConditionalGeneration`.

    python tests/transformers/logits.py FOLDER INPUTS OUTPUTS

INPUTS and OUTPUTS are safetensors files: `pixel_values`, `input_ids` and `attention_mask`; `logits`.
"""

import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration

folder, inputs, outputs = sys.argv[1:]
torch.set_num_threads(1)
model, info = Blip2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[problem], f"{problem}: {sorted(map(str, info[problem]))[:8]}"
with torch.no_grad():
    logits = model.eval()(**load_file(inputs)).logits
save_file({"logits": logits.contiguous()}, outputs)
