"""The time machine as a person uses it, its numbers held against the files of the snapshots."""

import json
import math
import re
import shutil
import time
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import safetensors.numpy
from playwright.sync_api import expect

from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings
from transformer.recipe import Recipe

pytestmark = pytest.mark.browser

REVERSE = Path(__file__).parents[2] / "assets" / "checkpoints" / "reverse"
LINK = "/time_machine?lang=en&checkpoint=reverse"
DESCRIPTION = json.loads((REVERSE / "snapshots.json").read_text(encoding="utf-8"))
STEPS = DESCRIPTION["steps"]
# Of every cell of the large map: the colour in its corner, where no number is written.
COLOURS = """(machine) => {
  const overlay = machine.querySelector(".hl-overlay");
  const canvas = machine.querySelector(".tm-base");
  const [left, top, cell] = ["left", "top", "cell"].map((name) => Number(overlay.dataset[name]));
  const scale = canvas.width / canvas.getBoundingClientRect().width;
  const context = canvas.getContext("2d");
  return Array.from({ length: 9 }, (_, q) => Array.from({ length: 9 }, (_, k) =>
    [...context.getImageData(Math.round((left + k * cell + 3) * scale), Math.round((top + q * cell + 3) * scale), 1, 1).data].join(" ")));
}"""


@pytest.fixture(scope="module")
def tensors():
    return safetensors.numpy.load_file(REVERSE / "snapshots.safetensors")


@pytest.fixture
def replay(visit):
    """Open an address and wait until the picture is there: before it is, nobody presses a key for it."""

    def open_page(address, **options):
        page = visit(address, **options)
        machine(page).wait_for()
        return page

    return open_page


def machine(page):
    return page.locator(".tm[data-step]")


def state(page, *names):
    found = [machine(page).get_attribute(f"data-{name}") for name in names]
    return found[0] if len(names) == 1 else found


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def slider(page):
    return page.get_by_role("slider", name="Recorded step")


def table(page):
    """The numbers of the table, row by row."""
    rows = page.locator(".hl-table tbody tr").all()
    return [[float(text) for text in row.locator("td:not(.tm-predicts)").all_inner_texts()] for row in rows]


def frames_sent(page):
    """Messages to the server from now on."""
    sent = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.webSocketFrameSent", lambda frame: sent.append(frame))
    return sent


def point(page, query, key, *, click=False):
    overlay = page.locator(".tm .hl-overlay")
    left, top, cell = (float(overlay.get_attribute(f"data-{name}")) for name in ("left", "top", "cell"))
    act = overlay.click if click else overlay.hover
    act(position={"x": left + (key + 0.5) * cell, "y": top + (query + 0.5) * cell})


def entropy_of(weights):
    rows = weights.astype(np.float64)
    rows /= rows.sum(axis=-1, keepdims=True)
    return float(-(rows * np.log2(np.where(rows > 0, rows, 1))).sum(axis=-1).mean())


def test_it_opens_on_what_was_learned(app, replay, tensors):
    page = replay(app + "/time_machine?lang=en")
    assert state(page, "map", "layer", "head", "step") == ["cross", "0", "1", "2000"]
    assert asked(page)["step"] == "2000"
    last = tensors["0/2000/decoder.0.cross_attention.weights"][1]
    numbers = page.locator(".tm-large")
    assert numbers.nth(0).inner_text() == f"{entropy_of(last):.2f} bits"
    right = np.mean([last[row, 7 - row] for row in range(8)])
    assert numbers.nth(1).inner_text() == f"{round(100 * right)} %"
    expect(page.get_by_text("even: 3.17")).to_be_visible()


def test_every_step_from_the_first_to_the_last_shows_the_snapshots_weights(app, replay, tensors):
    page = replay(app + LINK + "&probe=1&map=cross&layer=1&head=2&step=0")
    page.get_by_role("button", name="Show the selected head as a table").click()
    sent = frames_sent(page)
    # The same element from the first step to the last: nothing is drawn anew.
    machine(page).evaluate("each => { each.querySelector('.tm-base').dataset.mine = 'yes'; }")
    colour_of = {}
    for index, step in enumerate(STEPS):
        assert state(page, "index", "step") == [str(index), str(step)]
        weights = tensors[f"0/{step}/decoder.0.cross_attention.weights"][1].astype(np.float64)
        np.testing.assert_allclose(table(page), weights, rtol=0, atol=5.1e-4)
        assert page.locator(".tm-large").nth(0).inner_text() == f"{entropy_of(weights):.2f} bits"
        for row, colours in zip(weights, machine(page).evaluate(COLOURS), strict=True):
            for weight, colour in zip(row, colours, strict=True):
                colour_of.setdefault(round(255 * float(weight)), set()).add(colour)
        if index < len(STEPS) - 1:
            slider(page).evaluate(
                "(each, value) => { each.value = value; each.dispatchEvent(new Event('input', { bubbles: true })); }",
                str(index + 1),
            )
    # A weight has the same colour at every step; nearly equal ones may round to neighbours.
    assert all(len(colours) <= 2 for colours in colour_of.values())
    assert len({tuple(sorted(colours)) for colours in colour_of.values()}) > 60
    assert machine(page).locator(".tm-base").get_attribute("data-mine") == "yes"
    assert not sent


