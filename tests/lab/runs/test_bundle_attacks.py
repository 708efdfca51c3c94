"""Bundles that somebody made to do harm: each is refused or made harmless, and none ends in anything else."""

import gzip
import io
import json
import struct
import time
import zipfile
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.runs.bundle import KEPT, MANIFEST, read_bundle, write_bundle
from lab.runs.laboratory import manifest_of
from lab.runs.problems import RunProblem
from lab.runs.series import series_of
from lab.runs.settings import Settings
from lab.runs.store import Run
from tests.lab.runs.conftest import TINY, write_own_pairs, zipped
from transformer.checkpoint import Snapshots, load, load_training_state
from transformer.recipe import Recipe, prepare
from transformer.training_folder import read_metrics, recorded_events

SNAPSHOTS = ("snapshots.safetensors", "snapshots.json")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A training of one's own pairs, with layers measured, that was stopped: everything that a bundle can hold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    write_own_pairs(folder / "data")
    recipe = Recipe.from_dict(
        {
            **TINY,
            "data": {"train": "train.tsv.gz", "dev": "dev.tsv.gz"},
            "training": {**TINY["training"], "layers_every": 5},
            "probes": [{"source": "1 2", "target": "2 1"}],
        }
    )
    prepared = prepare(recipe, folder / "data")
    for _event in recorded_events(prepared, folder, should_stop=lambda: prepared.trainer.step >= 20):
        pass
    torch.set_num_threads(threads)
    run = Run(
        id="abcdefgh", kind="training", name="swap", owner="ann", group="", state="failed", spec=recipe.to_dict(), step=23,
        steps=40, created=1.0, seconds=2.5, facts={},
    )  # fmt: skip
    return write_bundle(folder, manifest_of(run))


@pytest.fixture(scope="module")
def files(bundle):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


HERE = Settings(data=None)


def reason(content):
    with pytest.raises(RunProblem) as problem:
        read_bundle(content, settings=HERE)
    assert problem.value.code == "bad_bundle"
    assert str(problem.value).endswith(".")
    assert "/tmp" not in str(problem.value)
    return problem.value.details["reason"]


def with_recipe(files, section, **changes):
    manifest = json.loads(files[MANIFEST])
    if section == "probes":
        manifest["recipe"]["probes"] = changes["probes"]
    else:
        manifest["recipe"][section].update(changes)
    return zipped({**files, MANIFEST: json.dumps(manifest)})


def test_a_run_that_failed_comes_back_as_one_that_was_stopped(bundle, tmp_path):
    found = read_bundle(bundle, settings=HERE)
    assert (found.manifest["state"], found.manifest["step"]) == ("cancelled", 23)
    assert found.files.keys() == set(KEPT)
    found.unpack(tmp_path)
    assert load_training_state(tmp_path)[0].numbers["step"] == 20
    assert read_metrics(tmp_path) == found.records
    assert series_of(found.records)["layer_gradients"].values.shape == (5, 2)
    assert Snapshots.load(tmp_path).steps == [0, 1, 3, 12]
    assert load(tmp_path).config["step"] == 20
    steps = [
        event.step
        for event in recorded_events(prepare(found.recipe, tmp_path / "data"), tmp_path, resume=True)
    ]
    assert (steps[0], steps[-1]) == (21, 40)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_is_refused_or_does_not_matter(bundle, data):
    content = bytearray(bundle)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 5000))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
            case "repeat":
                content[at:at] = content[max(0, at - 500) : at]
        if not content:
            return
    try:
        found = read_bundle(bytes(content), settings=HERE)
    except RunProblem as problem:
        assert problem.code == "bad_bundle"  # noqa: PT017
    else:
        assert found.recipe.to_dict() == read_bundle(bundle, settings=HERE).recipe.to_dict()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_anywhere_in_its_json_is_refused_or_made_harmless(files, tmp_path_factory, data):
    name = data.draw(st.sampled_from([MANIFEST, "config.json", "snapshots.json", "source_vocabulary.json"]))
    given_values = json.loads(files[name])
    # Walk down to some place, and put something else there.
    place = given_values
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and data.draw(st.booleans()):
            place = inner
        else:
            break
    place[key] = data.draw(JSON)
    try:
        found = read_bundle(zipped({**files, name: json.dumps(given_values)}), settings=HERE)
    except RunProblem as problem:
        assert problem.code == "bad_bundle"  # noqa: PT017
        return
    folder = tmp_path_factory.mktemp("found")
    found.unpack(folder)
    config = load(folder).config
    assert Recipe.from_dict(config["recipe"]) == found.recipe
    assert isinstance(config["step"], int)
    if (folder / SNAPSHOTS[0]).exists():
        assert all(0 <= step <= 40 for step in Snapshots.load(folder).steps)


