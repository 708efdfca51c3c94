"""What decoding keeps between two steps, so that each step computes one position only.

The cache lives outside the model: one model serves any number of decodings at once.

Legend: N hypotheses (rows), H heads, T decoded positions, S source length, K head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class LayerCache:
    """Self-attention keys and values of one decoder layer, in a buffer allocated once.

    Args:
        rows: Number of hypotheses N.
        num_heads: Heads H.
        capacity: Most positions that will be decoded.
        d_k: Head width K.
        like: Tensor whose dtype and device the buffers take.
    """

    def __init__(self, rows: int, num_heads: int, capacity: int, d_k: int, *, like: Tensor) -> None:
        self._keys = like.new_empty(rows, num_heads, capacity, d_k)
        self._values = like.new_empty(rows, num_heads, capacity, d_k)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add positions (N, H, n, K); returns all keys and values so far, (N, H, T, K)."""
        end = self.length + keys.shape[2]
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep the hypotheses `rows` (M,), in this order; a row may be kept several times."""
        self._keys = self._keys[rows]
        self._values = self._values[rows]


@dataclass
class DecoderCache:
    """State of a decoding: what each decoder layer has seen, and the encoder's keys and values.

    Attributes:
        layers: Self-attention cache of each layer.
        memory: For each layer, keys and values of the encoder's output, each (N, H, S, K), computed once.
        memory_mask: (N, 1, 1, S).
        tokens: Tokens read so far (N, T).
    """

    layers: list[LayerCache]
    memory: list[tuple[Tensor, Tensor]]
    memory_mask: Tensor
    tokens: Tensor

    def select(self, rows: Tensor) -> None:
        """Keep the hypotheses `rows` (M,), in this order; a row may be kept several times."""
        for layer in self.layers:
            layer.select(rows)
        self.memory = [(keys[rows], values[rows]) for keys, values in self.memory]
        self.memory_mask = self.memory_mask[rows]
        self.tokens = self.tokens[rows]

    def read(self, tokens: Tensor) -> None:
        """Note the tokens (N,) that this step reads."""
        self.tokens = torch.cat((self.tokens, tokens[:, None]), dim=1)
