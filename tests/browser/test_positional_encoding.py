"""The page of positional encodings as a person uses it: sliders by keyboard, the address, narrow windows."""

import math
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

STEPS = {
    "waves": {},
    "dot_product": {},
    "rotation": {},
    "others": {"kind": "learned"},
    "others-rotary": {"kind": "rotary"},
    "others-alibi": {"kind": "alibi"},
    "shuffle": {"checkpoint": "reverse"},
}
# Equations beyond the page's edge, and numbers and names that end in dots.
CUT = """() => {
  const edge = document.querySelector("[data-testid=stMainBlockContainer]").getBoundingClientRect().right;
  const beyond = (each) => each.getBoundingClientRect().right > edge + 1;
  const dotted = (each) => getComputedStyle(each).overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1;
  const select = (names) => [...document.querySelectorAll(names)];
  const metrics = select("[data-testid=stMetric] *").filter((each) => !each.closest(".katex"));
  return [...select(".katex-html, .gtitle").filter(beyond), ...metrics.filter(dotted)]
    .map((each) => each.textContent);
}"""


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def link(app, step, **query):
    query = {"lang": "en", "step": step.partition("-")[0], **STEPS[step], **query}
    return f"{app}/positional_encoding?" + "&".join(f"{name}={value}" for name, value in query.items())


def drawn(page, name):
    """The numbers of a line of the first picture, as the browser holds them."""
    return page.evaluate(
        """(name) => Array.from(
          document.querySelector(".js-plotly-plot")._fullData.find((trace) => trace.name === name)?.y ?? [])""",
        name,
    )


def press(page, slider, key, times):
    page.get_by_role("slider", name=slider).focus()
    for _ in range(times):
        page.keyboard.press(key)


def test_a_slider_moved_by_keyboard_changes_picture_and_address(app, visit, idle):
    page = visit(link(app, "waves"))
    before = drawn(page, "sin 8")
    assert before == pytest.approx([math.sin(each * 10000 ** (-8 / 64)) for each in range(64)], abs=1e-5)
    press(page, "Base", "ArrowLeft", 2)
    page.wait_for_url("**base=100&**")
    press(page, "Length", "ArrowLeft", 4)
    page.wait_for_url("**length=60**")
    idle(page)
    expected = pytest.approx([math.sin(each * 100 ** (-8 / 64)) for each in range(60)], abs=1e-5)
    assert drawn(page, "sin 8") == expected
    page.reload()
    idle(page)
    assert drawn(page, "sin 8") == expected
    page.get_by_role("radio", name="中文").click()
    idle(page)
    assert drawn(page, "sin 8") == expected
    assert {"base": "100", "length": "60", "step": "waves", "lang": "zh"}.items() <= asked(page).items()


def test_a_narrow_model_has_fewer_pairs_to_choose_from(app, visit, idle):
    page = visit(link(app, "waves"))
    press(page, "d_{model}", "ArrowLeft", 4)
    page.wait_for_url("**d_model=4**")
    idle(page)
    assert len(drawn(page, "sin 0")) == 64
    assert drawn(page, "sin 8") == []
    page.get_by_role("radio", name="3 Rotation").click()
    idle(page)
    expect(page.get_by_text("Largest error for 64 positions")).to_be_visible()


def test_what_cannot_be_read_is_answered_in_a_sentence_and_kept(app, visit, idle):
    page = visit(link(app, "shuffle"))
    sentence = page.get_by_label("Sentence", exact=True)
    for text, answer in (
        ("", "There is no text"),
        ("7", "only one order"),
        ("1 " * 500, "at most 40"),
        ("😀 3 x", "Not in this model's vocabulary"),
    ):
        sentence.fill(text)
        sentence.press("Enter")
        idle(page)
        expect(page.get_by_text(answer)).to_be_visible()
        expect(sentence).to_have_value(text)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [1400, 800])
def test_nothing_is_cut(app, visit, idle, width, language):
    page = visit(link(app, "waves", lang=language), width=width)
    for step in STEPS:
        page.goto(link(app, step, lang=language))
        idle(page)
        assert page.evaluate(CUT) == []
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("each => each.scrollWidth - each.clientWidth") <= 1
        if width == 1400:
            # The first view holds the pictures whole.
            bottom = max(
                plot.bounding_box()["y"] + plot.bounding_box()["height"]
                for plot in page.locator(".js-plotly-plot").all()
            )
            assert bottom <= 830
