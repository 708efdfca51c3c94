"""Batches of pairs of similar length, filled up to a number of tokens (section 5.1).

Legend: B batch, S source length, T target length.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer.data.pairs import Pair
from transformer.vocabulary import BOS, EOS, PAD, Vocabulary


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Pairs as token ids, tokenised once.

    Attributes:
        sources: Ids of each source, EOS at the end.
        targets: Ids of each target between BOS and EOS.
        dropped: How many pairs were left out because a side was empty or too long.
    """

    sources: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pairs padded to a common length.

    Attributes:
        source: Source ids (B, S).
        target_in: What the decoder reads (B, T), beginning with BOS.
        target_out: What it should predict (B, T), ending with EOS.
        tokens: Number of target tokens, padding not counted.
    """

    source: Tensor
    target_in: Tensor
    target_out: Tensor
    tokens: int


def encode_pairs(
    pairs: Sequence[Pair], source_vocabulary: Vocabulary, target_vocabulary: Vocabulary, max_length: int
) -> EncodedPairs:
    """Tokenise pairs.

    Args:
        pairs: What to tokenise.
        source_vocabulary: Vocabulary of the sources.
        target_vocabulary: Vocabulary of the targets.
        max_length: Longest side in tokens, EOS counted; longer pairs are left out.
    """
    source_ids = source_vocabulary.encode_ids([pair.source for pair in pairs])
    target_ids = target_vocabulary.encode_ids([pair.target for pair in pairs])
    kept = [
        (source, target)
        for source, target in zip(source_ids, target_ids, strict=True)
        if source and target and max(len(source), len(target)) < max_length
    ]
    return EncodedPairs(
        sources=tuple(torch.tensor([*source, EOS]) for source, _ in kept),
        targets=tuple(torch.tensor([BOS, *target, EOS]) for _, target in kept),
        dropped=len(pairs) - len(kept),
    )


def bucketed_batches(
    data: EncodedPairs, *, batch_tokens: int, seed: int, epoch: int, start: int = 0
) -> Iterator[Batch]:
    """One pass over the data in an order that `seed` and `epoch` decide.

    Pairs are ordered by length with ties and near ties shuffled, cut into batches, and the batches shuffled.

    Args:
        data: What to pass over.
        batch_tokens: Most source plus target tokens of a batch, padding counted. A longer pair comes alone.
        seed: Seed of the training.
        epoch: Number of the pass.
        start: Batches to skip, without making them, in order to go on in the middle of a pass.
    """
    generator = random.Random(f"{seed}/{epoch}")
    # Up to 1 is added to each length: neighbours in length meet in other company each time, for little padding.
    keys = [(max(sizes) + generator.random(), generator.random()) for sizes in lengths(data)]
    order = sorted(range(len(data)), key=keys.__getitem__)
    groups = list(fill(data, order, batch_tokens))
    generator.shuffle(groups)
    for group in groups[start:]:
        yield collate(data, group)


def fixed_batches(data: EncodedPairs, batch_tokens: int) -> Iterator[Batch]:
    """One pass over the data, always in the same order, shortest pairs first."""
    sizes = lengths(data)
    order = sorted(range(len(data)), key=lambda index: (max(sizes[index]), index))
    for group in fill(data, order, batch_tokens):
        yield collate(data, group)


def lengths(data: EncodedPairs) -> list[tuple[int, int]]:
    """Tokens of each source and of what its decoder reads."""
    return [(len(source), len(target) - 1) for source, target in zip(data.sources, data.targets, strict=True)]


def fill(data: EncodedPairs, order: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut an order into groups of at most `batch_tokens` tokens when padded."""
    group: list[int] = []
    longest_source = longest_target = 0
    for index in order:
        source = max(longest_source, len(data.sources[index]))
        target = max(longest_target, len(data.targets[index]) - 1)
        if group and (source + target) * (len(group) + 1) > batch_tokens:
            yield group
            group, source, target = [], len(data.sources[index]), len(data.targets[index]) - 1
        group.append(index)
        longest_source, longest_target = source, target
    if group:
        yield group


def collate(data: EncodedPairs, group: Sequence[int]) -> Batch:
    """Pad the pairs of a group to one length."""
    source = torch.nn.utils.rnn.pad_sequence(
        [data.sources[i] for i in group], batch_first=True, padding_value=PAD
    )
    target = torch.nn.utils.rnn.pad_sequence(
        [data.targets[i] for i in group], batch_first=True, padding_value=PAD
    )
    target_out = target[:, 1:]
    # The decoder must not read the EOS it should predict: in a shorter target that column is padding.
    return Batch(
        source=source,
        target_in=target[:, :-1].masked_fill(target_out == PAD, PAD),
        target_out=target_out,
        tokens=int((target_out != PAD).sum()),
    )
