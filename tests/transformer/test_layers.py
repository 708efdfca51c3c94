"""Layers against torch's own after copying the weights, and the constants of DeepNorm."""

import pytest
import torch
from torch import nn

from transformer.attention import MultiHeadAttention
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


def test_where_the_norm_stands():
    x = torch.randn(2, 3, 8)
    norm = nn.LayerNorm(8)

    def run(kind):
        return AddAndNorm(d_model=8, kind=kind, dropout=0.0, alpha=3.0)(x, torch.sin)

    torch.testing.assert_close(run("post"), norm(x + x.sin()))
    torch.testing.assert_close(run("pre"), x + norm(x).sin())
    torch.testing.assert_close(run("deepnorm"), norm(3.0 * x + x.sin()))


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
