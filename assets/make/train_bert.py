"""Trains the BERT that initialises the Q-Former of the scenes: masked words of captions and questions.

    python assets/make/train_bert.py --scenes runs/scenes --tokenizer runs/tokenizers/qformer-tokenizer --out runs/bert-scenes
"""

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

import arguments
import descent
import model_folder
import scenes_rows


def masked(tokens, tokenizer, generator):
    """Of every hundred words, 15 are asked for: 12 hidden, 1 or 2 replaced, 1 or 2 as they are."""
    special = torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
    draw = torch.rand(tokens.shape, generator=generator)
    asked = (draw < 0.15) & ~special
    labels = torch.where(asked, tokens, -100)
    hidden = asked & (draw < 0.12)
    replaced = asked & (draw >= 0.12) & (draw < 0.135)
    other = torch.randint(len(tokenizer), tokens.shape, generator=generator)
    return torch.where(hidden, tokenizer.mask_token_id, torch.where(replaced, other, tokens)), labels


def main():
    options = arguments.read(__doc__)
    generator = torch.Generator().manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    lines = scenes_rows.captions(options.scenes)
    lines += [f"{question} {answer}" for _, question, answer in scenes_rows.questions(options.scenes)]
    encoded = tokenizer(lines, padding=True, return_tensors="pt")
    tokens, mask = encoded["input_ids"], encoded["attention_mask"]
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.01)
    for step in range(options.steps):
        chosen = torch.randint(len(tokens), (options.batch,), generator=generator)
        read, labels = masked(tokens[chosen], tokenizer, generator)
        loss = model(input_ids=read, attention_mask=mask[chosen], labels=labels).loss
        descent.descend(model, optimizer, loss, step, options)
    model_folder.write(model, options.out, tokenizer)


if __name__ == "__main__":
    main()
