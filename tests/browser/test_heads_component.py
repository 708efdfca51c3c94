"""The picture of all heads by itself, on models as large as it promises to bear."""

import base64
import json
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from lab.figures.heads import Selection, heads_payload, merge_words
from lab.figures.heads_export import to_html
from lab.ui.heads_view import heads_strings
from lab.ui.language import speaking
from tests.lab.heads_sample import sample_maps

pytestmark = pytest.mark.browser

HARNESS = Path(__file__).parent / "heads_harness.py"
SOURCE = ["The", "book", "the", "teach", "-er", "read", "the", "class", "."]
TARGET = ["这", "本", "书", "书", "。"]


@pytest.fixture(scope="module")
def harness(serve):
    with serve(HARNESS) as address:
        yield address


def link(address, source, target, **query):
    asked = {"source": " ".join(source), "target": " ".join(target), "lang": "en", **query}
    return f"{address}/?" + "&".join(f"{name}={quote(str(value))}" for name, value in asked.items())


def root(page):
    return page.locator(".hl[data-hash]")


def hover(page, panel, query, key):
    overlay = page.locator(f"[data-panel={panel}] .hl-overlay")
    overlay.scroll_into_view_if_needed()
    left, top, cell = (float(overlay.get_attribute(f"data-{name}")) for name in ("left", "top", "cell"))
    overlay.hover(position={"x": left + (key + 0.5) * cell, "y": top + (query + 0.5) * cell})
    return page.locator(".hl-tip-number").first.inner_text()


def test_six_layers_of_eight_heads_over_128_tokens_need_no_server(harness, visit, idle):
    source = [f"w{n % 97}" for n in range(128)]
    target = [f"z{n % 89}" for n in range(127)]
    page = visit(link(harness, source, target, layers=6, heads=8))
    root(page).wait_for()
    idle(page)
    maps = {each.key: each for each in sample_maps(source, target, 6, 8)}
    frames = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.webSocketFrameSent", lambda frame: frames.append(frame))
    page.locator("[data-panel=encoder] .hl-enlarge").click()
    frames.clear()
    layer = int(page.locator("[data-panel=encoder]").get_attribute("data-layer"))
    head = int(page.locator("[data-panel=encoder]").get_attribute("data-head"))
    for query, key in ((0, 0), (64, 30), (127, 127), (5, 120)):
        shown = float(hover(page, "encoder", query, key))
        assert shown == pytest.approx(maps["encoder"].weights[layer, head, query, key], abs=6e-5)
    assert not frames


@pytest.mark.parametrize(("summary", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_mean_and_maximum_are_asked_for_by_walking_past_the_last_head(harness, visit, summary, reduce):
    page = visit(link(harness, SOURCE, TARGET))
    body = page.locator("[data-panel=encoder] .hl-body")
    body.focus()
    for _ in range({"mean": 4, "max": 5}[summary]):
        body.press("ArrowRight")
    assert page.locator("[data-panel=encoder]").get_attribute("data-head") == summary
    weights = reduce(sample_maps(SOURCE, TARGET, 3, 4)[0].weights[0], axis=0)
    assert float(hover(page, "encoder", 3, 1)) == pytest.approx(weights[3, 1], abs=6e-4)


def test_words_join_their_parts(harness, visit):
    page = visit(link(harness, SOURCE, TARGET, view="words"))
    merged = merge_words(sample_maps(SOURCE, TARGET, 3, 4)[0])
    assert merged.key_tokens[3] == "teach-er"
    for query, key in ((0, 3), (3, 0), (3, 3)):
        assert float(hover(page, "encoder", query, key)) == pytest.approx(
            merged.weights[0, 0, query, key], abs=6e-4
        )


def test_the_scale_is_said_on_the_picture(harness, visit):
    assert "the head's largest" in root(visit(link(harness, SOURCE, TARGET, scale="head"))).inner_text()
    assert "the head's largest" not in root(visit(link(harness, SOURCE, TARGET))).inner_text()


def test_more_keys_than_d_k_are_remarked(harness, visit):
    assert "9 keys > d_k = 8" in root(visit(link(harness, SOURCE, TARGET))).inner_text()
    assert "keys > d_k" not in root(visit(link(harness, SOURCE[:4], TARGET[:2]))).inner_text()


@pytest.mark.parametrize("width", [1400, 800, 420])
def test_nothing_runs_out_of_a_narrow_page(harness, visit, width):
    page = visit(link(harness, SOURCE, TARGET), width=width)
    root(page).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth + 2")
    boxes = [page.locator(f"[data-panel={name}]").bounding_box() for name in ("encoder", "decoder", "cross")]
    stacked = boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert stacked == (width < 1000)


def test_tokens_are_text_and_nothing_else(harness, visit):
    nasty = ["<img/src=x/onerror=alert(1)>", "</script>", "&amp;", "a"]
    page = visit(link(harness, nasty, TARGET))
    hover(page, "encoder", 0, 1)
    assert "<img/src=x/onerror=alert(1)>" in page.locator(".hl-tip-cell").first.inner_text()
    assert page.locator(".hl img").count() == 0


def test_svg_and_png_hold_the_selected_head(harness, visit):
    page = visit(link(harness, SOURCE, TARGET))
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download the selected head as SVG").click()
    drawing = ET.fromstring(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    words = "".join(drawing.itertext())
    assert "teach" in words
    assert "Cross-attention" in words
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download the selected head as PNG").click()
    image = Path(caught.value.path()).read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    assert min(width, height) > 200


def test_the_saved_page_shows_the_same_numbers_without_a_network(browser, visit, tmp_path):
    maps = sample_maps(SOURCE, TARGET, 3, 4)
    with speaking("zh"):
        payload = heads_payload(
            maps, selection=Selection(), view="tokens", scale="unit", strings=heads_strings()
        )
    path = tmp_path / "heads.html"
    path.write_text(to_html(payload, "她 <b>"), encoding="utf-8")
    page = visit(path.as_uri())
    page.context.set_offline(True)
    page.reload()
    assert page.get_by_role("heading", name="她 <b>").is_visible()
    assert page.get_by_text("编码器自注意力").first.is_visible()
    for query, key in ((0, 0), (4, 2), (8, 7)):
        assert float(hover(page, "encoder", query, key)) == pytest.approx(
            maps[0].weights[0, 0, query, key], abs=6e-4
        )
    saved = re.search(r'id="payload">(.*?)</script>', path.read_text(encoding="utf-8"), re.S).group(1)
    assert base64.b64decode(json.loads(saved)["weights"]) == payload["weights"]
