"""Shuffle the words: without positions an encoder sees a set (section 3.5).

Self-attention and feed-forward networks treat all positions alike, so an encoder f without positions is equivariant:
for every permutation P of the tokens, f(P x) = P f(x). Each word keeps its output, wherever it stands. Here both
sides are computed on a real model, once with its positions and once with them taken away.

Legend: S source length, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer.analysis.offsets import undo_rotation
from transformer.model import Transformer
from transformer.trace import Edit, Trace


@dataclass(frozen=True, kw_only=True)
class ShuffleProof:
    """How far the encoder's output of each token moves when the order changes.

    Attributes:
        order: The token that stands at each place of the new order, by its place in the old one; S numbers.
        with_positions: For each token in the old order, the largest absolute difference over the D dimensions
            between its two outputs, with the model's own positions; (S,).
        without_positions: The same without positions; (S,).
        size_with: Largest absolute output with positions, to compare the differences with.
        size_without: The same without positions.
    """

    order: tuple[int, ...]
    with_positions: Tensor
    without_positions: Tensor
    size_with: float
    size_without: float


def shuffled_words(words: Sequence[int], seed: int) -> tuple[int, ...]:
    """A new order of tokens that moves whole words; the tokens of one word stay together and in order.

    Args:
        words: Number of the word each token belongs to, rising, as in `Encoded.words`.
        seed: Each seed gives one order, never the old one if there are two words.

    Returns:
        For each place in the new order, the old place of the token that stands there.
    """
    count = max(words, default=-1) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    if order == sorted(order):
        order = order[1:] + order[:1]
    return tokens_of(words, order)


def reversed_words(words: Sequence[int]) -> tuple[int, ...]:
    """The order of tokens in which the last word comes first; arguments and result as in `shuffled_words`."""
    return tokens_of(words, range(max(words, default=-1), -1, -1))


def tokens_of(words: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Places of the tokens when their words come in `order`."""
    return tuple(place for word in order for place, owner in enumerate(words) if owner == word)


def without_positions(model: Transformer) -> dict[str, Edit]:
    """The edits of a trace that take its positions from the encoder, whatever kind they are."""
    config = model.config
    layers = [f"encoder.{index}.self_attention" for index in range(config.encoder_layers)]
    match config.positions:
        case "none":
            return {}
        case "rotary":
            parts = [f"{layer}.{part}" for layer in layers for part in ("queries", "keys")]
            return dict.fromkeys(parts, lambda x: undo_rotation(x, config.position_base))
        case "alibi":
            return dict.fromkeys((f"{layer}.position_bias" for layer in layers), torch.zeros_like)
        case _:
            return {"encoder.positions": torch.zeros_like}


@torch.inference_mode()
def prove_by_shuffling(model: Transformer, ids: Sequence[int], order: Sequence[int]) -> ShuffleProof:
    """Encode tokens in their order and in another one, with and without positions, and compare token by token.

    Args:
        model: A trained model in evaluation mode.
        ids: Token ids, S numbers.
        order: For each place in the new order, the old place of the token that stands there. A token that keeps its
            place, such as EOS at the end, is still a member of the set.

    Raises:
        ValueError: If `order` is not a permutation of the tokens, or there are more than the model reads.
    """
    if sorted(order) != list(range(len(ids))):
        raise ValueError(f"order is {tuple(order)}; it must hold each of the {len(ids)} places once.")
    shuffled = torch.tensor([[ids[place] for place in order]])
    both = torch.cat((torch.tensor([list(ids)]), shuffled))  # (2, S)

    def compare(edits: dict[str, Edit]) -> tuple[Tensor, float]:
        trace = Trace(keep=(), edits=edits)
        kept, moved = model.encode(both, trace)  # each (S, D)
        trace.check_edits_used()
        back = torch.empty_like(moved)
        back[list(order)] = moved
        return (kept - back).abs().amax(dim=-1), kept.abs().max().item()

    with_differences, size_with = compare({})
    without_differences, size_without = compare(without_positions(model))
    return ShuffleProof(
        order=tuple(order),
        with_positions=with_differences,
        without_positions=without_differences,
        size_with=size_with,
        size_without=size_without,
    )
