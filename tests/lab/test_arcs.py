from pathlib import Path

import pytest
import torch

from lab.figures.arcs import arcs_payload, sharpest_head
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
