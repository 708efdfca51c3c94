"""The page of residual connections and norms as a person uses it, over trainings and experiments that really run."""

import csv
import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from lab.runs.comparison import members
from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings

# A busy machine may need minutes for what an idle one does in seconds.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MINUTE = 60_000
LIMITS = {"HEADLIGHT_SLOTS": "2"}
STEPS = ("init", "live", "warm-up", "depth", "end")
TINY = {"norm_layers": 1, "norm_width": 16, "norm_batch_tokens": 200, "norm_steps": 45}
NORMS = ("pre-norm", "post-norm", "DeepNorm")
# Pictures, equations and texts beyond the page's edge, and words that end in dots.
CUT = """() => {
  const main = document.querySelector("[data-testid=stMainBlockContainer]");
  const edge = main.getBoundingClientRect().right;
  const beyond = (each) => each.getBoundingClientRect().right > edge + 1;
  const select = (names) => [...main.querySelectorAll(names)];
  return select(".katex-html, .vega-embed svg text, .numbers, p, button")
    .filter((each) => each.getClientRects().length && getComputedStyle(each).opacity !== "0")
    .filter(beyond).map((each) => each.textContent);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("norms")


@pytest.fixture(scope="module")
def lab(folder):
    """The laboratory that the served app uses too."""
    laboratory = Laboratory(read_settings({"HEADLIGHT_DATA": str(folder), **LIMITS}))
    yield laboratory
    for run in laboratory.store.runs():
        if run.unfinished:
            laboratory.stop(run.id)
    wait_for(lambda: not any(run.unfinished for run in laboratory.store.runs()))


@pytest.fixture(scope="module")
def norm_app(serve, folder, lab):
    with serve(HEADLIGHT_DATA=str(folder), **LIMITS) as address:
        yield address


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def link(app, step, **query):
    query = {"lang": "en", "step": step, **query}
    return f"{app}/add_norm?" + "&".join(f"{name}={value}" for name, value in query.items())


def asked(page, name):
    return parse_qs(urlsplit(page.url).query).get(name, [None])[0]


def picture(page, title):
    """The picture of this title."""
    return page.locator(".vega-embed").filter(has=page.locator("svg text", has_text=re.compile(f"^{title}")))


def started(page, before=None):
    """Start what the form says, and return the comparison's ID once the address names it."""
    page.get_by_role("button", name="Train side by side").click()
    page.wait_for_url(re.compile(r"[?&]group=(?!shipped)"), timeout=2 * MINUTE)
    return asked(page, "group")


def test_a_comparison_is_started_watched_and_found_again(norm_app, lab, visit, idle):
    page = visit(link(norm_app, "live", **TINY))
    group = started(page)
    runs = members(lab, group)
    assert [run.spec["model"]["norm"] for run in runs] == ["pre", "post", "deepnorm"]
    expect(page.get_by_text("trainings: 3 · 3 finished")).to_be_visible(timeout=5 * MINUTE)
    assert all(lab.get(run.id).state == "succeeded" for run in runs)

    def drawn():
        for title in ("Dev loss", "Tokens right", "Training loss", "Gradient norm"):
            ends = picture(page, title).locator("svg text")
            for name in NORMS:
                expect(ends.filter(has_text=re.compile(rf"^{name} [\d.]+")).first).to_be_visible()
        for name in NORMS:
            expect(picture(page, f"{name}$").first).to_be_visible()

    drawn()
    page.reload()
    idle(page)
    assert asked(page, "group") == group
    drawn()
    # The last number in the picture is the one in the store.
    (series,) = lab.series([runs[0].id], ["dev_loss"]).values()
    end = picture(page, "Dev loss").locator("svg text").filter(has_text=re.compile("^pre-norm "))
    assert float(end.first.text_content().split()[-1]) == pytest.approx(series.values[-1], rel=1e-2)
    page.get_by_role("radio", name="中文").click()
    idle(page)
    expect(page.get_by_text("共 3 个训练任务 · 3 已完成")).to_be_visible()
    assert asked(page, "group") == group


