"""What is measured of the layers against sums by hand and hooks on the layers."""

import pytest
import torch

from transformer.data.batches import Batch
from transformer.layer_sizes import layer_names, stream_sizes
from transformer.model import Transformer
from transformer.vocabulary import PAD


@pytest.fixture
def padded(batch):
    source, target = batch
    return Batch(source=source, target_in=target, target_out=target, tokens=1)


@pytest.mark.parametrize("norm", ["post", "pre", "deepnorm", "none"])
def test_streams_and_movements_against_the_layers_inputs_and_outputs(make_model, padded, norm):
    model = make_model(norm=norm, encoder_layers=3, decoder_layers=2, dropout=0.3).train()
    seen = {}
    for name in layer_names(model):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, (args[0], output))
        )
    streams, movements = stream_sizes(model, padded)
    assert stream_sizes(model, padded) == (streams, movements)  # without dropout
    assert model.training
    assert list(seen) == ["encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1"]
    for name, stream, movement in zip(layer_names(model), streams, movements, strict=True):
        ids = padded.source if name.startswith("encoder") else padded.target_in
        before, after = seen[name]
        squares, moved, start, count = 0.0, 0.0, 0.0, 0
        for row in range(ids.shape[0]):
            for place in range(ids.shape[1]):
                if ids[row, place] != PAD:
                    squares += sum(value**2 for value in after[row, place].tolist())
                    moved += (after[row, place] - before[row, place]).square().sum().item()
                    start += before[row, place].square().sum().item()
                    count += after.shape[-1]
        assert stream == pytest.approx((squares / count) ** 0.5, rel=1e-4)
        assert movement == pytest.approx((moved / start) ** 0.5, rel=1e-4)


def test_a_layer_that_adds_nothing_moves_nothing(make_model, padded):
    model = make_model(norm="pre")
    with torch.no_grad():
        for module in (
            model.encoder[1].self_attention.attention.output_projection,
            model.encoder[1].feed_forward.narrow,
        ):
            module.weight.zero_()
            module.bias.zero_()
    streams, movements = stream_sizes(model, padded)
    assert movements[1] == 0.0
    assert streams[1] == streams[0]
    assert min(movements[0], *movements[2:]) > 0.0


def test_no_layers(make_config, padded):
    model = Transformer(make_config(encoder_layers=0, decoder_layers=0))
    assert layer_names(model) == ()
    assert stream_sizes(model, padded) == ((), ())
