"""Gradients at initialisation against a stack written down from the paper, finite differences, and the published law."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lab.experiments.norm_gradients_at_init import (
    FIRST_TOKEN,
    LENGTH,
    VOCABULARY,
    Options,
    full_gradients,
    full_model,
    theory_gradients,
    theory_model,
    verdict_of,
)
from lab.experiments.statistics import Interval
from transformer.loss import label_smoothed_loss

D = 16


def paper_stack(norm, x, layers):
    """The stack of Xiong et al. 2020 in the theorem's setting, from its formulas: x (T, D), layers of (V, W1, W2)."""
    for value, first, second in layers:
        if norm == "post":
            x = F.layer_norm(x + (x @ value).mean(dim=0), (D,))
            x = F.layer_norm(x + (x @ first).relu() @ second, (D,))
        else:
            x = x + (F.layer_norm(x, (D,)) @ value).mean(dim=0)
            x = x + (F.layer_norm(x, (D,)) @ first).relu() @ second
        yield x


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("depth", [1, 3])
def test_gradients_and_streams_are_those_of_the_paper_s_formulas(norm, depth):
    options = Options(d_model=D, sequences=3)
    found = theory_gradients(norm, depth, 7, options)

    torch.manual_seed(7)
    model = theory_model(norm, depth, D)
    ids = torch.randint(FIRST_TOKEN, VOCABULARY, (3, LENGTH))
    answers = torch.randint(FIRST_TOKEN, VOCABULARY, (3,))
    layers = [
        tuple(
            projection.weight.detach().T.clone().requires_grad_()
            for projection in (
                layer.self_attention.attention.value_projection,
                layer.feed_forward.widen,
                layer.feed_forward.narrow,
            )
        )
        for layer in model.encoder
    ]
    embedding = model.source_embedding.weight.detach() * math.sqrt(D)
    head = model.output_projection.weight.detach()
    norms, sizes = [], []
    for sequence, answer in zip(ids, answers, strict=True):
        states = list(paper_stack(norm, embedding[sequence], layers))
        last = F.layer_norm(states[-1], (D,)) if norm == "pre" else states[-1]
        loss = -(head @ last[0]).log_softmax(dim=0)[answer]
        norms.append([g.norm().item() for g in torch.autograd.grad(loss, [w2 for *_, w2 in layers])])
        sizes.append([(state**2).sum(dim=1).mean().item() / D for state in states])
    np.testing.assert_allclose(found.gradients, np.mean(norms, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.streams, np.mean(sizes, axis=0), rtol=1e-4)


def test_the_setting_is_the_theory_s():
    torch.manual_seed(0)
    model = theory_model("pre", 6, 128)
    for layer in model.encoder:
        attention = layer.self_attention.attention
        assert attention.num_heads == 1
        assert not attention.query_projection.weight.any()
        assert not attention.key_projection.weight.any()
        assert torch.equal(attention.output_projection.weight, torch.eye(128))
        for matrix in (attention.value_projection, layer.feed_forward.widen, layer.feed_forward.narrow):
            assert matrix.weight.shape == (128, 128)
            # Xavier's variance is 2 / (128 + 128); a normal distribution has a kurtosis of 3, a uniform one 1.8.
            assert matrix.weight.var().item() == pytest.approx(1 / 128, rel=0.05)
            assert (matrix.weight**4).mean().item() * 128**2 == pytest.approx(3.0, rel=0.1)
            assert not matrix.bias.any()


def test_the_full_model_s_gradient_is_that_of_finite_differences():
    options = Options(d_model=8, depths=(1, 2), full_depths=(1, 2))
    found = full_gradients("post", 1, 3, options)
    model, batch = full_model("post", 1, 3, 8)
    model = model.double()

    @torch.no_grad()
    def loss():
        return label_smoothed_loss(model(batch.source, batch.target_in), batch.target_out).item()

    for layer, norm in zip((model.encoder[0], model.decoder[0]), found.gradients, strict=True):
        weight = layer.feed_forward.narrow.weight.detach().view(-1)
        slopes = []
        for index in range(len(weight)):
            before = weight[index].item()
            weight[index] = before + 1e-5
            above = loss()
            weight[index] = before - 1e-5
            below = loss()
            weight[index] = before
            slopes.append((above - below) / 2e-5)
        assert norm == pytest.approx(np.linalg.norm(slopes), rel=1e-3)


def test_the_stream_keeps_within_the_paper_s_bounds():
    """Lemma 2: under pre-norm the mean of ||x||^2 / d after l layers lies between 1 + l/2 and 1 + 3l/2; post-norm, 1."""
    options = Options(d_model=128, sequences=4)
    pre = np.mean([theory_gradients("pre", 24, seed, options).streams for seed in (1, 2, 3)], axis=0)
    depth = np.arange(1, 25)
    assert (pre > (1 + depth / 2) * 0.9).all()
    assert (pre < (1 + 3 * depth / 2) * 1.1).all()
    np.testing.assert_allclose(theory_gradients("post", 5, 1, options).streams, 1.0, rtol=1e-3)


@pytest.mark.slow
def test_the_two_laws(default_run):
    concluded = default_run("norm-gradients-at-init")[0][-1]
    assert concluded.verdict == "holds"
    assert concluded.numbers["post_exponent"] == pytest.approx(0.0, abs=0.15)
    assert concluded.numbers["pre_exponent"] == pytest.approx(-0.5, abs=0.15)
    assert concluded.seeds == (1, 2, 3, 4, 5)


@pytest.mark.slow
def test_the_laws_are_no_property_of_our_code():
    """The same from the paper's formulas alone, with seeds of its own, wider."""
    depths = [2, 4, 8, 16, 32, 64]
    exponents = {}
    for norm in ("post", "pre"):
        gradients = []
        for depth in depths:
            found = []
            for seed in range(100, 110):
                generator = torch.Generator().manual_seed(seed)
                layers = [
                    tuple(torch.randn(D, D, generator=generator) / math.sqrt(D) for _ in range(3))
                    for _ in range(depth)
                ]
                second = layers[-1][2].requires_grad_()
                *_, x = paper_stack(norm, torch.randn(LENGTH, D, generator=generator), layers)
                x = F.layer_norm(x, (D,)) if norm == "pre" else x
                head = torch.randn(64, D, generator=generator) / math.sqrt(D)
                loss = -(head @ x[0]).log_softmax(dim=0)[seed % 64]
                found.append(torch.autograd.grad(loss, second)[0].norm().item())
            gradients.append(np.mean(found))
        exponents[norm] = np.polyfit(np.log(depths), np.log(gradients), 1)[0]
    assert exponents["post"] == pytest.approx(0.0, abs=0.15)
    assert exponents["pre"] == pytest.approx(-0.5, abs=0.15)


def interval(low, high):
    return Interval(mean=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("post", "pre", "verdict"),
    [
        (interval(-0.1, 0.1), interval(-0.6, -0.4), "holds"),
        (interval(-0.149, 0.149), interval(-0.649, -0.351), "holds"),
        (interval(-0.1, 0.2), interval(-0.6, -0.4), "not decided"),
        (interval(-0.1, 0.1), interval(-0.6, -0.2), "not decided"),
        (interval(0.16, 0.3), interval(-0.6, -0.4), "does not hold"),
        (interval(-0.1, 0.1), interval(-0.3, 0.0), "does not hold"),
        (interval(-0.1, 0.1), interval(-1.0, -0.7), "does not hold"),
        (interval(math.nan, math.nan), interval(-0.6, -0.4), "not decided"),
    ],
)
def test_the_verdict_follows_the_rule(post, pre, verdict):
    assert verdict_of({"post": post, "pre": pre}) == verdict
