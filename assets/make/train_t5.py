"""Trains the encoder-decoder language model of the scenes on text alone: sentences from notes of them (`notes.py`).

As BLIP-2 feeds it: the encoder reads the vectors of the queries and the prompt, the decoder writes.

    python assets/make/train_t5.py --scenes runs/scenes --tokenizer runs/tokenizers/t5 --out runs/t5-scenes
"""

import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import arguments
import descent
import model_folder
import notes


def main():
    options = arguments.read(__doc__, of_notes=True)
    choices, noise = notes.generators(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    captions, questions = notes.read_texts(options.scenes)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=96,
            d_kv=32,
            d_ff=192,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )
    if options.init:
        model = T5ForConditionalGeneration.from_pretrained(options.init, dtype=torch.float32)
    embedding = model.get_input_embeddings()
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.01)
    for step in range(options.steps):
        batch = [notes.drawn(captions, questions, choices) for _ in range(options.batch)]
        prompt = tokenizer([row[1] for row in batch], padding=True, return_tensors="pt")
        written = tokenizer([row[2] for row in batch], padding=True, return_tensors="pt")
        labels = written["input_ids"].masked_fill(written["attention_mask"] == 0, -100)
        told = notes.embedded([row[0] for row in batch], tokenizer, embedding, options.noise, noise)
        before = torch.ones(told.shape[:2], dtype=torch.int64)
        loss = model(
            inputs_embeds=torch.cat([told, embedding(prompt["input_ids"])], 1),
            attention_mask=torch.cat([before, prompt["attention_mask"]], 1),
            labels=labels,
        ).loss
        descent.descend(model, optimizer, loss, step, options)
    model_folder.write(model, options.out, tokenizer)


if __name__ == "__main__":
    main()
