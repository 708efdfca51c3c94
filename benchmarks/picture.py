"""The picture of all heads in a browser against the same heads as Plotly heatmaps: time to the picture, and to answer.

128 tokens, 6 layers, 8 heads, 3 maps. Needs Chromium, or the browser named in E2E_BROWSER.

    PYTHONPATH=. python benchmarks/picture.py
"""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from plotly.subplots import make_subplots

from lab.figures.heads import Selection, heads_payload
from lab.figures.heads_export import to_html
from lab.ui.heads_view import heads_strings
from lab.ui.language import speaking
from tests.lab.heads_sample import sample_maps

# Time from the start of the page until the browser has painted after everything ran.
PAINTED = """() => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"""


def main() -> None:
    browser_path = os.environ.get("E2E_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("no Chromium was found: the picture was not measured")
        return
    maps = sample_maps([f"w{n}" for n in range(128)], [f"z{n}" for n in range(127)], 6, 8)
    with speaking("en"):
        payload = heads_payload(
            maps, selection=Selection(), view="tokens", scale="unit", strings=heads_strings()
        )
    figure = make_subplots(rows=18, cols=8, horizontal_spacing=0.005, vertical_spacing=0.004)
    for block, each in enumerate(maps):
        for layer, heads in enumerate(each.weights):
            for head, weights in enumerate(heads):
                figure.add_heatmap(
                    z=weights, zmin=0, zmax=1, showscale=False, row=6 * block + layer + 1, col=head + 1
                )
    figure.update_layout(width=1300, height=2900)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = {"Headlight": Path(folder, "heads.html"), "Plotly": Path(folder, "plotly.html")}
        pages["Headlight"].write_text(to_html(payload, "heads"), encoding="utf-8")
        figure.write_html(pages["Plotly"], include_plotlyjs=True, config={"showSendToCloud": False})
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"] if os.geteuid() == 0 else []
        )
        shown, answers = {}, {}
        for name, path in pages.items():
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(path.as_uri())
            shown[name] = page.evaluate(PAINTED) / 1000
            answers[name] = slowest_answer(page, "canvas.hl-overlay" if name == "Headlight" else ".nsewdrag")
        browser.close()
    ratio = {name: values["Plotly"] / values["Headlight"] for name, values in (("s", shown), ("a", answers))}
    print(
        f"128 tokens, 6 x 8 heads, 3 maps, until painted: Headlight {shown['Headlight']:.2f} s, Plotly {ratio['s']:.1f} "
        f"times that; slowest frame while pointing: {answers['Headlight']:.0f} ms, Plotly {ratio['a']:.1f} times that"
    )


def slowest_answer(page: Page, selector: str) -> float:
    """Milliseconds of the longest frame while the mouse moves over a picture."""
    box = page.locator(selector).first.bounding_box()
    page.evaluate(
        """() => { window.frames_ = []; let last = performance.now();
        const tick = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(tick); };
        requestAnimationFrame(tick); }"""
    )
    for step in range(40):
        page.mouse.move(
            box["x"] + box["width"] * (0.3 + step / 80), box["y"] + box["height"] * (0.3 + step / 80)
        )
    return page.evaluate("Math.max(...window.frames_)")


if __name__ == "__main__":
    main()
