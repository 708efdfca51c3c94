"""Probe sentences for trainings that name none: a few of the pairs that the model is evaluated on."""

from collections.abc import Iterable

from transformer.data.pairs import Pair
from transformer.recipe import ProbeConfig

COUNT = 3
# Longer ones are hard to read as a picture of attention.
MOST_CHARACTERS = 80


def chosen_probes(pairs: Iterable[Pair], *, longest: int, count: int = COUNT) -> tuple[ProbeConfig, ...]:
    """The first pairs that are short enough, each with another source.

    Args:
        pairs: Pairs to choose from.
        longest: Longest text that the model takes, in tokens, the end counted.
        count: How many.
    """
    limit = min(longest - 1, MOST_CHARACTERS)
    chosen: dict[str, str] = {}
    for pair in pairs:
        # A token has at least one character, so this many characters are never too many tokens.
        if max(len(pair.source), len(pair.target)) <= limit:
            chosen.setdefault(pair.source, pair.target)
        if len(chosen) == count:
            break
    return tuple(ProbeConfig(source=source, target=target) for source, target in chosen.items())
