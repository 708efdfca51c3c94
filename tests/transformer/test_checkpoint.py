"""Checkpoints: what ships, what comes back, and what a damaged one says."""

import ast
import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from transformer.checkpoint import Snapshots, load, save_description, save_weights
from transformer.data.tasks import task
from transformer.recipe import read_recipe
from transformer.translate import translate

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "assets" / "checkpoints"
SHIPPED = ("en-zh", "zh-en", "reverse", "sort", "anaphora")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_small_made_by_its_recipe_and_recorded_while_it_grew(name):
    folder = CHECKPOINTS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert not (folder / "training_state.safetensors").exists()
    checkpoint = load(folder)
    recipe = read_recipe(ROOT / "assets" / "recipes" / f"{name}.toml")
    assert checkpoint.config["recipe"] == json.loads(json.dumps(recipe.to_dict()))
    assert checkpoint.config["step"] == recipe.training.steps

    snapshots = Snapshots.load(folder)
    assert 12 <= len(snapshots.steps) <= 16
    assert (snapshots.steps[0], snapshots.steps[-1]) == (0, recipe.training.steps)
    for step in snapshots.steps:
        weights = snapshots.weights(0, step, "encoder.0.self_attention.weights")
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", ["reverse", "sort", "anaphora"])
def test_the_toy_models_do_what_they_were_made_for(name):
    examples = task(name).examples(seed=987, count=200)
    written = translate(load(CHECKPOINTS / name), [example.source for example in examples], beam=1)
    right = sum(text == example.target for text, example in zip(written, examples, strict=True))
    assert right >= 198


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    first = load(CHECKPOINTS / "reverse")
    save_weights(tmp_path, first.model)
    save_description(
        tmp_path, model=first.model, source_vocabulary=first.source_vocabulary,
        target_vocabulary=first.target_vocabulary, recipe=first.config["recipe"], step=7,
    )  # fmt: skip
    second = load(tmp_path)
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 8]])
    with torch.no_grad():
        assert torch.equal(first.model(source, target), second.model(source, target))
    assert second.config["step"] == 7
    assert second.hash != first.hash
    assert not second.model.training
    assert load(CHECKPOINTS / "reverse").hash == first.hash


def damaged(tmp_path, name, content):
    folder = tmp_path / "damaged"
    shutil.copytree(CHECKPOINTS / "reverse", folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return folder


class Harm:
    def __reduce__(self):
        return (exit, ("unpickled",))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "source_vocabulary.json", "target_vocabulary.json"]
)
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"{}",
        pickle.dumps(Harm()),
        (2**63).to_bytes(8, "little"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(damaged(tmp_path, name, content))


@pytest.mark.parametrize("change", ["missing", "shape", "nan"])
def test_weights_that_do_not_fit_are_named(tmp_path, change):
    tensors = safetensors.torch.load_file(CHECKPOINTS / "reverse" / "model.safetensors")
    name = sorted(tensors)[0]
    if change == "missing":
        del tensors[name]
    elif change == "shape":
        tensors[name] = tensors[name][:1].clone()
    else:
        tensors[name].view(-1)[0] = math.nan
    folder = damaged(tmp_path, "model.safetensors", safetensors.torch.save(tensors))
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(folder)


def test_vocabularies_of_another_size_are_refused(tmp_path):
    other = (CHECKPOINTS / "anaphora" / "source_vocabulary.json").read_bytes()
    with pytest.raises(ValueError, match="tokens"):
        load(damaged(tmp_path, "source_vocabulary.json", other))


def test_nothing_is_ever_unpickled():
    for path in [
        ROOT / "app.py",
        *(ROOT / "pages").glob("*.py"),
        *ROOT.glob("transformer/**/*.py"),
        *ROOT.glob("lab/**/*.py"),
    ]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & {
                    "pickle",
                    "joblib",
                    "dill",
                }, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
