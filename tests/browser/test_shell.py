"""What surrounds the pages: deep links, language, and what the address keeps."""

from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from lab.figures.arcs import sharpest_head
from lab.figures.reading_maps import reading_maps
from transformer.analysis.reading import read
from transformer.checkpoint import load

pytestmark = pytest.mark.browser
CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def heading(page):
    return page.get_by_role("heading", level=1)


@pytest.mark.parametrize(
    ("locale", "query", "title"),
    [
        ("zh-CN", "", "看看 Transformer 在注意什么"),
        ("en-US", "", "See what a Transformer attends to"),
        ("fr-FR", "", "See what a Transformer attends to"),
        ("zh-CN", "?lang=en", "See what a Transformer attends to"),
        ("en-US", "?lang=zh", "看看 Transformer 在注意什么"),
    ],
)
def test_the_address_then_the_browser_decide_the_language(app, visit, locale, query, title):
    page = visit(f"{app}/{query}", locale=locale)
    expect(heading(page)).to_have_text(title)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if "看" in title else "en")


def test_a_deep_link_as_the_first_request_after_the_start(serve, visit):
    with serve() as address:
        page = visit(f"{address}/positional_encoding?lang=zh&step=rotation&pos=5")
        expect(heading(page)).to_have_text("位置编码")
        expect(page.get_by_role("radio", name="3 旋转")).to_be_checked()
        assert asked(page)["pos"] == "5"


def test_the_home_pages_own_path_as_the_first_request_after_the_start(serve, visit):
    with serve() as address:
        expect(heading(visit(f"{address}/home?lang=zh"))).to_have_text("看看 Transformer 在注意什么")


def test_every_page_is_found_under_the_name_of_its_file(app, visit):
    for name, title in (
        ("home", "See what a Transformer attends to"),
        ("attention_heads", "Attention heads"),
        ("positional_encoding", "Positional encoding"),
    ):
        page = visit(f"{app}/{name}?lang=en")
        expect(heading(page)).to_have_text(title)
        expect(page.get_by_text("Page not found")).to_have_count(0)


def test_positional_encoding_keeps_its_state_over_language_and_reload(app, visit, idle):
    page = visit(f"{app}/positional_encoding?lang=en&step=dot_product")
    slider = page.get_by_role("slider", name="Length")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    page.wait_for_url("**length=69**")
    page.get_by_role("radio", name="中文").click()
    idle(page)
    expect(heading(page)).to_have_text("位置编码")
    found = asked(page)
    assert (found["length"], found["step"], found["lang"]) == ("69", "dot_product", "zh")
    page.reload()
    idle(page)
    expect(page.get_by_role("radio", name="2 点积")).to_be_checked()
    expect(page.get_by_role("slider", name="长度")).to_have_value("69")


def test_an_example_of_the_home_page_is_one_click_away(app, visit, idle):
    page = visit(f"{app}/?lang=en")
    arc = page.locator("svg.arcs .word").first
    arc.focus()
    numbers = [text for text in page.locator("svg.arcs .number").all_text_contents() if text]
    assert numbers
    assert all(0 <= float(number) <= 1 for number in numbers)
    page.get_by_role("link", name="她昨天买的那本书很有意思。").click()
    idle(page)
    expect(heading(page)).to_have_text("Attention heads")
    expect(page.get_by_label("Source sentence", exact=True)).to_have_value("她昨天买的那本书很有意思。")
    assert asked(page)["checkpoint"] == "zh-en"
    assert asked(page)["lang"] == "en"
    page.get_by_role("link", name="Home").click()
    idle(page)
    page.get_by_role("link", name="The book she bought yesterday is very interesting.").click()
    idle(page)
    expect(page.get_by_label("Source sentence", exact=True)).to_have_value(
        "The book she bought yesterday is very interesting."
    )
    assert asked(page)["checkpoint"] == "en-zh"


def test_the_checkpoint_stays_from_page_to_page(app, visit, idle):
    page = visit(f"{app}/attention_heads?lang=en&checkpoint=sort")
    page.get_by_role("link", name="Positional encoding").click()
    idle(page)
    page.get_by_role("radio", name="5 Shuffle the words").click()
    idle(page)
    assert asked(page)["checkpoint"] == "sort"


def test_two_visitors_see_their_own(app, visit, idle):
    first = visit(f"{app}/attention_heads?lang=en&checkpoint=reverse&source=1+2+3+4")
    second = visit(f"{app}/attention_heads?lang=zh&checkpoint=sort&source=4+3+2+1")
    expect(first.get_by_label("Source sentence", exact=True)).to_have_value("1 2 3 4")
    expect(second.get_by_label("源句", exact=True)).to_have_value("4 3 2 1")
    expect(heading(first)).to_have_text("Attention heads")


def test_what_was_typed_is_there_when_one_comes_back(app, visit, idle):
    page = visit(f"{app}/attention_heads?lang=en&checkpoint=reverse&beam=4")
    source = page.get_by_label("Source sentence", exact=True)
    source.fill("5 6 7 8")
    source.press("Enter")
    idle(page)
    assert (asked(page)["source"], asked(page)["beam"]) == ("5 6 7 8", "4")
    page.get_by_role("link", name="Positional encoding").click()
    idle(page)
    expect(heading(page)).to_have_text("Positional encoding")
    page.get_by_role("link", name="Attention heads").click()
    idle(page)
    expect(source).to_have_value("5 6 7 8")
    assert asked(page)["checkpoint"] == "reverse"


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_arcs_stay_readable_at_every_width(app, visit, width):
    page = visit(f"{app}/?lang=en", width=width)
    words = page.locator("svg.arcs .word text")
    # Layout pixels: the picture is never scaled, so letters are as large as their style says.
    sizes = words.evaluate_all("nodes => nodes.map(node => parseFloat(getComputedStyle(node).fontSize))")
    assert min(sizes) >= 14
    scale = page.locator("svg.arcs").evaluate(
        "svg => svg.getBoundingClientRect().width / svg.width.baseVal.value"
    )
    assert scale == pytest.approx(1, abs=0.01)
    for side in ("key", "query"):
        boxes = page.locator(f"svg.arcs .{side} text").evaluate_all(
            "nodes => nodes.map(node => node.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert all(right < left for (_, right), (left, _) in pairwise(boxes))


def test_the_numbers_at_an_arc_are_the_models(app, visit):
    checkpoint = load(CHECKPOINTS / "en-zh")
    reading = read(checkpoint, "If it rains tomorrow, we will stay at home.")
    config = checkpoint.model.config
    cross = reading_maps(reading, config.d_model // config.num_heads)[2]
    layer, head = sharpest_head(cross)
    page = visit(f"{app}/?lang=en")
    for row in range(len(reading.target.tokens)):
        page.locator("svg.arcs .query").nth(row).focus()
        shown = page.locator("svg.arcs .number").all_text_contents()[: len(reading.source.tokens)]
        weights = cross.weights[layer, head, row]
        assert shown == [f"{weight:.2f}" if weight >= 0.02 else "" for weight in weights.tolist()]
