"""Bundles: what goes out comes back, repeats itself bit for bit, and nothing that was tampered with gets in."""

import gzip
import io
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lab.runs.bundle import MANIFEST, read_bundle, write_bundle
from lab.runs.laboratory import manifest_of
from lab.runs.problems import RunProblem
from lab.runs.series import series_of
from lab.runs.settings import Settings
from lab.runs.store import Run
from tests.lab.runs.conftest import TINY, write_own_pairs, zipped
from transformer.checkpoint import load, read_tensors
from transformer.recipe import Recipe, prepare
from transformer.training_folder import read_metrics, recorded_events

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training of pairs of one's own, and its run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    write_own_pairs(folder / "data")
    recipe = Recipe.from_dict({**TINY, "data": {"train": "train.tsv.gz", "dev": "dev.tsv.gz"}})
    for _event in recorded_events(prepare(recipe, folder / "data"), folder):
        pass
    torch.set_num_threads(threads)
    run = Run(
        id="abcdefgh", kind="training", name="swap 交换", owner="ann", group="", state="succeeded",
        spec=recipe.to_dict(), step=40, steps=40, created=1.0, seconds=2.5, facts={"parameters": 1, "layers": ["encoder.0"]},
    )  # fmt: skip
    return folder, run


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "home")


@pytest.fixture(scope="module")
def bundle(trained):
    folder, run = trained
    return write_bundle(folder, manifest_of(run))


def entries(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def changed(bundle, **manifest):
    files = entries(bundle)
    return zipped({**files, MANIFEST: json.dumps({**json.loads(files[MANIFEST]), **manifest})})


def test_what_goes_out_comes_back(trained, bundle, settings, tmp_path):
    folder, run = trained
    found = read_bundle(bundle, settings=settings)
    assert found.recipe.to_dict() == run.spec
    model = load(folder).model
    # The run of this test says one parameter and one layer; what the model itself tells is not taken from there.
    assert found.manifest == {
        "name": "swap 交换", "state": "succeeded", "step": 40, "seconds": 2.5,
        "facts": {
            "parameters": model.num_parameters(), "layers": ["encoder.0", "decoder.0"],
            "source_size": model.config.source_size, "target_size": model.config.target_size,
        },
    }  # fmt: skip
    found.unpack(tmp_path / "back")
    for name, tensor in read_tensors(folder / "model.safetensors")[0].items():
        assert torch.equal(read_tensors(tmp_path / "back" / "model.safetensors")[0][name], tensor)
    assert load(tmp_path / "back").hash == load(folder).hash
    assert found.records == read_metrics(folder)
    assert not (tmp_path / "back" / "training_state.safetensors").exists()
    assert (tmp_path / "back" / "data" / "train.tsv.gz").read_bytes() == (
        folder / "data" / "train.tsv.gz"
    ).read_bytes()


def test_a_bundle_repeats_itself_bit_for_bit(bundle, tmp_path):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "repeat.py"), str(ROOT)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "the same weights, bit for bit" in done.stdout


