"""One head of cross-attention as arcs from each written token to the source tokens it was read from."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.figures.heads import AttentionMap


@dataclass(frozen=True, kw_only=True)
class Arc:
    """One weight of a head of cross-attention.

    Attributes:
        written: The target token that the row predicts.
        read: The source token it lies on.
        weight: The attention weight.
    """

    written: str
    read: str
    weight: float


def sharpest_head(cross: AttentionMap) -> tuple[int, int]:
    """Layer and head of a cross-attention whose rows lie most on a single word, the end of the sentence left out."""
    largest = cross.weights[..., :-1].max(axis=-1).mean(axis=-1)
    layer, head = divmod(int(largest.argmax()), largest.shape[1])
    return layer, head


def arcs_payload(cross: AttentionMap, layer: int, head: int) -> dict[str, Any]:
    """What the picture of arcs draws, as JSON values.

    Args:
        cross: A cross-attention.
        layer: Layer of the head to draw, from 0.
        head: Its number, from 0.

    Returns:
        ``source`` and ``target`` tokens (the target's are those each row predicts) and ``weights``, a list of
        rows, one a target token, each with one weight a source token.

    Raises:
        ValueError: If the rows of `cross` predict nothing.
    """
    if cross.predicted_tokens is None:
        raise ValueError("Arcs need a map whose rows predict tokens; the encoder's do not.")
    return {
        "source": list(cross.key_tokens),
        "target": list(cross.predicted_tokens),
        "weights": cross.weights[layer, head].tolist(),
    }


def strongest_arc(cross: AttentionMap, layer: int, head: int) -> Arc | None:
    """The largest weight of a head from a word to a word; punctuation and the end of the sentence are none.

    Args:
        cross: A cross-attention.
        layer: Layer of the head, from 0.
        head: Its number, from 0.

    Returns:
        The arc, or None where nothing that was read or nothing that was written has a letter or a digit.

    Raises:
        ValueError: If the rows of `cross` predict nothing.
    """
    if cross.predicted_tokens is None:
        raise ValueError("Arcs need a map whose rows predict tokens; the encoder's do not.")
    # The last token of both sides ends the sentence.
    written = [place for place, token in enumerate(cross.predicted_tokens[:-1]) if _is_word(token)]
    read = [place for place, token in enumerate(cross.key_tokens[:-1]) if _is_word(token)]
    if not written or not read:
        return None
    weights = cross.weights[layer, head][np.ix_(written, read)]
    row, column = divmod(int(weights.argmax()), len(read))
    return Arc(
        written=cross.predicted_tokens[written[row]],
        read=cross.key_tokens[read[column]],
        weight=float(weights[row, column]),
    )


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))