def test_pointing_and_pinning_read_the_weight_while_the_steps_go_by(app, replay, tensors):
    page = replay(app + LINK + "&map=cross&layer=2&head=1&step=0")
    name = "0/{}/decoder.1.cross_attention.weights"
    point(page, 2, 5)
    assert float(page.locator(".hl-tooltip .hl-tip-number").inner_text()) == pytest.approx(
        tensors[name.format(0)][0, 2, 5], abs=6e-4
    )
    assert page.locator(".hl-tooltip .hl-tip-reads").inner_text() == "reads 2 → predicts 9"
    point(page, 2, 5, click=True)
    page.mouse.move(5, 5)
    page.keyboard.press("End")
    assert state(page, "step") == "2000"
    readout = page.locator(".tm .hl-readout")
    assert float(readout.locator(".hl-tip-number").inner_text()) == pytest.approx(
        tensors[name.format(2000)][0, 2, 5], abs=6e-4
    )
    expect(readout.get_by_text("pinned")).to_be_visible()
    page.keyboard.press("Escape")
    expect(readout.get_by_text("pinned")).to_have_count(0)


def test_space_plays_to_the_end_without_the_server_and_then_the_address_follows(app, replay, idle):
    page = replay(app + LINK + "&step=0")
    sent = frames_sent(page)
    assert asked(page)["step"] == "0"
    page.keyboard.press("Space")
    expect(machine(page)).to_have_attribute("data-playing", "true")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(machine(page)).to_have_attribute("data-index", re.compile("^[5-9]|1.$"))
    assert not sent
    expect(machine(page)).to_have_attribute("data-playing", "false")
    assert state(page, "step") == "2000"
    page.wait_for_url("**step=2000**")
    idle(page)
    # Once more from the end: it starts over, and stops where it is told to.
    page.get_by_role("button", name="Play").click()
    expect(machine(page)).to_have_attribute("data-index", re.compile("^.$"))
    page.keyboard.press("Space")
    expect(machine(page)).to_have_attribute("data-playing", "false")
    step = state(page, "step")
    page.wait_for_url(f"**step={step}**")
    idle(page)
    assert state(page, "step") == step


def test_keys_step_and_a_reload_shows_the_same(app, replay, idle):
    page = replay(app + LINK + "&probe=2&map=encoder&layer=2&head=3&step=2000")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert state(page, "step") == "675"
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**step=1162**")
    slider(page).focus()
    page.keyboard.press("Home")
    page.wait_for_url("**step=0**")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**step=1162**")
    idle(page)
    before = state(page, "map", "layer", "head", "step", "hash")
    assert before[:4] == ["encoder", "1", "2", "1162"]
    page.reload()
    idle(page)
    assert state(page, "map", "layer", "head", "step", "hash") == before
    page.get_by_role("radio", name="中文").click()
    idle(page)
    assert state(page, "map", "layer", "head", "step", "hash") == before
    expect(page.get_by_role("button", name="播放")).to_be_visible()
    wanted = {
        "checkpoint": "reverse",
        "probe": "2",
        "map": "encoder",
        "layer": "2",
        "head": "3",
        "step": "1162",
    }
    assert wanted.items() <= asked(page).items()