def test_the_script_tells_weights_that_differ(bundle, tmp_path):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path)
    recipe = (tmp_path / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(recipe.replace("seed = 1\n", "seed = 2\n"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "repeat.py"), str(ROOT)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert "the weights differ by at most" in done.stdout


def test_export_and_import_through_the_laboratory(lab, recipe, until):
    run_id = lab.start(recipe(), name="copy", owner="ann")
    until(run_id, "succeeded")
    again = lab.import_bundle(lab.export(run_id), "bob")
    before, after = lab.get(run_id), lab.get(again)
    assert (after.name, after.owner, after.state, after.step, after.spec) == (
        before.name, "bob", "succeeded", before.step, before.spec,
    )  # fmt: skip
    assert load(lab.folder(again)).hash == load(lab.folder(run_id)).hash
    names = lab.series_names([run_id])
    first, second = lab.series([run_id], names), lab.series([again], lab.series_names([again]))
    for name in names:
        assert first[run_id, name].values.tolist() == second[again, name].values.tolist()
    assert [entry.kind for entry in lab.log(again)] == ["created", "imported"]


def test_a_stopped_run_goes_on_elsewhere(lab, recipe, until):
    run_id = lab.start(recipe(steps=4000, evaluate_every=500), name="copy", owner="ann")
    until(run_id, lambda run: run.step > 20)
    lab.stop(run_id)
    stopped = until(run_id, "cancelled")
    again = lab.import_bundle(lab.export(run_id), "bob")
    lab.resume(again)
    until(again, lambda run: run.step > stopped.step)
    (resumed,) = [entry for entry in lab.log(again) if entry.kind == "resumed"]
    assert resumed.details["step"] == stopped.step
    lab.stop(again)
    until(again, "cancelled")


def test_a_shipped_training_can_be_taken_away(lab):
    found = read_bundle(lab.export("shipped-reverse"), settings=lab.settings)
    assert found.manifest["name"] == "reverse"
    assert series_of(found.records)["dev_loss"].steps[-1] == 2000


def test_a_run_without_a_model_has_no_bundle(lab, recipe):
    run_id = lab.start(recipe(), name="copy", owner="ann")
    with pytest.raises(RunProblem, match="has saved no model"):
        lab.export(run_id)
    lab.stop(run_id)


def refused(content, settings, reason, words=""):
    before = sorted(settings.data.rglob("*")) if settings.data.exists() else []
    with pytest.raises(RunProblem) as problem:
        read_bundle(content, settings=settings)
    assert (problem.value.code, problem.value.details["reason"]) == ("bad_bundle", reason), str(problem.value)
    assert words in str(problem.value)
    assert before == (sorted(settings.data.rglob("*")) if settings.data.exists() else [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 500,
        b"PK\x03\x04" + b"\0" * 100,
        b"PK\x05\x06" + b"\0" * 18,
    ],
)
def test_what_is_no_archive_is_refused(content, settings):
    refused(content, settings, "incomplete" if content.startswith(b"PK\x05") else "not_a_zip")


def test_a_cut_or_flipped_archive_is_refused(bundle, settings):
    refused(bundle[: len(bundle) // 2], settings, "not_a_zip")
    flipped = bytearray(bundle)
    flipped[len(bundle) // 2] ^= 0xFF
    with pytest.raises(RunProblem):
        read_bundle(bytes(flipped), settings=settings)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "/etc/cron.d/evil", "..\\evil.py", "C:\\evil.py", "data/../../evil", "sub/model.safetensors",
        "MODEL.safetensors", "evil.py", "data/", "training.pkl",
    ],
)  # fmt: skip
def test_files_that_have_no_place_are_refused(bundle, settings, name):
    refused(zipped({**entries(bundle), name: b"x"}), settings, "bad_entry", "no place")


def test_a_link_is_refused(bundle, settings):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries(bundle).items():
            entry = zipfile.ZipInfo(name)
            if name == "metrics.jsonl":
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = b"/etc/passwd"
            archive.writestr(entry, content)
    refused(buffer.getvalue(), settings, "bad_entry", "no plain file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(bundle, settings):
    buffer = io.BytesIO(bundle)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("config.json", b"{}")
    refused(buffer.getvalue(), settings, "bad_entry", "twice")


def test_a_bomb_is_refused_before_it_goes_off(bundle, settings):
    """A gigabyte of zeros in a megabyte; and one whose archive lies about it."""
    files = entries(bundle)
    bomb = zipped({**files, "metrics.jsonl": b"\0" * 300_000_000})
    assert len(bomb) < 1_000_000
    refused(bomb, settings, "too_large", "unpacked")
    # The size that the archive claims is not what is inside.
    lying = bomb.replace((300_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != bomb
    refused(lying, settings, "not_a_zip")


def test_a_bomb_inside_the_data_is_refused(bundle, settings):
    files = entries(bundle)
    files["data/train.tsv.gz"] = gzip.compress(b"a\tb\n" * 100_000_000, 1)
    refused(zipped(files), settings, "too_large")


def test_too_many_bytes_are_refused_unread(bundle, settings):
    refused(bundle, replace(settings, bundle_bytes=1000), "too_large")


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.safetensors", "config.json", "metrics.jsonl", "source_vocabulary.json"]
)
def test_a_missing_file_is_named(bundle, settings, name):
    files = entries(bundle)
    del files[name]
    refused(zipped(files), settings, "incomplete", name)


@pytest.mark.parametrize(
    "manifest",
    [
        {"format": 2}, {"name": ""}, {"name": 3}, {"name": "a\nb"}, {"name": "x" * 1000}, {"state": "running"},
        {"state": ["succeeded"]}, {"step": -1}, {"step": 1.5}, {"step": True}, {"step": 10**30},
        {"seconds": "long"}, {"seconds": float("nan")}, {"seconds": -1},
    ],
)  # fmt: skip
def test_a_manifest_is_checked_value_by_value(bundle, settings, manifest):
    refused(changed(bundle, **manifest), settings, "bad_manifest")


@pytest.mark.parametrize("content", [b"[]", b"not json", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_manifest_that_is_none_is_refused(bundle, settings, content):
    refused(zipped({**entries(bundle), MANIFEST: content}), settings, "bad_manifest")


@pytest.mark.parametrize(
    "recipe",
    [
        None, [], {}, {**TINY, "data": {"task": "copy"}, "model": {"d_model": 10**9}}, {**TINY, "evil": 1},
        {**TINY, "data": {"train": "../../etc/passwd", "dev": "x"}}, {**TINY, "data": {"train": "/etc/passwd", "dev": "x"}},
        {**TINY, "data": {"train": "x", "dev": "C:\\secret"}}, {**TINY, "probes": 3},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_used_is_refused(bundle, settings, recipe):
    refused(changed(bundle, recipe=recipe), settings, "bad_recipe")


def with_config(bundle, **model):
    files = entries(bundle)
    config, manifest = json.loads(files["config.json"]), json.loads(files[MANIFEST])
    config["model"].update(model)
    manifest["recipe"]["model"].update({k: v for k, v in model.items() if not k.endswith("_size")})
    return zipped({**files, "config.json": json.dumps(config), MANIFEST: json.dumps(manifest)})


@pytest.mark.parametrize(
    "model",
    [
        {"d_model": 65536, "d_ff": 65536, "encoder_layers": 1000},
        {"max_length": 65536, "d_model": 4096},
        {"encoder_layers": 1000},
        {"target_size": 60000},
        {"d_model": 32},
    ],
)
def test_a_model_that_is_not_what_its_weights_are_is_refused_before_it_is_made(bundle, settings, model):
    refused(with_config(bundle, **model), settings, "bad_model")


def test_a_configuration_of_another_recipe_is_refused(bundle, settings):
    files = entries(bundle)
    config = json.loads(files["config.json"])
    config["model"]["num_heads"] = 4
    refused(
        zipped({**files, "config.json": json.dumps(config)}), settings, "bad_model", "not that of the recipe"
    )


def test_damaged_weights_are_refused_and_damaged_snapshots_left_out(bundle, settings):
    files = entries(bundle)
    weights = bytearray(files["model.safetensors"])
    weights[-3] ^= 1
    refused(zipped({**files, "model.safetensors": bytes(weights)}), settings, "bad_model", "damaged")
    found = read_bundle(zipped({**files, "snapshots.safetensors": b"no"}), settings=settings)
    assert "snapshots.json" not in found.files


def test_damaged_pairs_are_refused(bundle, settings):
    files = entries(bundle)
    for content in (
        b"no gzip",
        gzip.compress(b"one column\n"),
        files["data/train.tsv.gz"][:-9],
        gzip.compress(b"\xff\t\xfe\n"),
    ):
        refused(zipped({**files, "data/train.tsv.gz": content}), settings, "bad_data")
    del files["data/dev.tsv.gz"]
    refused(zipped(files), settings, "incomplete")


def test_facts_that_are_none_are_left_out(bundle, settings):
    facts = {
        "parameters": "many",
        "train_pairs": 7,
        "layers": [1],
        "evil": {},
        "dropped": -1,
        "dev_pairs": 10**30,
    }
    found = read_bundle(changed(bundle, facts=facts), settings=settings).manifest["facts"]
    assert found.keys() == {"train_pairs", "parameters", "source_size", "target_size", "layers"}
    assert (found["train_pairs"], found["layers"]) == (7, ["encoder.0", "decoder.0"])


def test_an_import_that_fails_leaves_nothing(lab, bundle):
    with pytest.raises(RunProblem):
        lab.import_bundle(changed(bundle, state="running"), "ann")
    assert lab.store.runs() == []
    assert not list((lab.settings.data / "runs").glob("*"))
    shutil.rmtree(lab.settings.data / "runs", ignore_errors=True)
