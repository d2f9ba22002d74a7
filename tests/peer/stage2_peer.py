"""Milliseconds of one stage-2 training step in PyTorch on CPU: the paper's Q-Former without its text parts over stub image
features, its queries the soft prompt of a frozen language model of random weights.

usage: python3 stage2_peer.py --language opt-125m|flan-t5-base [--batch 8] [--threads 2] [--steps 5] [--longest]
prints one JSON line: median forward, backward, optimizer and total seconds, and the most memory of the process.

Half of each text is padding; with --longest it is left out, as where texts are padded to the longest of a batch.

Made as fast as it is without another framework: fused attention, scores of the caption's positions alone, no gradient of a
frozen weight. Needs torch and transformers.
"""
import argparse, json, resource, statistics, time
import torch, torch.nn as nn, torch.nn.functional as F
from transformers import OPTConfig, OPTForCausalLM, T5Config, T5ForConditionalGeneration


class Attention(nn.Module):
    def __init__(self, hidden, heads, width):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(hidden, eps=1e-12)
        self.q, self.k, self.v, self.o = nn.Linear(hidden, hidden), nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, hidden)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, seen):
        y = F.scaled_dot_product_attention(self.split(self.q(x)), self.split(self.k(seen)), self.split(self.v(seen)))
        return self.norm(self.o(y.transpose(1, 2).flatten(2)) + x)


class Layer(nn.Module):
    def __init__(self, hidden, heads, width, cross):
        super().__init__()
        self.attention, self.cross = Attention(hidden, heads, hidden), Attention(hidden, heads, width) if cross else None
        self.up, self.down, self.norm = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden), nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x, image):
        x = self.attention(x, x)
        x = x if self.cross is None else self.cross(x, image)
        return self.norm(self.down(F.gelu(self.up(x))) + x)


class Prompt(nn.Module):
    """What stage 2 trains: `[b, positions, width]` to a soft prompt `[b, queries, language]`."""

    def __init__(self, width, language, hidden=768, heads=12, layers=12, queries=32):
        super().__init__()
        self.ln_vision, self.norm = nn.LayerNorm(width), nn.LayerNorm(hidden, eps=1e-12)
        self.queries = nn.Parameter(torch.randn(1, queries, hidden) * .02)
        self.layers = nn.ModuleList(Layer(hidden, heads, width, i % 2 == 0) for i in range(layers))
        self.projection = nn.Linear(hidden, language)

    def forward(self, image):
        image, x = self.ln_vision(image), self.norm(self.queries.expand(len(image), -1, -1))
        for layer in self.layers:
            x = layer(x, image)
        return self.projection(x)


def opt(model, prompt, ids, mask):
    """The caption behind the prompt: the last query scores its first token."""
    queries, body = prompt.shape[1], model.model.decoder
    inputs = torch.cat([prompt, body.embed_tokens(ids)], 1)
    seen = torch.cat([mask.new_ones(prompt.shape[:2]), mask], 1)
    hidden = body(inputs_embeds=inputs, attention_mask=seen, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, queries - 1:-1])


def t5(model, prompt, ids, mask):
    """The encoder reads the prompt and a prefix as long as the text, the decoder writes the text."""
    inputs = torch.cat([prompt, model.shared(ids)], 1)
    seen = torch.cat([mask.new_ones(prompt.shape[:2]), mask], 1)
    written = F.pad(ids, (1, -1))
    return model(inputs_embeds=inputs, attention_mask=seen, decoder_input_ids=written, use_cache=False).logits


p = argparse.ArgumentParser()
p.add_argument("--longest", action="store_true")
p.add_argument("--language", choices=("opt-125m", "flan-t5-base"), default="opt-125m")
for n, d in dict(batch=8, threads=2, steps=5, width=1408, tokens=257, text=32).items():
    p.add_argument("--" + n, type=int, default=d)
a = p.parse_args(); torch.set_num_threads(a.threads); torch.manual_seed(0)
if a.language == "opt-125m":
    lm, scores = OPTForCausalLM(OPTConfig(attn_implementation="sdpa")), opt
else:
    sizes = dict(d_model=768, d_ff=2048, num_layers=12, num_heads=12, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    lm, scores = T5ForConditionalGeneration(T5Config(**sizes)), t5
lm = lm.eval().requires_grad_(False)
m = Prompt(a.width, 768)
adamw = torch.optim.AdamW(m.parameters(), lr=1e-4, betas=(.9, .98), weight_decay=.05); rows = []
for s in range(a.steps + 1):
    img, ids = torch.randn(a.batch, a.tokens, a.width), torch.randint(3, 32000, (a.batch, a.text))
    mask = torch.ones_like(ids); mask[:, a.text // 2:] = 0
    if a.longest: ids, mask = ids[:, :a.text // 2], mask[:, :a.text // 2]
    t0 = time.perf_counter()
    loss = F.cross_entropy(scores(lm, m(img), ids, mask).flatten(0, 1), ids.masked_fill(mask == 0, -100).flatten())
    t1 = time.perf_counter(); loss.backward(); t2 = time.perf_counter(); adamw.step(); adamw.zero_grad(); t3 = time.perf_counter()
    if s: rows.append((t1 - t0, t2 - t1, t3 - t2, t3 - t0))
f, b, o, t = (statistics.median(c) for c in zip(*rows))
print(json.dumps(dict(peer="pytorch " + torch.__version__, language=a.language, batch=a.batch, parameters=sum(x.numel() for x in m.parameters()),
                      forward_s=f, backward_s=b, optimizer_s=o, total_s=t, samples_per_s=a.batch / t,
                      peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)))
