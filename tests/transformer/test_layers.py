"""Layers against torch's own after copying the weights, and the constants of DeepNorm."""

import pytest
import torch
from torch import nn

from transformer.attention import MultiHeadAttention
from transformer.config import ModelConfig
from transformer.layers import AddAndNorm, DecoderLayer, EncoderLayer, deepnorm_constants
from transformer.masks import causal_mask, padding_mask

IDS = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
MEMORY_IDS = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])


def copy_linear(to: nn.Linear, source: nn.Linear) -> None:
    to.weight.copy_(source.weight)
    to.bias.copy_(source.bias)


def copy_attention(to: nn.MultiheadAttention, source: MultiHeadAttention) -> None:
    projections = (source.query_projection, source.key_projection, source.value_projection)
    to.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
    to.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    copy_linear(to.out_proj, source.output_projection)


def copy_norm(to: nn.LayerNorm, source: AddAndNorm) -> None:
    to.weight.copy_(source.norm.weight)
    to.bias.copy_(source.norm.bias)


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.normal_(std=0.4)


def torch_layer(kind: type, config) -> nn.Module:
    return kind(
        config.d_model,
        config.num_heads,
        config.d_ff,
        dropout=0.0,
        batch_first=True,
        norm_first=config.norm == "pre",
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_encoder_layer_equals_torch(make_config, norm):
    config = make_config(norm=norm)
    ours = EncoderLayer(config, alpha=1.0)
    theirs = torch_layer(nn.TransformerEncoderLayer, config)
    with torch.no_grad():
        randomise(ours)
        copy_attention(theirs.self_attn, ours.self_attention.attention)
        copy_linear(theirs.linear1, ours.feed_forward.widen)
        copy_linear(theirs.linear2, ours.feed_forward.narrow)
        copy_norm(theirs.norm1, ours.self_attention_add_norm)
        copy_norm(theirs.norm2, ours.feed_forward_add_norm)
    x = torch.randn(2, 4, config.d_model)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    output = ours(mine, padding_mask(IDS))
    expected = theirs(other, src_key_padding_mask=IDS == 0)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    direction = torch.randn_like(output)
    (output * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_decoder_layer_equals_torch(make_config, norm):
    config = make_config(norm=norm)
    ours = DecoderLayer(config, alpha=1.0)
    theirs = torch_layer(nn.TransformerDecoderLayer, config)
    with torch.no_grad():
        randomise(ours)
        copy_attention(theirs.self_attn, ours.self_attention.attention)
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        copy_linear(theirs.linear1, ours.feed_forward.widen)
        copy_linear(theirs.linear2, ours.feed_forward.narrow)
        copy_norm(theirs.norm1, ours.self_attention_add_norm)
        copy_norm(theirs.norm2, ours.cross_attention_add_norm)
        copy_norm(theirs.norm3, ours.feed_forward_add_norm)
    x, memory = torch.randn(2, 4, config.d_model), torch.randn(2, 5, config.d_model)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    output = ours(
        mine,
        ours.cross_attention.keys_and_values(memory),
        mask=padding_mask(IDS) & causal_mask(4, 4),
        memory_mask=padding_mask(MEMORY_IDS),
    )
    expected = theirs(
        other,
        memory,
        tgt_mask=~causal_mask(4, 4)[0, 0],
        tgt_key_padding_mask=IDS == 0,
        memory_key_padding_mask=MEMORY_IDS == 0,
    )
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    direction = torch.randn_like(output)
    (output * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "expected"),
    [
        # Wang et al. 2022, figure 2: encoder-only (2N)^(1/4), (8N)^(-1/4); decoder-only likewise in M;
        # encoder-decoder 0.81 (N^4 M)^(1/16), 0.87 (N^4 M)^(-1/16), (3M)^(1/4), (12M)^(-1/4).
        (12, 0, {"encoder_alpha": 24**0.25, "encoder_beta": 96**-0.25}),
        (0, 12, {"decoder_alpha": 24**0.25, "decoder_beta": 96**-0.25}),
        (
            6,
            6,
            {
                "encoder_alpha": 0.81 * (6**5) ** (1 / 16),
                "encoder_beta": 0.87 * (6**5) ** (-1 / 16),
                "decoder_alpha": 18**0.25,
                "decoder_beta": 72**-0.25,
            },
        ),
        (
            100,
            20,
            {
                "encoder_alpha": 0.81 * (100**4 * 20) ** (1 / 16),
                "encoder_beta": 0.87 * (100**4 * 20) ** (-1 / 16),
                "decoder_alpha": 60**0.25,
                "decoder_beta": 240**-0.25,
            },
        ),
    ],
)
def test_deepnorm_constants_are_the_paper_s(encoder_layers, decoder_layers, expected):
    constants = deepnorm_constants(encoder_layers, decoder_layers)
    for name, value in expected.items():
        assert getattr(constants, name) == pytest.approx(value), name


@pytest.mark.parametrize("residual", [True, False])
def test_where_norm_and_residual_stand(residual):
    x = torch.randn(2, 3, 8)
    norm = nn.LayerNorm(8)
    kept = x if residual else torch.zeros_like(x)

    def run(kind):
        return AddAndNorm(d_model=8, kind=kind, residual=residual, dropout=0.0, alpha=3.0)(x, torch.sin)

    torch.testing.assert_close(run("post"), norm(kept + x.sin()))
    torch.testing.assert_close(run("pre"), kept + norm(x).sin())
    torch.testing.assert_close(run("none"), kept + x.sin())
    if residual:
        torch.testing.assert_close(run("deepnorm"), norm(3.0 * x + x.sin()))


@pytest.mark.parametrize("norm", ["post", "pre", "none"])
@pytest.mark.parametrize("residual", [True, False])
def test_a_layer_with_parts_taken_away_against_torch_s_pieces(make_config, norm, residual):
    """The whole encoder layer again from `nn.MultiheadAttention`, `nn.Linear` and `nn.LayerNorm`."""
    config = make_config(norm=norm, residual=residual)
    ours = EncoderLayer(config, alpha=1.0)
    attention = nn.MultiheadAttention(config.d_model, config.num_heads, batch_first=True)
    widen, narrow = nn.Linear(config.d_model, config.d_ff), nn.Linear(config.d_ff, config.d_model)
    norms = [nn.Identity() if norm == "none" else nn.LayerNorm(config.d_model) for _ in range(2)]
    with torch.no_grad():
        randomise(ours)
        copy_attention(attention, ours.self_attention.attention)
        copy_linear(widen, ours.feed_forward.widen)
        copy_linear(narrow, ours.feed_forward.narrow)
        if norm != "none":
            copy_norm(norms[0], ours.self_attention_add_norm)
            copy_norm(norms[1], ours.feed_forward_add_norm)

    def attend(x):
        return attention(x, x, x, key_padding_mask=IDS == 0, need_weights=False)[0]

    def feed(x):
        return narrow(torch.relu(widen(x)))

    x = torch.randn(2, 4, config.d_model)
    expected = x
    for sub_layer, layer_norm in ((attend, norms[0]), (feed, norms[1])):
        before = expected
        expected = sub_layer(layer_norm(before) if norm == "pre" else before)
        if residual:
            expected = before + expected
        if norm == "post":
            expected = layer_norm(expected)
    torch.testing.assert_close(ours(x, padding_mask(IDS)), expected, atol=1e-5, rtol=1e-4)


def test_each_stack_gets_its_own_alpha(make_model):
    model = make_model(norm="deepnorm", encoder_layers=3, decoder_layers=5)
    constants = deepnorm_constants(3, 5)
    for layer in model.encoder:
        assert (
            layer.self_attention_add_norm.alpha
            == layer.feed_forward_add_norm.alpha
            == constants.encoder_alpha
        )
    for layer in model.decoder:
        assert layer.cross_attention_add_norm.alpha == constants.decoder_alpha


def test_a_configuration_from_before_the_residual_could_be_taken_away(make_config):
    values = make_config().to_dict()
    del values["residual"]
    assert ModelConfig.from_dict(values) == make_config()
    assert ModelConfig.from_dict(values).residual is True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"residual": 1}, "residual is 1; it must be true or false"),
        ({"residual": False, "norm": "deepnorm"}, "residual must be true"),
        ({"norm": "rms"}, "norm is 'rms'; allowed are 'post', 'pre', 'deepnorm', 'none'"),
    ],
)
def test_bad_norms_and_residuals(make_config, changes, words):
    with pytest.raises(ValueError, match=words):
        make_config(**changes)
