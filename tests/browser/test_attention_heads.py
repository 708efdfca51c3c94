"""The page of attention heads as a person uses it, its numbers held against the model's own trace."""

import csv
import io
import re
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from lab.figures.reading_maps import reading_maps
from transformer.analysis.ablation import ablate_head
from transformer.analysis.reading import read
from transformer.checkpoint import load

pytestmark = pytest.mark.browser

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
SENTENCE = "3 1 4 1 5 9"
LINK = f"/attention_heads?lang=en&checkpoint=reverse&source={quote(SENTENCE)}"
CHINESE = "她昨天买的那本书很有意思。"


@pytest.fixture(scope="module")
def reading():
    return read(load(CHECKPOINTS / "reverse"), SENTENCE)


@pytest.fixture(scope="module")
def maps(reading):
    return {each.key: each for each in reading_maps(reading, 16)}


def asked(page):
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def root(page):
    return page.locator(".hl[data-hash]")


def point(page, panel, query, key, *, click=False):
    """Move the mouse to a cell of the large map of a panel, and click it if asked to."""
    overlay = page.locator(f"[data-panel={panel}] .hl-overlay")
    overlay.scroll_into_view_if_needed()
    left, top, cell = (float(overlay.get_attribute(f"data-{name}")) for name in ("left", "top", "cell"))
    position = {"x": left + (key + 0.5) * cell, "y": top + (query + 0.5) * cell}
    if click:
        overlay.click(position=position)
    else:
        overlay.hover(position=position)


def place(page):
    return {
        name: root(page).get_attribute(f"data-{name}") for name in ("map", "layer", "head", "lit", "pinned")
    }


def test_pointing_reads_the_models_own_weight_and_lights_the_token_everywhere(app, visit, maps):
    page = visit(app + LINK + "&map=encoder&layer=1&head=2")
    for panel, layer, head in (("encoder", 0, 1), ("decoder", 1, 0)):
        weights, mask = maps[panel].weights[layer, head], maps[panel].mask
        for query, key in ((0, 0), (3, 1), (5, 4), (2, 5)):
            point(page, panel, query, key)
            shown = page.locator(".hl-tip-number").first.inner_text()
            if mask[query, key]:
                assert float(shown) == pytest.approx(weights[query, key], abs=6e-4)
            else:
                assert shown == "masked"
    # Repeated tokens are apart: the second "1" of the source is lit as a key of the cross-attention, not the first.
    point(page, "encoder", 3, 3)
    assert page.locator("[data-panel=cross]").get_attribute("data-columns") == "3"
    assert page.locator("[data-panel=decoder]").get_attribute("data-columns") == ""


def test_rows_name_the_token_read_and_the_token_predicted(app, visit, reading):
    page = visit(app + LINK + "&map=cross&layer=1&head=1")
    point(page, "cross", 2, 0)
    read_token, predicted = reading.decoder_input[2], reading.target.tokens[2]
    assert page.locator(".hl-tip-reads").first.inner_text() == f"reads {read_token} → predicts {predicted}"


def test_a_click_pins_and_a_key_unpins(app, visit, idle):
    page = visit(app + LINK)
    point(page, "decoder", 4, 2, click=True)
    assert place(page)["pinned"] == "decoder:4:2"
    page.mouse.move(5, 5)
    idle(page)
    assert place(page)["lit"] == "decoder:4:2"
    page.keyboard.press("Escape")
    idle(page)
    assert place(page)["pinned"] == ""


def test_arrow_keys_walk_heads_and_layers_and_the_address_follows(app, visit, idle):
    page = visit(app + LINK + "&map=encoder&layer=1&head=1")
    page.locator("[data-panel=encoder] .hl-body").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.wait_for_url(re.compile("layer=2"))
    idle(page)
    found = place(page)
    assert (found["map"], found["layer"], found["head"]) == ("encoder", "1", "2")
    assert {name: asked(page)[name] for name in ("map", "layer", "head")} == {
        "map": "encoder", "layer": "2", "head": "3",
    }  # fmt: skip
    page.reload()
    idle(page)
    root(page).wait_for()
    assert place(page) == {**found, "lit": place(page)["lit"]}


@pytest.mark.parametrize("mode", ["zero", "uniform"])
def test_the_causal_number_is_what_taking_the_head_out_does(app, visit, reading, mode):
    page = visit(app + LINK + f"&map=cross&layer=2&head=1&without={mode}")
    outcome = ablate_head(
        load(CHECKPOINTS / "reverse").model,
        torch.tensor([reading.source.ids]),
        torch.tensor([reading.target.ids]),
        map="cross",
        layer=1,
        head=0,
        mode=mode,
    )
    page.locator(".hl-strip[data-state=ready]").wait_for()
    shown = page.locator(".hl-strip-number").inner_text().replace("−", "-").split()[-1]
    assert float(shown) == pytest.approx(np.mean(outcome.change), abs=6e-3)
    largest = int(np.argmax(np.abs(outcome.change)))
    assert reading.target.tokens[largest] in page.locator(".hl-strip-detail").inner_text()


