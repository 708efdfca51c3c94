"""One head of cross-attention as arcs from each written token to the source tokens it was read from."""

from typing import Any

from lab.figures.heads import AttentionMap


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
