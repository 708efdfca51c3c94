"""The whole model: what may depend on what, shapes, initial values, sharing."""

import itertools
import math

import pytest
import torch

from transformer.layers import deepnorm_constants
from transformer.model import Transformer, token_log_probabilities
from transformer.vocabulary import PAD

POSITIONS = ["sinusoidal", "learned", "rotary", "alibi", "none"]


@pytest.mark.parametrize(
    ("positions", "norm", "attention"),
    list(itertools.product(POSITIONS, ["post", "pre", "deepnorm", "none"], ["dot_product", "additive"])),
)
def test_later_tokens_leave_earlier_logits(make_model, batch, positions, norm, attention):
    model = make_model(positions=positions, norm=norm, attention=attention)
    source, target = batch
    logits = model(source, target)
    changed = target.clone()
    changed[0, 3:] = torch.tensor([9, 10])
    assert not torch.equal(changed, target)
    after = model(source, changed)
    torch.testing.assert_close(after[:, :3], logits[:, :3], atol=1e-6, rtol=0)
    assert not torch.allclose(after[0, 3:], logits[0, 3:])


def test_without_the_causal_mask_later_tokens_leak(make_model, batch):
    model = make_model(causal=False)
    source, target = batch
    changed = target.clone()
    changed[0, 4] = 4 if target[0, 4] != 4 else 5
    assert not torch.allclose(model(source, changed)[0, :4], model(source, target)[0, :4], atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_changes_nothing(make_model, batch, positions):
    model = make_model(positions=positions)
    source, target = batch
    logits = model(source, target)
    for row in range(3):
        real_source = source[row, source[row] != PAD][None]
        real_target = target[row, target[row] != PAD][None]
        alone = model(real_source, real_target)[0]
        torch.testing.assert_close(logits[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_an_empty_source_gives_finite_logits_and_gradients(make_model):
    model = make_model()
    logits = model(torch.zeros(1, 4, dtype=torch.long), torch.tensor([[1, 5]]))
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize(("encoder_layers", "decoder_layers"), [(0, 2), (2, 0), (0, 0), (3, 1)])
def test_any_number_of_layers(make_model, batch, encoder_layers, decoder_layers):
    model = make_model(encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    assert model(*batch).shape == (3, 5, 11)


def test_more_than_a_hundred_layers(make_config, batch):
    model = Transformer(make_config(encoder_layers=120, decoder_layers=110, norm="deepnorm")).eval()
    logits = model(*batch)
    assert logits.isfinite().all()
    logits.logsumexp(dim=-1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_no_positions_means_a_set(make_model):
    """Without positions the encoder cannot tell an order: shuffled words, shuffled outputs."""
    source = torch.tensor([[4, 5, 6, 7, 8]])
    order = torch.tensor([3, 0, 4, 1, 2])
    model = make_model(positions="none")
    torch.testing.assert_close(
        model.encode(source[:, order]), model.encode(source)[:, order], atol=1e-5, rtol=1e-4
    )
    model = make_model(positions="sinusoidal")
    assert not torch.allclose(model.encode(source[:, order]), model.encode(source)[:, order], atol=1e-2)


def test_tied_embeddings_share_storage(make_config):
    untied = Transformer(make_config(tied_embeddings="none"))
    assert untied.output_projection.weight is not untied.target_embedding.weight
    target = Transformer(make_config(tied_embeddings="target"))
    assert target.output_projection.weight is target.target_embedding.weight
    assert target.source_embedding.weight is not target.target_embedding.weight
    everything = Transformer(make_config(tied_embeddings="all", source_size=11))
    assert everything.output_projection.weight is everything.target_embedding.weight
    assert everything.source_embedding.weight is everything.target_embedding.weight


@pytest.mark.parametrize("tied", ["none", "target", "all"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_number_of_parameters(make_config, tied, positions, norm):
    d, f, n, m, v = 16, 24, 2, 3, 11
    source = v if tied == "all" else 13
    config = make_config(
        source_size=source, decoder_layers=m, tied_embeddings=tied, positions=positions, norm=norm
    )
    attention, feed_forward, layer_norm = (
        4 * (d * d + d),
        d * f + f + f * d + d,
        0 if norm == "none" else 2 * d,
    )
    expected = n * (attention + feed_forward + 2 * layer_norm) + m * (
        2 * attention + feed_forward + 3 * layer_norm
    )
    expected += {"none": source + 2 * v, "target": source + v, "all": v}[tied] * d
    expected += 2 * 32 * d if positions == "learned" else 0
    expected += 2 * layer_norm if norm == "pre" else 0
    assert Transformer(config).num_parameters() == expected


@pytest.mark.parametrize("norm", ["post", "deepnorm"])
def test_initial_values_are_the_documented_ones(make_config, norm):
    config = make_config(
        source_size=400,
        target_size=300,
        d_model=128,
        num_heads=4,
        d_ff=256,
        norm=norm,
        positions="learned",
        tied_embeddings="none",
        max_length=200,
        attention="additive",
    )
    model = Transformer(config)
    constants = deepnorm_constants(2, 2)

    def deviation(tensor):
        return tensor.detach().std().item()

    for stack, beta in ((model.encoder, constants.encoder_beta), (model.decoder, constants.decoder_beta)):
        beta = beta if norm == "deepnorm" else 1.0
        for layer in stack:
            attentions = [layer.self_attention.attention]
            attentions += [layer.cross_attention] if hasattr(layer, "cross_attention") else []
            for attention in attentions:
                square = math.sqrt(2 / (128 + 128))
                assert deviation(attention.query_projection.weight) == pytest.approx(square, rel=0.05)
                assert deviation(attention.key_projection.weight) == pytest.approx(square, rel=0.05)
                assert deviation(attention.value_projection.weight) == pytest.approx(beta * square, rel=0.05)
                assert deviation(attention.output_projection.weight) == pytest.approx(beta * square, rel=0.05)
                assert attention.additive_vector.abs().max() <= 32**-0.5
                assert attention.additive_vector.abs().max() > 0.8 * 32**-0.5
            for linear in (layer.feed_forward.widen, layer.feed_forward.narrow):
                expected = beta * math.sqrt(2 / (128 + 256))
                assert deviation(linear.weight) == pytest.approx(expected, rel=0.05)
                # Uniform, not normal: the greatest value is sqrt(3) deviations away.
                assert linear.weight.abs().max().item() == pytest.approx(math.sqrt(3) * expected, rel=0.02)
    for weight in (model.source_embedding.weight, model.target_embedding.weight):
        assert deviation(weight) == pytest.approx(128**-0.5, rel=0.05)
        assert (weight[PAD] == 0).all()
    assert deviation(model.output_projection.weight) == pytest.approx(128**-0.5, rel=0.05)
    for positions in (model.source_positions, model.target_positions):
        assert deviation(positions.table) == pytest.approx(0.02, rel=0.05)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm.weight" in name:
            assert (parameter == 1).all(), name


def test_initial_values_depend_on_the_seed_alone(make_config):
    torch.manual_seed(3)
    first = Transformer(make_config())
    torch.manual_seed(3)
    second = Transformer(make_config())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_too_long_a_sequence_is_refused_with_the_limit(make_model):
    model = make_model(max_length=4)
    with pytest.raises(ValueError, match=r"5 tokens.*at most 4"):
        model(torch.full((1, 5), 5), torch.tensor([[1]]))
    with pytest.raises(ValueError, match=r"6 tokens.*at most 4"):
        model(torch.tensor([[5]]), torch.full((1, 6), 5))


def test_token_log_probabilities(make_model, batch):
    source, target = batch
    logits = make_model()(source, target)
    picked = token_log_probabilities(logits, target)
    for b, t in itertools.product(range(3), range(5)):
        expected = logits[b, t, target[b, t]] - logits[b, t].logsumexp(0)
        torch.testing.assert_close(picked[b, t], expected)
