"""A training step of the shipped translation models against `torch.nn.Transformer` of the same shape, one thread.

PYTHONPATH=. python benchmarks/train_step.py
"""

import torch
from peer import SHAPE, Peer, median_seconds, random_batch

from transformer.flat import FlatParameters
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.optim import build_optimizer


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    source, target = random_batch(160, 14)

    def ours_step_of(model: torch.nn.Module):
        weights = FlatParameters(model.train())
        optimizer = build_optimizer(weights, betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.02)
        return step_of(model, weights.zero_gradients, weights.vectors, optimizer)

    def theirs_step_of(model: torch.nn.Module):
        optimizer = torch.optim.AdamW(model.train().parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)
        return step_of(model, optimizer.zero_grad, list(model.parameters()), optimizer)

    def step_of(model, zero_gradients, parameters, optimizer):
        def step() -> None:
            zero_gradients()
            logits = model(source, target[:, :-1])
            label_smoothed_loss(logits, target[:, 1:], 0.1).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        return step

    ours, theirs = median_seconds(ours_step_of(Transformer(SHAPE)), theirs_step_of(Peer(SHAPE)))
    print(f"training step of 160 x 14 tokens: Headlight {ours:.3f} s, torch.nn.Transformer {theirs:.3f} s")
    print(f"ratio {ours / theirs:.2f} (below 1: Headlight is faster)")


if __name__ == "__main__":
    main()
