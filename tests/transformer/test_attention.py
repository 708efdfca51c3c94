"""Attention against torch's own, against loops over the formula, and one path against the other."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transformer.attention import MultiHeadAttention, masked_softmax, scale_factor
from transformer.masks import causal_mask, padding_mask
from transformer.positions import alibi_bias, alibi_slopes, rotate
from transformer.trace import Scope, Trace

B, T, S, D, H = 2, 5, 7, 12, 3
K = D // H
INPUTS = ("queries", "keys", "values")


def build(kind="dot_product", scale="sqrt") -> MultiHeadAttention:
    attention = MultiHeadAttention(d_model=D, num_heads=H, kind=kind, scale=scale, dropout=0.0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.5)
    return attention


def torch_twin(attention: MultiHeadAttention) -> nn.MultiheadAttention:
    twin = nn.MultiheadAttention(D, H, batch_first=True)
    projections = (attention.query_projection, attention.key_projection, attention.value_projection)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        twin.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        twin.out_proj.weight.copy_(attention.output_projection.weight)
        twin.out_proj.bias.copy_(attention.output_projection.bias)
    return twin


def call(
    attention: MultiHeadAttention, x: Tensor, y: Tensor, mask: Tensor | None, trace: Trace | None = None
) -> Tensor:
    keys, values = attention.keys_and_values(y)
    return attention.attend(attention.queries(x), keys, values, mask=mask, scope=Scope(trace))


def some_mask() -> Tensor:
    """A mask (B, 1, T, S) of causal and padding parts in which every query may see something."""
    mask = causal_mask(T, S) & torch.ones(B, 1, 1, S, dtype=torch.bool)
    mask[1, :, :, 5:] = False
    return mask


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_parity_with_torch_multihead_attention(traced, masked):
    attention = build()
    twin = torch_twin(attention)
    x, y = torch.randn(B, T, D), torch.randn(B, S, D)
    ours_x, ours_y, theirs_x, theirs_y = (t.clone().requires_grad_() for t in (x, y, x, y))
    mask = some_mask() if masked else None
    trace = Trace() if traced else None
    ours = call(attention, ours_x, ours_y, mask, trace)
    # torch's boolean mask says what is hidden, and is (B * H, T, S).
    hidden = None if mask is None else ~mask.expand(B, H, T, S).reshape(B * H, T, S)
    theirs, their_weights = twin(theirs_x, theirs_y, theirs_y, attn_mask=hidden, average_attn_weights=False)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if trace is not None:
        torch.testing.assert_close(trace["weights"], their_weights, atol=1e-6, rtol=1e-5)
    direction = torch.randn_like(ours)
    (ours * direction).sum().backward()
    (theirs * direction).sum().backward()
    torch.testing.assert_close(ours_x.grad, theirs_x.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours_y.grad, theirs_y.grad, atol=1e-5, rtol=1e-4)
    projections = (attention.query_projection, attention.key_projection, attention.value_projection)
    torch.testing.assert_close(
        torch.cat([p.weight.grad for p in projections]), twin.in_proj_weight.grad, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        attention.output_projection.weight.grad, twin.out_proj.weight.grad, atol=1e-5, rtol=1e-4
    )


def attend_with_gradients(attention, inputs, *, mask, bias, trace, direction):
    leaves = [t.clone().requires_grad_() for t in inputs]
    attention.zero_grad()
    output = attention.attend(*leaves, mask=mask, bias=bias, scope=Scope(trace))
    (output * direction).sum().backward()
    return (
        output.detach(),
        [leaf.grad for leaf in leaves],
        [p.grad for p in attention.output_projection.parameters()],
    )


@pytest.mark.parametrize(
    ("scale", "positions", "mask_kind"),
    list(
        itertools.product(
            ("sqrt", "none", "linear"), ("plain", "rotary", "alibi"), ("none", "both", "empty_row")
        )
    ),
)
def test_the_two_paths_agree_in_outputs_and_gradients(scale, positions, mask_kind):
    attention = build(scale=scale)
    inputs = [torch.randn(B, H, T, K) for _ in INPUTS]
    if positions == "rotary":
        inputs[:2] = [rotate(x) for x in inputs[:2]]
    bias = alibi_bias(alibi_slopes(H), T, T) if positions == "alibi" else None
    mask = None
    if mask_kind != "none":
        mask = padding_mask(torch.tensor([[5] * T, [5, 5, 5, 0, 0]])) & causal_mask(T, T)
    if mask_kind == "empty_row":
        mask[1, :, 2] = False
        mask[0, :, 0] = False
    direction = torch.randn(B, T, D)
    fused = attend_with_gradients(attention, inputs, mask=mask, bias=bias, trace=None, direction=direction)
    explicit = attend_with_gradients(
        attention, inputs, mask=mask, bias=bias, trace=Trace(), direction=direction
    )
    torch.testing.assert_close(fused, explicit, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["dot_product", "additive"])
@pytest.mark.parametrize("biased", [False, True])
def test_a_row_without_keys_gives_zeros_and_finite_gradients(traced, kind, biased):
    attention = build(kind)
    if kind == "additive":
        nn.init.normal_(attention.additive_vector)
    inputs = [torch.randn(B, H, T, K, requires_grad=True) for _ in INPUTS]
    mask = torch.ones(B, 1, T, T, dtype=torch.bool)
    mask[0] = False
    mask[1, :, 3] = False
    bias = alibi_bias(alibi_slopes(H), T, T) if biased else None
    trace = Trace() if traced else None
    output = attention.attend(*inputs, mask=mask, bias=bias, scope=Scope(trace))
    only_bias = attention.output_projection.bias
    torch.testing.assert_close(output[0], only_bias.expand(T, D))
    torch.testing.assert_close(output[1, 3], only_bias)
    assert not torch.allclose(output[1, 2], only_bias)
    output.pow(2).sum().backward()
    for tensor in inputs:
        assert tensor.grad.isfinite().all()
        assert (tensor.grad[0] == 0).all()
    if trace is not None:
        assert (trace["weights"][0] == 0).all()
        assert (trace["head_outputs"][1, :, 3] == 0).all()


def test_masked_softmax_is_the_softmax_of_the_permitted_keys():
    scores = torch.randn(1, 1, 2, 4) * 50
    mask = torch.tensor([[True, False, True, True], [False, False, False, False]])[None, None]
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights[0, 0, 0, [0, 2, 3]], scores[0, 0, 0, [0, 2, 3]].softmax(dim=-1))
    assert weights[0, 0, 0, 1] == 0
    assert (weights[0, 0, 1] == 0).all()
    torch.testing.assert_close(masked_softmax(scores, None), scores.softmax(dim=-1))


def test_additive_attention_is_bahdanau_s_formula():
    attention = build("additive")
    with torch.no_grad():
        attention.additive_vector.normal_()
    x, y = torch.randn(B, T, D), torch.randn(B, S, D)
    mask = some_mask()
    trace = Trace()
    output = call(attention, x, y, mask, trace)
    torch.testing.assert_close(output, call(attention, x, y, mask))

    def split(projection, z):
        return (z @ projection.weight.T + projection.bias).detach().numpy().reshape(B, -1, H, K)

    q, k = split(attention.query_projection, x), split(attention.key_projection, y)
    v, vector = split(attention.value_projection, y), attention.additive_vector.detach().numpy()
    heads = np.zeros((B, T, H, K))
    for b, t, h in itertools.product(range(B), range(T), range(H)):
        total = 0.0
        for s in range(S):
            if not mask[b, 0, t, s]:
                continue
            score = sum(vector[h, j] * math.tanh(q[b, t, h, j] + k[b, s, h, j]) for j in range(K))
            assert trace["scores"][b, h, t, s].item() == pytest.approx(score, abs=1e-4)
            total += math.exp(score)
            heads[b, t, h] += math.exp(score) * v[b, s, h]
        heads[b, t, h] /= total
    expected = torch.from_numpy(heads.reshape(B, T, D)).float() @ attention.output_projection.weight.T
    torch.testing.assert_close(output, expected + attention.output_projection.bias, atol=1e-4, rtol=1e-4)


def test_scale_factors():
    assert scale_factor("sqrt", 64) == pytest.approx(1 / 8)
    assert scale_factor("linear", 64) == pytest.approx(1 / 64)
    assert scale_factor("none", 64) == 1.0


@pytest.mark.parametrize("scale", ["sqrt", "none", "linear"])
def test_scores_are_scaled_dot_products(scale):
    attention = build(scale=scale)
    q, k = torch.randn(1, H, T, K), torch.randn(1, H, S, K)
    factor = {"sqrt": K**-0.5, "none": 1.0, "linear": 1 / K}[scale]
    expected = np.einsum("bhtk,bhsk->bhts", q.numpy(), k.numpy()) * factor
    torch.testing.assert_close(attention.scores(q, k), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("traced", [False, True])
def test_attention_dropout_acts_in_training_only_and_after_the_trace(traced):
    attention = MultiHeadAttention(d_model=D, num_heads=H, kind="dot_product", scale="sqrt", dropout=0.5)
    x = torch.randn(B, T, D)
    trace = Trace() if traced else None
    dropped = [call(attention, x, x, None, trace) for _ in range(2)]
    assert not torch.allclose(*dropped)
    if trace is not None:
        torch.testing.assert_close(trace["weights"].sum(dim=-1), torch.ones(B, H, T))
    attention.eval()
    torch.testing.assert_close(call(attention, x, x, None, trace), call(attention, x, x, None, trace))


def test_causal_mask_of_the_last_queries():
    assert causal_mask(2, 4)[0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]


def test_padding_mask_allows_real_tokens():
    assert padding_mask(torch.tensor([[5, 1, 0], [2, 0, 0]]))[:, 0, 0].tolist() == [
        [True, True, False],
        [True, False, False],
    ]
