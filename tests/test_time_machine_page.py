"""The page of the time machine over trainings that are whole, at work, empty, damaged or diverged."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from streamlit.testing.v1 import AppTest

from lab.ui import checkpoints, time_machine_view
from transformer.recipe import Recipe, prepare
from transformer.train import Evaluated
from transformer.training_folder import recorded_events

ROOT = Path(__file__).parents[1]
TINY = {
    "data": {"task": "copy", "task_train": 200, "task_dev": 20},
    "source_vocabulary": {"level": "word"},
    "target_vocabulary": {"level": "word"},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 2},
    "training": {
        "steps": 20, "batch_tokens": 100, "evaluate_every": 5, "probe_count": 6, "schedule": "linear",
        "peak": 1e-2, "warmup_steps": 3,
    },
    "probes": [{"source": "1 2 3", "target": "1 2 3"}, {"source": "4 4", "target": "4 4"}],
}  # fmt: skip


@pytest.fixture
def one_thread():
    """A second thread makes a small training slower on a busy machine, many times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drawn(monkeypatch):
    """What the picture was given, the last time last."""
    calls = []
    draw = time_machine_view.time_machine_view

    def record(payload, moment, **named):
        calls.append((payload, moment))
        return draw(payload, moment, **named)

    monkeypatch.setattr(time_machine_view, "time_machine_view", record)
    return calls


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder of a copy of the checkpoint ``reverse``, which the page takes for the shipped one."""
    folder = tmp_path / "checkpoints" / "reverse"
    shutil.copytree(checkpoints.CHECKPOINTS / "reverse", folder)
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", folder.parent)
    return folder


def visit(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in {"lang": "en", **query}.items():
        app.query_params[name] = value
    app.run()
    app.switch_page("pages/time_machine.py").run()
    assert not app.exception, app.exception
    return app


def said(app) -> str:
    return " ".join(message.value for message in [*app.error, *app.info])


def test_it_opens_on_reverse_at_its_last_step_with_its_sharpest_head(drawn):
    app = visit()
    payload, moment = drawn[-1]
    assert (payload["source"], payload["map"], payload["probe"]) == ("reverse", "cross", 0)
    assert (moment.layer, moment.head, moment.step) == (0, 1, 2000)
    assert payload["share"] is not None
    asked = {name: app.query_params[name] for name in ("layer", "head", "step")}
    assert asked == {"layer": "1", "head": "2", "step": "2000"}
    assert app.selectbox(key="probe").options == ["3 1 4 1 5 9 2 6", "2 7 1 8 2", "0 1 2 3 4 5 6 7 8 9"]
    assert not said(app)


def test_what_the_address_asks_for_is_shown(drawn):
    visit(checkpoint="zh-en", probe="2", map="decoder", layer="3", head="5", step="300")
    payload, moment = drawn[-1]
    assert (payload["source"], payload["map"], payload["probe"]) == ("zh-en", "decoder", 1)
    # 296 is the recorded step that is nearest to 300.
    assert (moment.layer, moment.head, moment.step) == (2, 4, 296)
    assert payload["share"] is None


@pytest.mark.parametrize("step", ["", "-3", "waves", "²", "9" * 5000, "1e3"])
def test_what_the_address_gets_wrong_is_passed_over(drawn, step):
    visit(checkpoint="../reverse", probe="x", map="y", layer="0", head="99", step=step)
    _, moment = drawn[-1]
    assert (moment.layer, moment.head, moment.step) == (0, 1, 2000)


def test_a_run_that_is_not_there_is_said_and_the_page_opens_all_the_same(lab, drawn):
    app = visit(checkpoint="run-nowhere")
    assert "There is no run nowhere here" in app.warning[0].value
    assert drawn[-1][0]["source"] == "reverse"


def test_each_kind_of_attention_keeps_its_head_and_all_keep_the_step(drawn):
    app = visit(checkpoint="reverse", map="cross", layer="2", head="4", step="77")
    app.segmented_control(key="map").set_value("encoder").run()
    payload, moment = drawn[-1]
    assert (payload["map"], moment.step) == ("encoder", 77)
    assert (moment.layer, moment.head) == (1, 1)
    app.segmented_control(key="map").set_value("cross").run()
    _, moment = drawn[-1]
    assert (moment.layer, moment.head, moment.step) == (1, 3, 77)


def test_a_training_at_work_is_offered_and_gains_steps(lab, drawn, one_thread):
    recipe = Recipe.from_dict(TINY)
    run_id = lab.store.add(
        kind="training", name="tiny", owner="me", group="", spec=recipe.to_dict(), steps=20, state="running"
    )
    name = f"run-{run_id}"
    # Nothing is there yet: not offered, but whoever asks for it gets a sentence.
    assert name not in time_machine_view.training_titles(None)
    assert "has recorded no attention" in said(visit(checkpoint=name))
    folder, done = lab.folder(run_id), []
    for event in recorded_events(prepare(recipe), folder, should_stop=done.__len__):
        if isinstance(event, Evaluated):
            done.append(event)
    app = visit(checkpoint=name, layer="2", head="2")
    payload, moment = drawn[-1]
    assert payload["source"] == name
    assert "running" in time_machine_view.training_titles(None)[name]
    assert payload["steps"][0] == 0
    assert payload["steps"][-1] <= payload["curves"]["last"] == 5
    assert moment.step == payload["steps"][-1]
    for _ in recorded_events(prepare(recipe), folder, resume=True):
        pass
    app.run()
    grown, moment = drawn[-1]
    assert grown["steps"][: len(payload["steps"])] == payload["steps"]
    assert grown["steps"][-1] == 20
    assert (moment.layer, moment.head) == (1, 1)
    # The sentence that was recorded, in the words of the recipe; copying has a right place.
    assert app.selectbox(key="probe").options == ["1 2 3", "4 4"]
    assert np.isfinite(np.array(grown["share"], dtype=float)).all()


def test_a_diverged_run_shows_where_its_loss_ended(lab, drawn, copies):
    run_id = lab.store.add(
        kind="training", name="too hot", owner="me", group="", spec=Recipe.from_dict(TINY).to_dict(), steps=2000,
        state="failed", error={"code": "diverged", "step": 300},
    )  # fmt: skip
    shutil.copytree(copies, lab.folder(run_id), dirs_exist_ok=True)
    lines = [json.loads(line) for line in (copies / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["step"] > 300 and "loss" in line:
            line["loss"] = math.nan
    (lab.folder(run_id) / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"event": "StepEnd", "st', encoding="utf-8"
    )
    app = visit(checkpoint=f"run-{run_id}")
    curves = drawn[-1][0]["curves"]
    assert (curves["train"]["broken"], curves["dev"]["broken"]) == (302, 500)
    assert curves["train"]["steps"][-1] == 300
    assert not said(app)


def test_without_metrics_the_attention_is_still_there(copies, drawn):
    (copies / "metrics.jsonl").unlink()
    app = visit()
    assert drawn[-1][0]["curves"] is None
    assert not said(app)


def test_a_single_snapshot_and_a_configuration_that_cannot_be_read(copies, drawn):
    tensors = safetensors.torch.load_file(copies / "snapshots.safetensors")
    first = {name: tensor for name, tensor in tensors.items() if name.split("/")[1] == "0"}
    safetensors.torch.save_file(first, copies / "snapshots.safetensors")
    description = json.loads((copies / "snapshots.json").read_text(encoding="utf-8"))
    (copies / "snapshots.json").write_text(json.dumps({**description, "steps": [0]}), encoding="utf-8")
    (copies / "config.json").write_text("{}", encoding="utf-8")
    app = visit()
    payload, moment = drawn[-1]
    assert (payload["steps"], moment.step) == ([0], 0)
    assert payload["share"] is None
    assert app.selectbox(key="probe").options[0] == "3 1 4 1 5 9 2 6"
    assert not said(app)


def test_a_training_without_snapshots_is_answered_in_a_sentence(copies):
    for path in copies.glob("snapshots.*"):
        path.unlink()
    assert "has recorded no attention" in said(visit())
    assert "没有记录注意力" in said(visit(lang="zh"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("snapshots.safetensors", b"not tensors"),
        ("snapshots.safetensors", None),
        ("snapshots.json", b"{"),
        ("snapshots.json", b'{"steps": [0], "probes": []}'),
        ("snapshots.json", b"[]"),
        ("snapshots.json", b"\xff\xfe"),
    ],
)
def test_damaged_snapshots_are_answered_in_a_sentence(copies, name, content):
    if content is None:
        (copies / name).unlink()
    else:
        (copies / name).write_bytes(content)
    assert "is damaged" in said(visit())
    assert "已经损坏" in said(visit(lang="zh"))


def test_tensors_that_are_no_snapshots_are_answered_in_a_sentence(copies):
    safetensors.torch.save_file(
        safetensors.torch.load_file(copies / "model.safetensors"), copies / "snapshots.safetensors"
    )
    assert "is damaged" in said(visit())


def test_tokens_that_do_not_fit_the_weights_are_answered_in_a_sentence(copies):
    description = json.loads((copies / "snapshots.json").read_text(encoding="utf-8"))
    description["probes"][0]["source"].append("more")
    (copies / "snapshots.json").write_text(json.dumps(description), encoding="utf-8")
    assert "is damaged" in said(visit())


def test_without_any_checkpoint_it_says_how_to_make_one(tmp_path, monkeypatch, lab):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    assert "make checkpoint-reverse" in said(visit())