EVENT = st.fixed_dictionaries(
    {"event": st.sampled_from(["StepEnd", "Evaluated", "LayersMeasured", "Finished", "Evil"]) | JSON, "step": st.integers(-2, 45) | JSON},
    optional=dict.fromkeys(("loss", "gradients", "layers", "accuracy", "evil"), JSON),
)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENT, max_size=8))
def test_any_measurements_can_be_shown(files, events):
    lines = "".join(json.dumps(event) + "\n" for event in events)
    found = read_bundle(zipped({**files, "metrics.jsonl": lines}), settings=HERE)
    assert found.files["metrics.jsonl"] == "".join(json.dumps(each) + "\n" for each in found.records).encode()
    for name, series in series_of(found.records).items():
        assert ((series.steps >= 0) & (series.steps <= 40)).all()
        assert (series.steps[1:] > series.steps[:-1]).all()
        assert series.values.shape == (
            (len(series.steps), 2) if name.startswith("layer_") else (len(series.steps),)
        )


@pytest.mark.parametrize(
    "line",
    [
        b'{"step":' + b"9" * 5000 + b"}", b"[" * 200_000, b'{"event":"StepEnd","step":1' + b"0" * 30 + b',"loss":1}',
        b'{"event":"StepEnd","step":1,"loss":1' + b"0" * 400 + b"}", b'{"event":"StepEnd","step":true,"loss":1}',
        b'{"event":"StepEnd","step":-5,"loss":1}', b'{"event":["StepEnd"],"step":5,"loss":1}', b"\xff\xfe\x00",
        b'{"event":"LayersMeasured","step":5,"gradients":[1,2,3]}', b'{"event":"StepEnd","step":41,"loss":1}',
        b'{"event":"LayersMeasured","step":5,"gradients":1}', b'{"event":"StepEnd","step":1,"loss":[1,2]}',
    ],
)  # fmt: skip
def test_measurements_that_are_none_are_left_out(files, line):
    good = b'{"event":"StepEnd","step":2,"loss":NaN}'
    found = read_bundle(zipped({**files, "metrics.jsonl": line + b"\n" + good}), settings=HERE)
    series = series_of(found.records)
    assert series.keys() == {"train_loss"}
    assert series["train_loss"].steps.tolist() == [2]


def test_a_directory_of_a_million_files_is_not_even_read():
    entry = (
        struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
        + b"x"
    )
    directory = entry * 1_000_000
    for count in (0, 1, 10, 0xFFFF):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), 0, 0)
        began = time.process_time()
        assert reason(directory + end) == "bad_entry"
        assert time.process_time() - began < 0.5


def test_the_end_of_an_archive_of_more_than_4_gigabytes_is_refused(bundle):
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    at = bundle.rindex(b"PK\5\6")
    assert reason(bundle[:at] + locator + bundle[at:]) == "bad_entry"


