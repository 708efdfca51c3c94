"""Greedy decoding with a cache against reading everything again for each token; beam search in one batch or one by one.

PYTHONPATH=. python benchmarks/decode.py
"""

import math

import torch
from peer import SHAPE, Peer, median_seconds, random_batch

from transformer.decode import beam_search, greedy
from transformer.model import Transformer
from transformer.vocabulary import BOS, EOS


@torch.inference_mode()
def uncached(model: Transformer, source: torch.Tensor, steps: int) -> torch.Tensor:
    """Our model without its cache."""
    encoded = model.encode(source)
    written = torch.full((len(source), 1), BOS)
    for _ in range(steps):
        logits = model.decode(written, encoded, source)[:, -1]
        logits[:, EOS] = -math.inf
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
    return written


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model, peer = Transformer(SHAPE).eval(), Peer(SHAPE).eval()
    steps = 40
    # Untrained models rarely write EOS; with its embedding far off, ours never does and writes all steps.
    with torch.no_grad():
        model.target_embedding.weight[EOS] = 0
    for sentences in (1, 32):
        source, _ = random_batch(sentences, 20)
        assert all(len(hypothesis.tokens) == steps for hypothesis in greedy(model, source, max_length=steps))
        cached, again, theirs = median_seconds(
            lambda source=source: greedy(model, source, max_length=steps),
            lambda source=source: uncached(model, source, steps),
            lambda source=source: peer.greedy(source, steps),
            rounds=5,
        )
        print(
            f"{sentences} x {steps} tokens: cached {cached:.3f} s, without cache {again / cached:.1f} times that, "
            f"torch.nn.Transformer {theirs / cached:.1f} times that"
        )
    source, _ = random_batch(32, 20)

    def one_by_one() -> None:
        for row in source:
            beam_search(model, row[None], beam_size=4, max_length=steps)

    batched, single = median_seconds(
        lambda: beam_search(model, source, beam_size=4, max_length=steps), one_by_one, rounds=3
    )
    print(f"beam 4 over 32 sentences: batched {batched:.3f} s, one by one {single / batched:.1f} times that")


if __name__ == "__main__":
    main()
