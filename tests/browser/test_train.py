"""The page that starts trainings as a person uses it: keyboard, address, refresh, bad tables, start."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from lab.runs.presets import read_preset

pytestmark = pytest.mark.browser

GOOD = "".join(f"word{number} here\there {number}\n" for number in range(40))
# Words and numbers that end in dots or reach beyond the page's edge.
CUT = """() => {
  const main = document.querySelector("[data-testid=stMainBlockContainer]").getBoundingClientRect();
  const beyond = (each) => each.getBoundingClientRect().right > main.right + 1;
  const shown = (each) => each.getBoundingClientRect().width > 0;
  const found = document.querySelectorAll(
    "[data-testid=stWidgetLabel], [data-testid=stCaptionContainer], .rows td, button p");
  return [...found].filter(shown).filter((each) => beyond(each) || each.scrollWidth > each.clientWidth + 1)
    .map((each) => each.textContent);
}"""


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def fill(page, label, text, idle):
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")
    idle(page)


def parameters(page):
    text = page.get_by_text(re.compile(r"\d parameters")).inner_text()
    return int(re.match(r"([\d,]+) parameters", text)[1].replace(",", ""))


@pytest.fixture(scope="module")
def lab_app(serve, tmp_path_factory):
    """A server with runs of its own."""
    with serve(HEADLIGHT_DATA=str(tmp_path_factory.mktemp("runs"))) as address:
        yield address


def test_a_preset_is_changed_started_and_lands_on_its_run(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=en")
    page.get_by_role("radio", name="Sort").click()
    page.wait_for_url("**preset=sort**")
    idle(page)
    fill(page, "Steps", "30", idle)
    fill(page, "Seed", "5", idle)
    before = parameters(page)
    page.locator("input[aria-label^='Width ']").fill("32")
    page.locator("input[aria-label^='Width ']").press("Enter")
    expect(page.get_by_text(re.compile(r"\d+ parameters"))).not_to_have_text(re.compile(f"^{before:,} "))
    idle(page)
    assert parameters(page) < before / 2
    expect(page.get_by_text(re.compile(r"about \d+ s on one core"))).to_be_visible()
    assert {"preset": "sort", "training.steps": "30", "training.seed": "5"}.items() <= asked(page).items()
    page.reload()
    idle(page)
    expect(page.get_by_label("Steps", exact=True)).to_have_value("30")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/run?**run=**")
    idle(page)
    expect(page.get_by_text(re.compile(r"^Sort · .* · width 32 · .* · seed 5$"))).to_be_visible()
    assert re.fullmatch(r"[a-z2-9]{8}", asked(page)["run"])


def test_values_typed_one_after_another_all_arrive(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=en")
    steps = page.get_by_label("Steps", exact=True)
    steps.click()
    # Faster than any answer of the server.
    for text in ("11", "0.001", "7", "9"):
        page.keyboard.press("Control+a")
        page.keyboard.type(text)
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") != "INPUT":
            page.keyboard.press("Tab")
    page.get_by_role("radio", name="中文").click()
    idle(page)
    page.wait_for_url("**training.seed=9**")
    expected = {
        "training.steps": "11",
        "training.peak": "0.001",
        "training.warmup_steps": "7",
        "training.seed": "9",
    }
    assert expected.items() <= asked(page).items()
    assert asked(page)["lang"] == "zh"


def test_a_wrong_value_is_answered_beside_its_field_and_survives_a_refresh(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=en")
    fill(page, "Steps", "many", idle)
    for _ in range(2):
        expect(page.get_by_text("“many” is no whole number")).to_be_visible()
        expect(page.get_by_label("Steps", exact=True)).to_have_value("many")
        expect(page.get_by_role("button", name="Start training")).to_be_disabled()
        page.reload()
        idle(page)
    fill(page, "Steps", str(read_preset("reverse").training.steps), idle)
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    assert "training.steps" not in asked(page)


def test_a_pasted_table_names_its_bad_lines_and_survives_a_refresh(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=en&preset=own")
    field = page.get_by_label("One pair a line")
    text = f"{GOOD}no second column\n"
    field.fill(text)
    field.press("Control+Enter")
    idle(page)
    for _ in range(2):
        expect(page.get_by_text("Line 41: there is only one column")).to_be_visible()
        expect(page.get_by_role("button", name="Start training")).to_be_disabled()
        expect(field).to_have_value(text)
        page.reload()
        idle(page)
    page.get_by_role("radio", name="on").first.click()
    idle(page)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/run?**run=**")
    idle(page)


BAD_FILES = {
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(200), "This is a picture"),
    "zeros.tsv": (b"a\tb\n" * 20 + b"c\x00\td\n", "zero bytes"),
    "one.csv": (b"only\none\ncolumn\n", "No line has two columns"),
    "empty.tsv": (b"\n \n", "The table is empty"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_upload_is_answered_and_changes_nothing(lab_app, visit, idle, name):
    page = visit(f"{lab_app}/train?lang=en&preset=own")
    field = page.get_by_label("One pair a line")
    field.fill(GOOD)
    field.press("Control+Enter")
    idle(page)
    table = asked(page)["table"]
    content, answer = BAD_FILES[name]
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    expect(page.get_by_text(answer)).to_be_visible()
    idle(page)
    assert asked(page)["table"] == table
    expect(field).to_have_value(GOOD)
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()


def test_a_file_of_100_megabytes_never_leaves_the_browser(lab_app, visit, idle, tmp_path):
    large = tmp_path / "large.tsv"
    large.write_bytes(b"a\tb\n" * 25_000_000)
    page = visit(f"{lab_app}/train?lang=en&preset=own")
    sent = []
    page.on("request", lambda request: sent.append(request.method) if "upload_file" in request.url else None)
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(large)
    expect(page.get_by_text(re.compile("5.*MB or smaller"))).to_be_visible()
    assert "PUT" not in sent
    assert "table" not in asked(page)


def test_a_good_upload_is_read_and_shown_in_the_field(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=zh&preset=own")
    text = "源文,译文\n" + "".join(f"第{number}句,sentence {number}\n" for number in range(30))
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(
        {"name": "表.csv", "mimeType": "text/csv", "buffer": text.encode("gb18030")}
    )
    expect(page.get_by_text("30 对")).to_be_visible()
    idle(page)
    expect(page.get_by_label("每行一对")).to_have_value(text)
    expect(page.get_by_role("button", name="开始训练")).to_be_enabled()


def test_everything_can_be_reached_and_started_by_keyboard(lab_app, visit, idle):
    page = visit(f"{lab_app}/train?lang=en")
    page.get_by_role("radio", name="Reverse").focus()
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "() => { const e = document.activeElement; return e.ariaLabel || e.textContent || e.id; }"
            )
        )
    for name in ("Encoder layers", "Steps", "Seed", "Start training"):
        assert any(name in each for each in names), (name, names)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [1400, 800])
def test_nothing_is_cut_and_the_start_is_in_the_first_view(lab_app, visit, idle, language, width):
    page = visit(f"{lab_app}/train?lang={language}", width=width)
    main = page.locator("[data-testid=stMain]")
    for preset in ("reverse", "anaphora", "own"):
        page.goto(f"{lab_app}/train?lang={language}&preset={preset}&model.norm=post")
        idle(page)
        assert page.evaluate(CUT) == []
        assert main.evaluate("each => each.scrollWidth - each.clientWidth") <= 1
        if width == 1400 and preset != "own":
            button = page.get_by_role("button", name={"en": "Start training", "zh": "开始训练"}[language])
            assert button.bounding_box()["y"] + button.bounding_box()["height"] <= 900