def test_the_language_switch_keeps_everything(app, visit, idle):
    page = visit(app + LINK + "&map=decoder&layer=2&head=3&view=words&scale=head&target=9%205%201")
    before = asked(page)
    page.get_by_role("radio", name="中文").click()
    idle(page)
    assert asked(page) == {**before, "lang": "zh"}
    expect(page.get_by_label("源句", exact=True)).to_have_value(SENTENCE)
    expect(page.get_by_label("目标句", exact=True)).to_have_value("9 5 1")
    page.get_by_text("解码器自注意力").first.wait_for()
    assert place(page)["head"] == "2"


def test_a_deep_link_as_the_first_request_after_the_start(serve, visit):
    with serve() as address:
        page = visit(f"{address}{LINK}&map=encoder&layer=2&head=4".replace("lang=en", "lang=zh"))
        root(page).wait_for()
        assert (place(page)["map"], place(page)["layer"], place(page)["head"]) == ("encoder", "1", "3")
        assert page.get_by_role("heading", name="注意力头").is_visible()


def test_typing_and_switching_the_checkpoint(app, visit, idle):
    page = visit(app + "/attention_heads?lang=en&checkpoint=reverse")
    source = page.get_by_label("Source sentence", exact=True)
    expect(source).to_have_value("3 1 4 1 5 9 2 6")
    source.fill("7 7 8")
    source.press("Enter")
    idle(page)
    page.get_by_text("8 7 7", exact=True).wait_for()
    assert asked(page)["source"] == "7 7 8"
    page.locator("section[data-testid=stSidebar] [data-testid=stSelectbox] input").click()
    page.get_by_role("option", name="Sort digits (toy)").click()
    idle(page)
    # What a person typed stays; only an example gives way to the checkpoint's own.
    assert source.input_value() == "7 7 8"
    assert asked(page)["checkpoint"] == "sort"
    page.get_by_text("7 7 8", exact=True).first.wait_for()


@pytest.mark.skipif(
    not (CHECKPOINTS / "zh-en" / "config.json").exists(), reason="the translation models are not there"
)
def test_a_sentence_in_the_other_script_offers_the_other_direction(app, visit, idle):
    page = visit(app + f"/attention_heads?lang=en&checkpoint=en-zh&source={quote(CHINESE)}")
    page.get_by_role("button", name="Use Chinese → English").click()
    idle(page)
    assert asked(page)["checkpoint"] == "zh-en"
    assert asked(page)["source"] == CHINESE
    assert page.get_by_role("button", name=re.compile("^Use ")).count() == 0


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("1 " * 129, "The source has 129 tokens; this page shows at most 128. Shorten it."),
        ("<script>alert(1)</script> **b** $x$ 😀 她", "Not in the vocabulary"),
        ("   ", "The source is empty, so this is the example."),
    ],
)
def test_odd_sentences_are_answered_in_a_sentence(app, visit, source, sentence):
    page = visit(app + f"/attention_heads?lang=en&checkpoint=reverse&source={quote(source)}")
    page.get_by_text(sentence).first.wait_for()
    expect(page.get_by_label("Source sentence", exact=True)).to_have_value(source)


def test_what_the_address_gets_wrong_is_passed_over(app, visit):
    page = visit(app + LINK + "&map=x&layer=-3&head=99999999999&view=a&scale=b&without=c&beam=77")
    root(page).wait_for()
    assert asked(page)["view"] == "tokens"
    assert place(page)["map"] == "cross"


def test_128_tokens_on_both_sides_and_no_traffic_while_pointing(app, visit, idle):
    digits = quote(" ".join(str(n % 10) for n in range(128)))
    link = f"/attention_heads?lang=en&checkpoint=reverse&map=encoder&source={digits}&target={digits}"
    page = visit(app + link)
    root(page).wait_for()
    assert page.locator("[data-panel=encoder] .hl-overlay").get_attribute("data-cell") is not None
    idle(page)
    frames = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.webSocketFrameSent", lambda frame: frames.append(frame))
    overlay = page.locator("[data-panel=encoder] .hl-overlay")
    for step in range(30):
        overlay.hover(position={"x": 80 + 3 * step, "y": 120 + 2 * step})
    assert not frames


def test_downloads_hold_the_weights(app, visit, maps):
    page = visit(app + LINK)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Weights (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8-sig"))))
    assert len(rows) == sum(each.weights.size for each in maps.values())
    for row in rows[:: max(1, len(rows) // 200)]:
        attention = maps[row["map"]]
        cell = tuple(int(row[name]) - 1 for name in ("layer", "head", "query_position", "key_position"))
        assert np.float32(row["weight"]) == pytest.approx(attention.weights[cell], abs=1e-6)
        assert row["key_token"] == attention.key_tokens[cell[3]]

    with page.expect_download() as caught:
        page.get_by_role("button", name="Picture (HTML)").click()
    saved = Path(caught.value.path())
    text = saved.read_text(encoding="utf-8")
    assert not re.search(r"\bhttps?://|\bwss?://", text.replace("http://www.w3.org/2000/svg", ""))


def test_the_table_says_what_the_picture_shows(app, visit, maps):
    page = visit(app + LINK + "&map=encoder&layer=1&head=1")
    page.get_by_role("button", name="Show the selected head as a table").click()
    cells = page.locator(".hl-table tbody tr").nth(2).locator("td")
    shown = [float(text) for text in cells.all_inner_texts()]
    assert shown == pytest.approx(maps["encoder"].weights[0, 0, 2].tolist(), abs=6e-4)
