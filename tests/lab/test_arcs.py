from pathlib import Path

import numpy as np
import pytest
import torch

from lab.figures.arcs import Arc, arcs_payload, sharpest_head, strongest_arc
from lab.figures.heads import AttentionMap
from lab.figures.reading_maps import reading_maps
from transformer.analysis.reading import read
from transformer.checkpoint import load
from transformer.trace import Trace
from transformer.vocabulary import BOS

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 3)])
def test_every_arc_is_a_traced_weight(layer, head):
    checkpoint = load(CHECKPOINTS / "reverse")
    reading = read(checkpoint, "3 1 4 1 5 9")
    encoder, _, cross = reading_maps(reading, 16)
    payload = arcs_payload(cross, layer, head)

    trace = Trace(keep=["*.cross_attention.weights"])
    decoder_ids = torch.tensor([[BOS, *reading.target.ids[:-1]]])
    with torch.inference_mode():
        checkpoint.model(torch.tensor([reading.source.ids]), decoder_ids, trace)
    traced = trace[f"decoder.{layer}.cross_attention.weights"][0, head]
    torch.testing.assert_close(torch.tensor(payload["weights"]), traced)
    assert payload["source"] == ["3", "1", "4", "1", "5", "9", "<eos>"]
    assert payload["target"] == ["9", "5", "1", "4", "1", "3", "<eos>"]
    with pytest.raises(ValueError, match="predict"):
        arcs_payload(encoder, 0, 0)


def test_the_sharpest_head_of_a_model_that_reverses_points_at_the_digit_it_writes():
    cross = reading_maps(read(load(CHECKPOINTS / "reverse"), "3 1 4 1 5 9"), 16)[2]
    layer, head = sharpest_head(cross)
    pointed = cross.weights[layer, head, :6].argmax(axis=-1).tolist()
    assert pointed == [5, 4, 3, 2, 1, 0]


def cross_map(written, read, rows):
    weights = np.array(rows, dtype=np.float32)[None, None]
    return AttentionMap(
        key="cross",
        weights=weights,
        mask=np.ones(weights.shape[2:], dtype=bool),
        query_tokens=("<bos>", *written[:-1]),
        key_tokens=tuple(read),
        predicted_tokens=tuple(written),
        query_words=tuple(range(len(written))),
        key_words=tuple(range(len(read))),
        d_k=4,
    )


def test_the_strongest_arc_joins_two_words_not_punctuation_or_ends():
    written, read = ["家", "。", "<eos>"], ["home", ".", "<eos>"]
    cross = cross_map(written, read, [[0.3, 0.1, 0.6], [0.8, 0.1, 0.1], [0.9, 0.0, 0.1]])
    assert strongest_arc(cross, 0, 0) == Arc(written="家", read="home", weight=float(np.float32(0.3)))


def test_of_words_the_largest_weight_is_the_strongest_arc():
    cross = cross_map(["a", "b", "<eos>"], ["x", "y", "<eos>"], [[0.5, 0.4, 0.1], [0.3, 0.6, 0.1], [0, 0, 1]])
    assert strongest_arc(cross, 0, 0) == Arc(written="b", read="y", weight=float(np.float32(0.6)))


def test_without_a_word_there_is_no_strongest_arc():
    assert strongest_arc(cross_map(["。", "<eos>"], ["a", "<eos>"], [[1, 0], [1, 0]]), 0, 0) is None
    assert strongest_arc(cross_map(["b", "<eos>"], [".", "<eos>"], [[1, 0], [1, 0]]), 0, 0) is None
