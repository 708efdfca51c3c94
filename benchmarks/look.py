"""What looking inside costs: a forward pass under a trace against the fused one, and the picture against Plotly's.

PYTHONPATH=. python benchmarks/look.py
"""

import json

import numpy as np
import plotly.graph_objects as go
import torch
from peer import SHAPE, median_seconds, random_batch

from lab.figures.heads import Selection, heads_payload
from tests.lab.heads_sample import sample_maps
from transformer.model import Transformer
from transformer.trace import Trace


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Transformer(SHAPE).eval()
    for length in (16, 128):
        source, target = random_batch(1, length)
        with torch.inference_mode():
            fused, traced = median_seconds(
                lambda source=source, target=target: model(source, target),
                lambda source=source, target=target: model(
                    source, target, Trace(keep=["*.weights", "*.mask"])
                ),
            )
        print(
            f"{length} tokens: forward pass {1000 * fused:.1f} ms, under a trace {traced / fused:.2f} times that"
        )

    maps = sample_maps([f"w{n}" for n in range(128)], [f"z{n}" for n in range(127)], 6, 8)

    def ours() -> int:
        payload = heads_payload(maps, selection=Selection(), view="tokens", scale="unit", strings={})
        weights = payload.pop("weights")
        return len(weights) + len(json.dumps(payload))

    def heatmaps() -> int:
        figure = go.Figure(
            [go.Heatmap(z=np.asarray(head)) for each in maps for layer in each.weights for head in layer]
        )
        return len(figure.to_json())

    here, there = median_seconds(ours, heatmaps, rounds=3)
    print(
        f"128 tokens, 6 layers, 8 heads, 3 maps: {ours() / 1e6:.1f} MB in {here:.2f} s; as Plotly heatmaps "
        f"{heatmaps() / ours():.1f} times the bytes in {there / here:.1f} times the time"
    )


if __name__ == "__main__":
    main()