def test_an_archive_with_something_before_or_a_comment_is_read(bundle):
    buffer = io.BytesIO(bundle)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"hello"
    assert read_bundle(buffer.getvalue(), settings=HERE).manifest["name"] == "swap"


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(files, how):
    assert reason(zipped(files, how)) == "bad_entry"


def test_a_file_with_a_password_is_refused(bundle):
    # Bit 0 of the flags, in the first local header and its entry in the directory.
    content = bytearray(bundle)
    content[6] |= 1
    content[bundle.index(b"PK\1\2") + 8] |= 1
    assert reason(bytes(content)) == "bad_entry"


def test_what_hides_behind_the_end_of_gzipped_pairs_is_refused(files):
    bomb = files["data/train.tsv.gz"] + gzip.compress(b"a\tb\n" * 10**6)
    assert reason(zipped({**files, "data/train.tsv.gz": bomb})) == "bad_data"


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {"train": 5, "dev": 5}), ("data", {"train": ["a"], "dev": ["a"]}), ("data", {"task": ["copy"], "train": "", "dev": ""}),
        ("data", {"task": "evil", "train": "", "dev": ""}), ("data", {"train": "a\0b"}), ("data", {"train": "data\\..\\..\\x"}),
        ("probes", {"probes": [{"source": 5, "target": 7}]}), ("probes", {"probes": 5}), ("probes", {"probes": [5]}),
        ("model", {"d_model": 16.0}), ("model", {"norm": ["pre"]}), ("training", {"steps": 10**7}), ("training", {"peak": "x"}),
        ("source_vocabulary", {"level": {}}),
    ],
)  # fmt: skip
def test_recipes_with_values_of_another_kind_are_refused(files, section, changes):
    assert reason(with_recipe(files, section, **changes)) == "bad_recipe"


@pytest.mark.parametrize(
    "manifest",
    [
        {"step": 41}, {"state": "succeeded"}, {"seconds": float("inf")}, {"seconds": 10**400}, {"seconds": True},
        {"format": 1.5}, {"name": "a\u202eb"}, {"name": "\ud800"},
    ],
)  # fmt: skip
def test_manifests_with_values_that_cannot_be_are_refused(files, manifest):
    content = zipped({**files, MANIFEST: json.dumps({**json.loads(files[MANIFEST]), **manifest})})
    assert reason(content) == "bad_manifest"


def test_a_manifest_with_a_number_too_long_to_read_is_refused(files):
    assert reason(zipped({**files, MANIFEST: b'{"format":' + b"1" * 5000 + b"}"})) == "bad_manifest"


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "bfloat16", "int64", "bool", "float64", "complex64", "uint8"]
)
def test_weights_of_an_unusual_kind_are_refused(files, dtype):
    weights = safetensors.torch.load(files["model.safetensors"])
    # Without a checksum, which files that are older have not either.
    content = safetensors.torch.save(
        {name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}
    )
    assert reason(zipped({**files, "model.safetensors": content})) == "bad_model"


