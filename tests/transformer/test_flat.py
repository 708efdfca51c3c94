"""Weights in two vectors: the same model, the same gradients, and the same steps as torch's optimiser one by one."""

import copy

import pytest
import torch

from transformer.flat import FlatParameters
from transformer.loss import label_smoothed_loss
from transformer.optim import build_optimizer


@pytest.fixture
def models(make_model):
    plain = make_model()
    return plain, copy.deepcopy(plain)


def test_the_model_stays_what_it_was(models, batch):
    plain, model = models
    before = model(*batch)
    flat = FlatParameters(model)
    assert torch.equal(model(*batch), before)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert model.output_projection.weight is model.target_embedding.weight
    assert sum(vector.numel() for vector in flat.vectors) == model.num_parameters()


def test_vectors_and_parameters_are_the_same_memory(models):
    _, model = models
    flat = FlatParameters(model)
    with torch.no_grad():
        flat.matrices.fill_(2.0)
        flat.others.fill_(3.0)
    for parameter in model.parameters():
        assert (parameter == (2.0 if parameter.dim() >= 2 else 3.0)).all()
    with torch.no_grad():
        model.encoder[0].feed_forward.widen.weight.fill_(5.0)
    assert (flat.matrices == 5.0).sum() == model.encoder[0].feed_forward.widen.weight.numel()


def test_steps_against_torch_s_optimiser_on_single_parameters(models, batch):
    plain, model = models
    flat = FlatParameters(model)
    ours = build_optimizer(flat, betas=(0.9, 0.98), epsilon=1e-3, weight_decay=0.1)
    theirs = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in plain.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        eps=1e-3,
        fused=False,
    )
    source, target = batch
    for group in (*ours.param_groups, *theirs.param_groups):
        group["lr"] = 1e-2
    for _ in range(5):
        flat.zero_gradients()
        theirs.zero_grad()
        for each in (model, plain):
            label_smoothed_loss(each(source, target)[:, :-1], target[:, 1:]).backward()
        norms = [
            torch.nn.utils.clip_grad_norm_(vectors, 0.5) for vectors in (flat.vectors, plain.parameters())
        ]
        assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-5)
        for one, other in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-4)
        ours.step()
        theirs.step()
        for one, other in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)


def test_a_gradient_that_somebody_took_away_comes_back(models, batch):
    _, model = models
    flat = FlatParameters(model)
    flat.zero_gradients()
    model.zero_grad(set_to_none=True)
    flat.zero_gradients()
    model(*batch).square().sum().backward()
    assert flat.matrices.grad.norm() > 0
    assert torch.equal(
        flat.by_name([flat.matrices.grad, flat.others.grad])["encoder.0.feed_forward.widen.weight"],
        model.encoder[0].feed_forward.widen.weight.grad,
    )
    flat.zero_gradients()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_filled_by_name(models):
    plain, model = models
    flat = FlatParameters(model)
    tensors = {f"old.{name}": parameter.detach() + 1.0 for name, parameter in plain.named_parameters()}
    vectors = [torch.zeros_like(vector) for vector in flat.vectors]
    flat.fill(vectors, tensors, "old.")
    for name, tensor in flat.by_name(vectors).items():
        assert torch.equal(tensor, tensors[f"old.{name}"])
    del tensors["old.target_embedding.weight"]
    with pytest.raises(KeyError, match=r"old\.target_embedding\.weight"):
        flat.fill(vectors, tensors, "old.")


def test_a_model_without_layers_has_no_vectors_but_matrices(make_model):
    model = make_model(encoder_layers=0, decoder_layers=0)
    flat = FlatParameters(model)
    assert flat.others.numel() == 0
    optimizer = build_optimizer(flat, betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.0)
    flat.zero_gradients()
    optimizer.step()
