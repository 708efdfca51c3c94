from pathlib import Path

import numpy as np
import pytest
import torch

from lab.figures.heads import WEIGHT_ERROR, Selection, decode_weights, heads_payload
from lab.figures.reading_maps import reading_maps
from transformer.analysis.reading import read
from transformer.checkpoint import load
from transformer.trace import Trace
from transformer.vocabulary import BOS

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
DIGEST = 16


@pytest.fixture(scope="module")
def checkpoint():
    return load(CHECKPOINTS / "anaphora")


@pytest.mark.parametrize("target", [None, "the cat", "猫 the 医生"])
def test_every_weight_of_the_picture_is_the_traced_one(checkpoint, target):
    reading = read(checkpoint, "the cat followed the doctor because it was hungry .", target)
    width = checkpoint.model.config.d_model // checkpoint.model.config.num_heads
    maps = reading_maps(reading, width)
    payload = heads_payload(maps, selection=Selection(), view="tokens", scale="unit", strings={})
    shown = decode_weights(payload["weights"][DIGEST:])

    trace = Trace(keep=["*.weights"])
    source_ids = torch.tensor([reading.source.ids])
    target_ids = torch.tensor([[BOS, *reading.target.ids[:-1]]])
    with torch.inference_mode():
        checkpoint.model(source_ids, target_ids, trace)
    names = {
        "encoder": "encoder.{}.self_attention.weights",
        "decoder": "decoder.{}.self_attention.weights",
        "cross": "decoder.{}.cross_attention.weights",
    }
    traced = [
        trace[names[key].format(layer)][0].numpy()
        for key in ("encoder", "decoder", "cross")
        for layer in range(2)
    ]
    expected = np.concatenate([weights.ravel() for weights in traced])
    assert shown.shape == expected.shape
    # A hundredth more: the product with 65535 is itself rounded to float32.
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1.01 * WEIGHT_ERROR)


def test_labels_say_what_is_read_and_what_is_predicted(checkpoint):
    reading = read(checkpoint, "the cat followed the doctor because it was hungry .", "the cat")
    encoder, decoder, cross = reading_maps(reading, 16)
    assert encoder.query_tokens == encoder.key_tokens == (*reading.source.tokens[:-1], "<eos>")
    assert encoder.predicted_tokens is None
    for attention in (decoder, cross):
        assert attention.query_tokens == ("<bos>", "the", "cat")
        assert attention.predicted_tokens == ("the", "cat", "<eos>")
    assert cross.key_tokens == encoder.key_tokens
    np.testing.assert_array_equal(decoder.mask, np.tril(np.ones((3, 3), bool)))
    assert cross.mask.all()
    assert decoder.query_words == (0, 1, 2)
