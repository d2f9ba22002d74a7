"""What the scripts that train on texts are told on the command line."""

import argparse

import torch


def read(description, of_notes=False):
    """The options, after torch was given their seed and threads. With `of_notes` those of `notes.py` are among them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", required=True, help="folder that `cargo xtask scenes` has written")
    parser.add_argument("--tokenizer", required=True, help="folder of `train_tokenizers.py`")
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    if of_notes:
        parser.add_argument("--init", help="folder of an earlier training to go on from")
        parser.add_argument("--noise", type=float, default=10.0, help="the most, in sizes of a word's vector")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    return options
