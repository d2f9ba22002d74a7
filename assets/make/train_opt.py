"""Trains the decoder-only language model of the scenes on text alone: sentences behind notes of them (`notes.py`).

As BLIP-2 feeds it: the vectors of the queries, then `</s>`, then the text, which ends with a newline.

    python assets/make/train_opt.py --scenes runs/scenes --tokenizer runs/tokenizers/opt --out runs/opt-scenes
"""

import torch
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

import arguments
import descent
import model_folder
import notes


def sequences(batch, tokenizer):
    """Tokens after the notes, and which of them are asked for: the text behind the prompt, and its newline."""
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    rows = []
    for _, prompt, text in batch:
        told = tokenizer(prompt)["input_ids"]
        written = tokenizer(f" {text}" if prompt else text, add_special_tokens=False)["input_ids"] + newline
        rows.append((told + written, [-100] * len(told) + written))
    longest = max(len(tokens) for tokens, _ in rows)
    pad = lambda values, filler: values + [filler] * (longest - len(values))
    tokens = torch.tensor([pad(tokens, tokenizer.pad_token_id) for tokens, _ in rows])
    labels = torch.tensor([pad(labels, -100) for _, labels in rows])
    mask = torch.tensor([pad([1] * len(tokens), 0) for tokens, _ in rows])
    return tokens, labels, mask


def main():
    options = arguments.read(__doc__, of_notes=True)
    choices, noise = notes.generators(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    captions, questions = notes.read_texts(options.scenes)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            word_embed_proj_dim=192,
            num_hidden_layers=4,
            num_attention_heads=6,
            ffn_dim=768,
            max_position_embeddings=128,
            dropout=0.0,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    if options.init:
        model = OPTForCausalLM.from_pretrained(options.init, dtype=torch.float32)
    embedding = model.get_input_embeddings()
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.01)
    for step in range(options.steps):
        batch = [notes.drawn(captions, questions, choices) for _ in range(options.batch)]
        tokens, labels, mask = sequences(batch, tokenizer)
        told = notes.embedded([row[0] for row in batch], tokenizer, embedding, options.noise, noise)
        before = torch.ones(told.shape[:2], dtype=mask.dtype)
        logits = model(
            inputs_embeds=torch.cat([told, embedding(tokens)], 1), attention_mask=torch.cat([before, mask], 1)
        ).logits[:, notes.PLACES :]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        descent.descend(model, optimizer, loss, step, options)
    model_folder.write(model, options.out, tokenizer)


if __name__ == "__main__":
    main()
