"""Maps for the tests of the picture of all heads: traced from a small untrained Transformer with a fixed seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lab.figures.heads import AttentionMap, Selection
from transformer.config import ModelConfig
from transformer.model import Transformer
from transformer.trace import Trace

KINDS = {
    "encoder": ("encoder", "self_attention"),
    "decoder": ("decoder", "self_attention"),
    "cross": ("decoder", "cross_attention"),
}


def words_of(tokens: Sequence[str]) -> tuple[int, ...]:
    """A word number a token; a token written `-ing` belongs to the word before it."""
    words: list[int] = []
    for token in tokens:
        words.append(words[-1] if words and token.startswith("-") else (words[-1] + 1 if words else 0))
    return tuple(words)


def sample_maps(
    source: Sequence[str], target: Sequence[str], layers: int = 2, heads: int = 2, width: int = 8
) -> list[AttentionMap]:
    """The three maps of one forward pass over `source` and `target`; the decoder reads `target` behind a start token."""
    torch.manual_seed(7)
    config = ModelConfig(
        source_size=300, target_size=300, d_model=width * heads, num_heads=heads, d_ff=32,
        encoder_layers=layers, decoder_layers=layers, dropout=0.0,
    )  # fmt: skip
    model = Transformer(config).eval()
    read, predicted = ("<s>", *target), (*target, "</s>")
    source_ids = torch.tensor([[4 + hash_token(token) for token in source]])
    target_ids = torch.tensor([[1, *(4 + hash_token(token) for token in target)]])
    # Untrained weights are nearly uniform; sharper queries make heads that differ.
    for name, parameter in model.named_parameters():
        if "attention" in name and parameter.dim() > 1:
            parameter.data *= 2.0
    trace = Trace(keep=["*.weights", "*.mask"])
    with torch.no_grad():
        model(source_ids, target_ids, trace)
    maps = []
    for key, (stack, attention) in KINDS.items():
        weights = np.stack(
            [trace.tensors[f"{stack}.{i}.{attention}.weights"][0].numpy() for i in range(layers)]
        )
        queries = source if key == "encoder" else read
        keys = read if key == "decoder" else source
        mask = (
            np.tril(np.ones((len(read), len(read)), bool))
            if key == "decoder"
            else np.ones(weights.shape[2:], bool)
        )
        maps.append(
            AttentionMap(
                key=key,
                weights=weights.astype(np.float32),
                mask=mask,
                query_tokens=tuple(queries),
                key_tokens=tuple(keys),
                predicted_tokens=None if key == "encoder" else predicted,
                query_words=words_of(queries),
                key_words=words_of(keys),
                d_k=width,
            )
        )
    return maps


def hash_token(token: str) -> int:
    """A stable number below 290 for a token."""
    return sum((i + 1) * ord(character) for i, character in enumerate(token)) % 290


def causal_sample(maps: Sequence[AttentionMap], selection: Selection) -> dict[str, Any]:
    """A strip to draw: numbers of the right shape, made from the weights of the selected head."""
    attention = next(each for each in maps if each.key == "cross")
    before = attention.weights[0, 0].max(axis=1)
    layer = selection.layer
    head = selection.head if isinstance(selection.head, int) else 0
    after = attention.weights[layer, head].max(axis=1)
    return {
        "map": selection.map,
        "layer": layer,
        "head": head,
        "mode": "zero",
        "tokens": list(attention.predicted_tokens or ()),
        "before": before.tolist(),
        "after": after.tolist(),
        "delta": (after - before).tolist(),
    }
