"""The pages of runs as a person uses them, over real trainings that real workers do."""

import re
import time
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings
from tests.lab.runs.conftest import zipped
from transformer.recipe import Recipe

# A busy machine may need minutes for what an idle one does in seconds.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PRESET = Path(__file__).parents[2] / "assets" / "presets" / "reverse.toml"
MINUTE = 60_000
START = 2 * MINUTE
LIMITS = {"HEADLIGHT_SLOTS": "2", "HEADLIGHT_BUNDLE_MB": "20"}


def recipe(**training):
    """A reverse training that is so small that a step takes a few milliseconds."""
    values = tomllib.loads(PRESET.read_text(encoding="utf-8"))
    values["data"].update(task_train=300, task_dev=30)
    values["model"].update(d_model=16, num_heads=2, d_ff=32)
    values["training"].update({"batch_tokens": 200, "evaluate_every": 20, "probe_count": 3, **training})
    return Recipe.from_dict(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def lab(folder):
    """The laboratory that the served app uses too."""
    laboratory = Laboratory(read_settings({"HEADLIGHT_DATA": str(folder), **LIMITS}))
    yield laboratory
    for run in laboratory.runs():
        if run.unfinished:
            laboratory.stop(run.id)
    wait_for(lambda: not any(run.unfinished for run in laboratory.runs()))


@pytest.fixture(scope="module")
def runs_app(serve, folder, lab):
    with serve(HEADLIGHT_DATA=str(folder), **LIMITS) as address:
        yield address


@pytest.fixture(scope="module")
def pair(lab):
    """Two trainings that differ in their seed alone, done."""
    ids = [lab.start(recipe(steps=60, seed=seed), name="pair", owner="test") for seed in (1, 2)]
    wait_for(lambda: all(lab.get(run_id).state == "succeeded" for run_id in ids))
    return ids


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def progress(page):
    return page.locator("[data-testid=stProgress]")


def step_of(page):
    """The step that the page names."""
    return int(re.search(r"step ([\d,]+) of", progress(page).inner_text())[1].replace(",", ""))


def wait_for_step(page, least, timeout=START):
    page.wait_for_function(
        """(least) => {
          const found = /step ([\\d,]+) of/.exec(document.querySelector("[data-testid=stProgress]")?.innerText ?? "");
          return found && Number(found[1].replaceAll(",", "")) >= least;
        }""",
        arg=least,
        timeout=timeout,
    )


def test_a_run_is_watched_from_two_tabs_stopped_and_resumed(runs_app, lab, visit, idle):
    run_id = lab.start(recipe(steps=100_000), name="long", owner="test")
    address = f"{runs_app}/run?lang=en&run={run_id}"
    page = visit(address)
    wait_for_step(page, 30)
    labels = page.locator(".st-key-run_charts svg.marks").first
    expect(labels).to_contain_text("dev", timeout=START)

    # Curves move in place: the same elements hold other numbers, and the page stays where it was.
    page.evaluate("document.querySelectorAll('svg.marks').forEach((each) => { each.dataset.seen = 'yes'; })")
    page.locator("[data-testid=stMain]").evaluate("(each) => each.scrollTo(0, 200)")
    before, step = labels.text_content(), step_of(page)
    wait_for_step(page, step + 40)
    expect(labels).not_to_have_text(before)
    expect(page.locator("svg.marks[data-seen=yes]")).to_have_count(5)
    assert page.locator("[data-testid=stMain]").evaluate("(each) => each.scrollTop") == 200

    # A menu that is open stays open while the numbers move.
    page.get_by_role("button", name="Axes").click()
    axis = page.get_by_role("radio", name="logarithmic").first
    expect(axis).to_be_visible()
    wait_for_step(page, step_of(page) + 20)
    axis.click()
    expect(page.locator(".st-key-run_charts svg.marks").first).to_contain_text("step, log scale")
    page.keyboard.press("Escape")
    assert asked(page)["steps"] == "log"

    # Once more from the start, and in a second tab: it goes on.
    step = step_of(page)
    page.reload()
    idle(page)
    wait_for_step(page, step)
    second = visit(address)
    wait_for_step(second, step + 1)

    # Stopped in one, it is stopped in both.
    page.get_by_role("button", name="Stop").click()
    for each in (page, second):
        expect(progress(each)).to_contain_text("stopped", timeout=START)
    assert lab.get(run_id).state == "cancelled"
    stopped_at = step_of(page)
    assert stopped_at == step_of(second) == lab.get(run_id).step
    expect(page.get_by_text("Asked to stop; it saves itself first.")).to_be_visible()

    # Resumed in the other, it goes on in both from where it was.
    second.get_by_role("button", name="Resume").click()
    for each in (second, page):
        if each is page:
            # What has ended is not asked for again, so this tab does not know yet.
            page.reload()
        wait_for_step(each, stopped_at + 10)
        expect(each.get_by_text(f"Went on from the checkpoint of step {stopped_at:,}.")).to_be_visible()
    second.get_by_role("button", name="Stop").click()
    wait_for(lambda: lab.get(run_id).state == "cancelled")


def test_a_finished_run_is_not_asked_for_again(runs_app, pair, browser):
    page = browser.new_page()
    frames = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(len(frame))))
    page.goto(f"{runs_app}/run?lang=en&run={pair[0]}")
    expect(progress(page)).to_contain_text("finished", timeout=START)
    expect(page.locator(".st-key-run_charts svg.marks")).to_have_count(5, timeout=START)
    page.wait_for_timeout(3000)
    seen = len(frames)
    page.wait_for_timeout(4000)
    assert len(frames) == seen
    page.close()