@pytest.mark.parametrize("name", ["config.json", "source_vocabulary.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"{}", b"\xff", b"[]", b"null", b'{"format":1,"model":[],"recipe":{}}']
)
def test_a_model_whose_files_are_none_is_refused(files, name, content):
    assert reason(zipped({**files, name: content})) == "bad_model"


def test_a_table_of_positions_that_takes_gigabytes_is_refused(files):
    config = json.loads(files["config.json"])
    manifest = json.loads(files[MANIFEST])
    for model in (config["model"], manifest["recipe"]["model"]):
        model |= {"d_model": 65536, "max_length": 65536, "d_ff": 1, "encoder_layers": 0, "decoder_layers": 0}
    content = zipped(
        {
            **files, "config.json": json.dumps(config), MANIFEST: json.dumps(manifest),
            "model.safetensors": b"\0" * 5_000_000,
        }
    )  # fmt: skip
    assert reason(content) == "bad_model"


@pytest.mark.parametrize("kind", ["name", "shape", "tokens", "missing", "probes", "step", "length", "nested"])
def test_attention_that_is_not_of_this_training_is_left_out(files, kind):
    tensors = safetensors.torch.load(files[SNAPSHOTS[0]])
    description = json.loads(files[SNAPSHOTS[1]])
    first = next(iter(tensors))
    match kind:
        case "name":
            tensors = {name.replace("/", ""): tensor for name, tensor in tensors.items()}
        case "shape":
            tensors[first] = torch.zeros(1)
        case "tokens":
            description["probes"] = [{"source": [5], "target": [None], "predicted": ["a"]}]
        case "missing":
            del tensors[first]
        case "probes":
            description["probes"] = []
        case "step":
            tensors = {name.replace("/12/", f"/{10**30}/"): tensor for name, tensor in tensors.items()}
            description["steps"][-1] = 10**30
        case "length":
            description["probes"][0]["source"].append("more")
    text = "[" * 200_000 if kind == "nested" else json.dumps(description)
    content = zipped({**files, SNAPSHOTS[0]: safetensors.torch.save(tensors), SNAPSHOTS[1]: text})
    assert not set(SNAPSHOTS) & set(read_bundle(content, settings=HERE).files)


def test_more_attention_than_there_is_to_see_is_left_out(files, tmp_path):
    tensors = {**safetensors.torch.load(files[SNAPSHOTS[0]]), "7/12/evil": torch.zeros(99)}
    found = read_bundle(zipped({**files, SNAPSHOTS[0]: safetensors.torch.save(tensors)}), settings=HERE)
    kept = safetensors.torch.load(found.files[SNAPSHOTS[0]])
    assert kept.keys() == tensors.keys() - {"7/12/evil"}
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)


@pytest.mark.parametrize("kind", ["garbage", "origin", "no origin", "numbers", "random", "later"])
def test_a_state_from_which_nothing_can_go_on_is_refused(files, kind):
    name = "training_state.safetensors"
    tensors = safetensors.torch.load(files[name])
    with_metadata = {
        "numbers": '{"step": 20, "epoch": 1, "batch_in_epoch": 0}',
        "origin": '{"recipe": {}, "vocabularies": ""}',
    }
    recipe = json.loads(files[MANIFEST])["recipe"]
    own = json.dumps({"recipe": recipe, "vocabularies": ""})
    match kind:
        case "origin":
            pass
        case "no origin":
            with_metadata["origin"] = "5"
        case "numbers":
            with_metadata |= {"origin": own, "numbers": '{"step": 20, "epoch": -1}'}
        case "later":
            with_metadata |= {"origin": own, "numbers": '{"step": 41, "epoch": 1}'}
        case "random":
            with_metadata["origin"] = own
            tensors["random_state"] = torch.zeros(3)
    content = b"no" if kind == "garbage" else safetensors.torch.save(tensors, with_metadata)
    assert reason(zipped({**files, name: content})) == "bad_model"


def test_what_the_configuration_says_beside_its_model_is_not_believed(files, tmp_path):
    config = json.loads(files["config.json"])
    for wrong in (
        {"recipe": {"probes": 5}},
        {"step": "many"},
        {"step": 10**9},
        {"versions": 5},
        {"versions": {"torch": {}}},
    ):
        found = read_bundle(zipped({**files, "config.json": json.dumps({**config, **wrong})}), settings=HERE)
        kept = json.loads(found.files["config.json"])
        assert kept["recipe"] == found.recipe.to_dict() | {"probes": [{"source": "1 2", "target": "2 1"}]}
        assert kept["step"] in (20, 23)
        assert isinstance(kept["versions"]["torch"], str)


def test_a_model_that_is_not_allowed_here_is_refused(bundle):
    with pytest.raises(RunProblem) as problem:
        read_bundle(bundle, settings=replace(HERE, most_parameters=1000))
    assert problem.value.details == {"reason": "bad_model"}
