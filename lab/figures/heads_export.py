"""The picture of all heads taken away: a table of every weight, and a page that needs nothing else."""

import base64
import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.figures.heads import AttentionMap
from lab.figures.scripts import picture_script, picture_style

CSV_COLUMNS = (
    "map",
    "layer",
    "head",
    "query_position",
    "query_token",
    "predicted_token",
    "key_position",
    "key_token",
    "weight",
    "masked",
)
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def guard_cell(text: str) -> str:
    """`text` with an apostrophe before it if a spreadsheet might take it for a formula (full-width signs included)."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def to_csv(maps: Sequence[AttentionMap]) -> bytes:
    """Every weight of `maps` as a row of CSV.

    UTF-8 with a byte order mark, without which Excel garbles Chinese. Layers, heads and positions count from 1, as
    in the picture; weights carry nine significant digits, which give back the float32 exactly. Tokens pass
    `guard_cell`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for attention in maps:
        queries = [guard_cell(token) for token in attention.query_tokens]
        keys = [guard_cell(token) for token in attention.key_tokens]
        predicted = [guard_cell(token) for token in attention.predicted_tokens or ("",) * len(queries)]
        masked = (~attention.mask).astype(int).tolist()
        for layer, heads in enumerate(attention.weights, start=1):
            for head, weights in enumerate(heads, start=1):
                for query, row in enumerate(weights.tolist()):
                    writer.writerows(
                        (
                            attention.key,
                            layer,
                            head,
                            query + 1,
                            queries[query],
                            predicted[query],
                            key + 1,
                            keys[key],
                            format(weight, ".9g"),
                            masked[query][key],
                        )
                        for key, weight in enumerate(row)
                    )
    return text.getvalue().encode("utf-8-sig")


def to_html(payload: Mapping[str, Any], title: str) -> str:
    """The picture as one HTML page: the same script, style and numbers inside it, and no reference to any network.

    Args:
        payload: What `lab.figures.heads.heads_payload` returned.
        title: Title and heading of the page, plain text.
    """
    data = dict(payload, weights=base64.b64encode(payload["weights"]).decode("ascii"))
    # Inside a script element only "<" can end or open anything; the line separators are for old JavaScript.
    text = json.dumps(data, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    language = html.escape(payload["strings"].get("language", "en"))
    return f"""<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; padding: 16px; max-width: 1400px; font-family: system-ui, sans-serif;
  background: #ffffff; color: #1c2029; }}
h1 {{ font-size: 20px; font-weight: 600; margin: 0 0 12px; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #10141b; color: #e8eaee; }} }}
{picture_style("heads")}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<main id="picture"></main>
<script type="application/json" id="payload">{text}</script>
<script type="module">
{picture_script("heads")}
mountStandalone(document.getElementById("picture"), document.getElementById("payload").textContent);
</script>
</body>
</html>
"""