def test_a_comparison_is_stopped_and_resumed_as_a_whole(norm_app, lab, visit, idle):
    page = visit(link(norm_app, "live", **{**TINY, "norm_steps": 20000, "norm_variants": "pre,post"}))
    group = started(page)
    wait_for(lambda: any(run.step for run in members(lab, group)))
    page.get_by_role("button", name="Stop all").click()
    wait_for(lambda: all(run.state == "cancelled" for run in members(lab, group)))
    expect(page.get_by_text("trainings: 2 · 2 stopped")).to_be_visible(timeout=MINUTE)
    steps = [run.step for run in members(lab, group)]
    page.get_by_role("button", name="Resume all").click()
    wait_for(lambda: any(run.step > step for run, step in zip(members(lab, group), steps, strict=True)))
    page.get_by_role("button", name="Stop all").click()
    wait_for(lambda: all(run.state == "cancelled" for run in members(lab, group)))


def test_a_claim_is_put_to_the_test_live(norm_app, lab, visit, idle):
    page = visit(link(norm_app, "init", depths="2,4", gradient_seeds=2))
    expect(page.get_by_text("The claim holds", exact=True)).to_be_visible()
    page.get_by_role("button", name="Put it to the test here").click()
    page.wait_for_url(re.compile(r"[?&]gradients=(?!norm-)"), timeout=2 * MINUTE)
    run_id = asked(page, "gradients")
    wait_for(lambda: lab.get(run_id).state == "succeeded")
    outcome = lab.get(run_id).outcome
    told = {
        "holds": "The claim holds",
        "does not hold": "The claim does not hold",
        "not decided": "It is not decided",
    }
    expect(page.get_by_text(told[outcome["verdict"]], exact=True)).to_be_visible(timeout=MINUTE)
    exponent = f"{outcome['numbers']['pre_exponent']:.3f}".replace("-", "−")
    expect(page.locator(".numbers b", has_text=exponent)).to_be_visible()
    idle(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Table (CSV)").click()
    with open(download.value.path(), encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["quantity"] == "gradient" and row["setting"] == "theory"
        ]
    assert {(row["norm"], row["seed"], float(row["x"])) for row in rows} == {
        (norm, str(seed), depth)
        for norm in ("pre", "post", "deepnorm")
        for seed in (1, 2)
        for depth in (2, 4)
    }
    page.reload()
    idle(page)
    expect(page.get_by_text("2 seeds ·")).to_be_visible()
    assert asked(page, "gradients") == run_id


def test_steps_are_chosen_by_keyboard_and_stand_in_the_address(norm_app, visit, idle):
    page = visit(link(norm_app, "init"))
    page.get_by_role("radio", name="1 Before training").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_url("**step=live**")
    idle(page)
    expect(page.get_by_role("button", name="Train side by side")).to_be_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [1400, 800])
def test_nothing_is_cut(norm_app, visit, idle, width, language):
    page = visit(link(norm_app, "init", lang=language), width=width)
    for step in STEPS:
        page.goto(link(norm_app, step, lang=language))
        idle(page)
        page.locator(".vega-embed svg, .vega-embed canvas").first.wait_for(timeout=2 * MINUTE)
        page.wait_for_timeout(500)
        assert page.evaluate(CUT) == [], step
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("each => each.scrollWidth - each.clientWidth") <= 1, step


# Contrast of each name in a picture or an equation against the page, as WCAG 2 defines it.
CONTRASTS = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255);
    const [red, green, blue] = parts.map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
  };
  const paper = light(getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor);
  const named = [...document.querySelectorAll("svg.marks g.role-mark text")].filter((each) => /norm /i.test(each.textContent));
  const written = [...document.querySelectorAll(".katex-html [style*=color]")];
  const inks = [
    ...named.map((each) => getComputedStyle(each).fill), ...written.map((each) => getComputedStyle(each).color),
  ];
  return inks.map(light).map((ink) => Math.max(ink, paper) / Math.min(ink, paper));
}"""


@pytest.mark.parametrize(("theme", "least"), [("dark", 4.5), ("light", 3.3)])
def test_names_of_norms_are_legible(norm_app, visit, theme, least):
    page = visit(link(norm_app, "init"), theme=theme)
    page.locator("svg.marks").first.wait_for(timeout=MINUTE)
    page.wait_for_timeout(500)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) >= 9 + 3
    assert min(contrasts) >= least
