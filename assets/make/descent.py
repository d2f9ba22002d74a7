"""A step of training, as the scripts for texts take it."""

import numpy
import torch


def rate(peak, step, steps, warmup):
    """A linear rise over `warmup` steps times half a cosine down to a fiftieth."""
    return peak * min((step + 1) / warmup, 0.02 + 0.49 * (1 + numpy.cos(numpy.pi * step / steps)))


def descend(model, optimizer, loss, step, options):
    """Step number `step` of `options.steps` down the loss's gradient, whose norm is cut to 1; says every hundredth."""
    for group in optimizer.param_groups:
        group["lr"] = rate(options.learning_rate, step, options.steps, 100)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if (step + 1) % 100 == 0:
        print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