def test_a_click_on_the_curve_goes_to_the_nearest_recorded_step(app, replay, idle):
    page = replay(app + LINK)
    curve = page.locator(".tm-curve")
    left, right, last = (float(curve.get_attribute(f"data-{name}")) for name in ("left", "right", "last"))

    def place(step):
        return left + math.log1p(step) / math.log1p(last) * (right - left)

    assert last == 2000
    for clicked, expected in ((100, 77), (105, 132), (0, 0), (1500, 1162)):
        nearest = min(STEPS, key=lambda each: abs(math.log1p(each) - math.log1p(clicked)))
        assert nearest == expected
        curve.click(position={"x": place(clicked), "y": 60})
        assert state(page, "step") == str(expected)
        assert float(curve.get_attribute("data-marker")) == pytest.approx(place(expected), abs=0.5)
        page.wait_for_url(f"**step={expected}")
        idle(page)
    curve.hover(position={"x": place(250), "y": 60})
    tip = page.locator(".hl-tooltip").inner_text()
    assert "step 228" in tip
    losses = {
        line["step"]: line["loss"]
        for line in map(json.loads, (REVERSE / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        if line["event"] == "Evaluated"
    }
    assert f"dev {losses[250]:.3g} (step 250)" in tip


def test_the_strip_below_the_slider_scrubs(app, replay, idle):
    page = replay(app + LINK)
    strip = page.locator(".tm-strip")
    box = strip.bounding_box()
    apart = (box["width"] - 6) / len(STEPS)
    middle = box["y"] + 20
    page.mouse.move(box["x"] + 3 + 2.5 * apart, middle)
    page.mouse.down()
    assert state(page, "index") == "2"
    page.mouse.move(box["x"] + 3 + 8.5 * apart, middle, steps=4)
    assert state(page, "index") == "8"
    page.mouse.up()
    page.wait_for_url(f"**step={STEPS[8]}")
    # The slider's thumb stands above its thumbnail.
    track = slider(page).bounding_box()
    thumb = track["x"] + 8 + (track["width"] - 16) * 8 / (len(STEPS) - 1)
    assert thumb == pytest.approx(box["x"] + 3 + 8.5 * apart, abs=1.5)


def test_heads_are_chosen_by_click_and_by_keys(app, replay, idle, tensors):
    page = replay(app + LINK + "&map=cross&step=392")
    heads = page.locator(".tm-heads")
    left, top, tile = (float(heads.get_attribute(f"data-{name}")) for name in ("left", "top", "tile"))
    heads.click(position={"x": left + 3.5 * tile, "y": top + 1.5 * tile})
    assert state(page, "layer", "head", "step") == ["1", "3", "392"]
    weights = tensors["0/392/decoder.1.cross_attention.weights"][3]
    assert page.locator(".tm-large").nth(0).inner_text() == f"{entropy_of(weights):.2f} bits"
    page.wait_for_url("**layer=2&head=4**")
    heads.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**layer=1&head=3**")
    idle(page)
    assert state(page, "layer", "head") == ["0", "2"]
    page.keyboard.press("Space")
    expect(machine(page)).to_have_attribute("data-playing", "true")


def test_another_kind_of_attention_another_sentence_another_training(app, replay, idle):
    page = replay(app + LINK + "&step=77&layer=2&head=1")
    page.get_by_role("radio", name="Decoder self-attention").click()
    idle(page)
    assert state(page, "map", "step") == ["decoder", "77"]
    expect(page.locator(".tm .hl-legend").get_by_text("masked")).to_be_visible()
    point(page, 1, 4)
    assert page.locator(".hl-tooltip .hl-tip-number").inner_text() == "masked"
    page.get_by_role("radio", name="Cross-attention").click()
    idle(page)
    assert state(page, "map", "layer", "head", "step") == ["cross", "1", "0", "77"]
    page.get_by_role("combobox", name="Sentence").click()
    page.get_by_role("option", name="2 7 1 8 2").click()
    idle(page)
    assert state(page, "map", "layer", "head", "step") == ["cross", "1", "0", "77"]
    page.get_by_role("button", name="Show the selected head as a table").click()
    assert len(table(page)) == 6
    page.locator("[data-testid=stSidebar]").get_by_role("combobox", name="Checkpoint").click()
    page.get_by_role("option", name="Sort digits (toy)").click()
    idle(page)
    assert state(page, "step") == "2500"
    assert asked(page)["checkpoint"] == "sort"


@pytest.mark.parametrize("width", [1400, 800, 420])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_runs_out_of_the_page(app, replay, width, language):
    page = replay(app + f"/time_machine?lang={language}&checkpoint=zh-en", width=width)
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("each => each.scrollWidth - each.clientWidth") <= 1
    assert machine(page).evaluate("each => each.scrollWidth - each.clientWidth") <= 1
    if width == 1400:
        bottom = page.locator(".tm-heads").bounding_box()
        assert bottom["y"] + bottom["height"] <= 900


@pytest.fixture(scope="module")
def odd(serve, tmp_path_factory):
    """An app with three runs of its own: hostile tokens and a weight that is no number, a single step, sixty-four."""
    data = tmp_path_factory.mktemp("odd")
    lab = Laboratory(read_settings({"HEADLIGHT_DATA": str(data)}))
    names = {}
    tensors = safetensors.numpy.load_file(REVERSE / "snapshots.safetensors")

    def add(name, description, chosen, metrics=None):
        run_id = lab.store.add(
            kind="training", name=name, owner="", group="", spec={}, steps=2000, state="failed",
            error={"code": "diverged", "step": 300},
        )  # fmt: skip
        folder = lab.folder(run_id)
        shutil.copytree(REVERSE, folder, dirs_exist_ok=True)
        (folder / "snapshots.json").write_text(json.dumps(description), encoding="utf-8")
        safetensors.numpy.save_file(chosen, folder / "snapshots.safetensors")
        if metrics is not None:
            (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        names[name] = f"run-{run_id}"

    broken = {name: tensor.copy() for name, tensor in tensors.items()}
    broken["0/2000/decoder.0.cross_attention.weights"][1, 3, 3] = np.nan
    hostile = json.loads(json.dumps(DESCRIPTION))
    hostile["probes"][0]["source"][0] = "<img src=x onerror=alert(1)>"
    hostile["probes"][0]["target"][1] = "\u202e**$x$** 😀"
    lines = [
        json.loads(line) for line in (REVERSE / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for line in lines:
        if line["step"] > 300 and "loss" in line:
            line["loss"] = float("nan")
    add("hot", hostile, broken, "".join(json.dumps(line) + "\n" for line in lines))
    first = {name: tensor for name, tensor in tensors.items() if name.split("/")[1] == "0"}
    add("single", {**DESCRIPTION, "steps": [0]}, first, "")
    many = {
        re.sub("/2000/", f"/{step}/", name): tensor
        for step in range(150)
        for name, tensor in tensors.items()
        if "/2000/" in name
    }
    add("many", {**DESCRIPTION, "steps": list(range(150))}, many)
    with serve(HEADLIGHT_DATA=str(data)) as address:
        yield address, names


def test_no_number_and_hostile_tokens(odd, replay):
    address, names = odd
    page = replay(f"{address}/time_machine?lang=en&checkpoint={names['hot']}&layer=1&head=2&step=2000")
    assert page.locator(".tm-large").nth(0).inner_text() == "–"
    expect(page.get_by_text("From step 302 on the training loss is not a number.")).to_be_visible()
    point(page, 1, 0)
    assert "not a number" in page.locator(".hl-tooltip").inner_text()
    assert "<img src=x onerror=alert(1)>" in page.locator(".hl-tooltip").inner_text()
    assert page.locator(".tm img").count() == 0
    page.keyboard.press("ArrowLeft")
    assert page.locator(".tm-large").nth(0).inner_text().endswith(" bits")


def test_a_single_step_cannot_be_played(odd, replay):
    address, names = odd
    page = replay(f"{address}/time_machine?lang=en&checkpoint={names['single']}")
    expect(page.get_by_role("button", name="Play")).to_be_disabled()
    expect(page.get_by_text("Only one step is recorded.")).to_be_visible()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert state(page, "step", "playing") == ["0", "false"]


def test_many_steps_are_thinned_and_said(odd, replay):
    address, names = odd
    page = replay(f"{address}/time_machine?lang=en&checkpoint={names['many']}")
    expect(page.get_by_text("Of 150 recorded steps 64 are shown here, evenly chosen.")).to_be_visible()
    assert state(page, "count", "step") == ["64", "149"]


@pytest.mark.timeout(600)
def test_a_training_at_work_grows_before_ones_eyes(serve, visit, tmp_path):
    values = tomllib.loads((REVERSE.parents[1] / "presets" / "reverse.toml").read_text(encoding="utf-8"))
    values["data"].update(task_train=300, task_dev=30)
    values["model"].update(d_model=16, num_heads=2, d_ff=32)
    values["training"].update(batch_tokens=200, evaluate_every=100, probe_count=12, steps=400)
    lab = Laboratory(read_settings({"HEADLIGHT_DATA": str(tmp_path)}))
    run_id = lab.start(Recipe.from_dict(values), name="live", owner="test")
    with serve(HEADLIGHT_DATA=str(tmp_path)) as address:
        page = visit(f"{address}/time_machine?lang=en&checkpoint=run-{run_id}")
        # Whoever stands at the end goes with it; the page is never loaded again.
        expect(machine(page)).to_have_attribute("data-step", "400", timeout=400_000)
        page.wait_for_url("**step=400**")
    while lab.get(run_id).unfinished:
        time.sleep(0.2)
    recorded = json.loads((lab.folder(run_id) / "snapshots.json").read_text(encoding="utf-8"))["steps"]
    assert (recorded[0], recorded[-1]) == (0, 400)
