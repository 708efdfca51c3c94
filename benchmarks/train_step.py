"""A training step of the shipped translation models against `torch.nn.Transformer` of the same shape, one thread.

PYTHONPATH=. python benchmarks/train_step.py
"""

import torch
from peer import SHAPE, median_seconds, our_step, random_batch, their_step


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    batch = random_batch(160, 14)
    ours, theirs = median_seconds(our_step(SHAPE, *batch), their_step(SHAPE, *batch))
    print(f"training step of 160 x 14 tokens: Headlight {ours:.3f} s, torch.nn.Transformer {theirs:.3f} s")
    print(f"ratio {ours / theirs:.2f} (below 1: Headlight is faster)")


if __name__ == "__main__":
    main()