def test_two_seeds_are_laid_over_one_another(runs_app, lab, pair, visit):
    page = visit(f"{runs_app}/runs?lang=en&runs={','.join(pair)}&metrics=dev_loss")
    last = [lab.series([run_id], ["dev_loss"])[run_id, "dev_loss"].values[-1] for run_id in pair]
    expect(page.locator(".st-key-overlay_charts svg.marks")).to_contain_text(f"pair ×2 {sum(last) / 2:#.3g}")
    expect(page.get_by_text("None but the seed.")).to_be_visible()
    # Another measurement, one click away and in the address.
    page.get_by_role("button", name="Gradient norm").click()
    expect(page.locator(".st-key-overlay_charts svg.marks")).to_have_count(2)
    assert asked(page)["metrics"] == "dev_loss,grad_norm"


def test_rows_are_chosen_with_a_click_and_stay_chosen(runs_app, pair, visit, idle):
    page = visit(f"{runs_app}/runs?lang=en&runs={pair[0]}&metrics=dev_loss&find=pair")
    table = page.locator("[data-testid=stDataFrame]")
    box = table.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 36 + 17)
    page.wait_for_function("(ids) => ids.every((id) => location.search.includes(id))", arg=pair)
    idle(page)
    expect(page.locator(".st-key-overlay_charts svg.marks")).to_contain_text("pair ×2")
    page.reload()
    idle(page)
    expect(page.locator(".st-key-overlay_charts svg.marks")).to_contain_text("pair ×2")


def test_deleting_is_taken_back(runs_app, lab, pair, visit):
    page = visit(f"{runs_app}/runs?lang=en&runs={','.join(pair)}")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Deleted: 2.")).to_be_visible()
    assert not {run.id for run in lab.runs()} & set(pair)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Deleted: 2.")).to_have_count(0)
    assert {run.id for run in lab.runs()} >= set(pair)
    expect(page.locator(".st-key-overlay_charts svg.marks").first).to_contain_text("pair ×2")


def give(page, content):
    """Import a file."""
    field = page.locator("input[type=file]")
    # The popover stays open from one file to the next.
    if not field.count():
        page.get_by_role("button", name=re.compile("Import a bundle|导入打包文件")).click()
    field.set_input_files({"name": "bundle.zip", "mimeType": "application/zip", "buffer": content})


def test_a_bundle_is_downloaded_and_imported_again(runs_app, lab, pair, visit):
    page = visit(f"{runs_app}/run?lang=en&run={pair[0]}")
    with page.expect_download(timeout=START) as started:
        page.get_by_role("button", name="Bundle").click()
    content = Path(started.value.path()).read_bytes()
    before = {run.id for run in lab.runs()}
    page = visit(f"{runs_app}/runs?lang=en")
    give(page, content)
    expect(page.get_by_text("Imported as")).to_be_visible(timeout=START)
    (imported,) = {run.id for run in lab.runs()} - before
    page.wait_for_function("(id) => location.search.includes(id)", arg=imported)
    was, now = (lab.series([each], ["train_loss"])[each, "train_loss"] for each in (pair[0], imported))
    assert (was.steps == now.steps).all()
    assert (was.values == now.values).all()
    weights = [(lab.folder(each) / "model.safetensors").read_bytes() for each in (pair[0], imported)]
    assert weights[0] == weights[1]
    # It is a run like others, also to the other pages.
    page = visit(f"{runs_app}/attention_heads?lang=en&checkpoint=run-{imported}")
    expect(page.get_by_text("The model writes")).to_be_visible(timeout=START)
    lab.delete(imported)


def test_what_is_no_bundle_gets_a_sentence_and_changes_nothing(runs_app, lab, visit, idle):
    before = [run.id for run in lab.runs()]
    files = sorted(str(path) for path in lab.settings.data.rglob("*") if "sqlite" not in path.name)
    page = visit(f"{runs_app}/runs?lang=zh")
    for content, answer in (
        (b"just text", "不是打包文件"),
        (zipped({"../../evil.txt": "x"}), "不该出现"),
        (zipped({"manifest.json": "{}"}), "缺少"),
        (zipped({"manifest.json": b"0" * 30_000_000}), "超过"),
    ):
        give(page, content)
        notice = page.locator("[data-testid=stAlert]").filter(has_text=re.compile("打包"))
        expect(notice).to_contain_text(answer, timeout=START)
        idle(page)
    assert [run.id for run in lab.runs()] == before
    assert sorted(str(path) for path in lab.settings.data.rglob("*") if "sqlite" not in path.name) == files


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [1400, 800])
def test_nothing_is_cut(runs_app, pair, visit, width, language):
    for name in ("run", "runs"):
        page = visit(f"{runs_app}/{name}?lang={language}", width=width)
        expect(page.locator("svg.marks").first).to_be_visible()
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("each => each.scrollWidth - each.clientWidth") <= 1
        sizes = page.evaluate(
            "[...document.querySelectorAll('svg.marks text')].map((each) => parseFloat(getComputedStyle(each).fontSize))"
        )
        assert min(sizes) >= 12
