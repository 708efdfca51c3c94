"""The picture of all heads on a page: mounts ``assets/components/heads`` and returns what the reader selected."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.figures.heads import Pin, Selection, selection_from_json
from lab.figures.scripts import picture_script, picture_style
from lab.ui.language import _, language

__all__ = ["Pin", "Selection", "heads_strings", "heads_view"]

_SCRIPT = picture_script("heads")

# Weights and the rest travel apart: Streamlit resends a message only if it changed, and the rest changes with each
# selection. Both components run the same module, which joins them by digest (see attention.js).
_weights = st.components.v2.component("headlight_heads_weights", js=_SCRIPT)
_picture = st.components.v2.component(
    "headlight_heads_picture", html='<div class="hl"></div>', css=picture_style("heads"), js=_SCRIPT
)


def heads_view(payload: Mapping[str, Any], *, key: str, height: int) -> Selection:
    """Draw all heads; hovering stays in the browser, a change of selection reruns the script.

    Args:
        payload: What `lab.figures.heads.heads_payload` returned.
        key: The widget's key; the reader's choices are kept under it.
        height: Height in CSS pixels to fit into on a wide screen; on a narrow one the panels stack.

    Returns:
        The selection now: the reader's, or the payload's own until the reader has made one that fits it.
    """
    described = {name: value for name, value in payload.items() if name != "weights"}
    with st.container(gap=None):
        result = _picture(
            key=key,
            data={**described, "id": key, "height": height},
            default={"selection": None},
            on_selection_change=_no_action,
        )
        _weights(key=f"{key}_weights", data=payload["weights"])
    given = payload["selection"]
    initial = selection_from_json(given, payload, Selection())
    return selection_from_json(result.selection, payload, initial)


def _no_action() -> None:
    """Streamlit only reports states that have a callback."""


def heads_strings() -> dict[str, str]:
    """Every visible string of the picture, in the session's language."""
    return {
        "language": language(),
        "title_encoder": _("Encoder self-attention"),
        "title_decoder": _("Decoder self-attention"),
        "title_cross": _("Cross-attention"),
        "place_head": _("layer {layer} · head {head}"),
        "place_mean": _("layer {layer} · mean over heads"),
        "place_max": _("layer {layer} · maximum over heads"),
        "mean": _("mean"),
        "max": _("max"),
        "weight": _("weight"),
        "head_maximum": _("the head's largest"),
        "up_to": _("colour 0 to {max}"),
        "masked": _("masked"),
        "masked_short": _("masked"),
        "rows": _("rows: queries, who looks"),
        "columns": _("columns: keys, looked at"),
        "query_column": _("query"),
        "reads": _("reads"),
        "predicts": _("predicts"),
        "reads_predicts": _("reads {read} → predicts {predicted}"),
        "position": _("position {position}"),
        "hint": _("Point at a cell to read its weight, click to pin it. ← → walk the heads, ↑ ↓ the layers."),
        "pinned": _("pinned"),
        "unpinned": _("unpinned"),
        "sink": _("sink: “{token}” {share}"),
        "sink_why": _(
            "“{token}” (position {position}) draws on average {share} of the attention: "
            "many heads rest like this when they find nothing to look for."
        ),
        "many_keys": _("{keys} keys > d_k = {d_k}"),
        "many_keys_why": _(
            "With more keys than the head is wide, other weights could give exactly the same output "
            "(Brunner et al. 2020)."
        ),
        "enlarge": _("Enlarge"),
        "shrink": _("Side by side"),
        "svg": "SVG",
        "svg_label": _("Download the selected head as SVG"),
        "png": "PNG",
        "png_label": _("Download the selected head as PNG"),
        "table": _("Table"),
        "table_label": _("Show the selected head as a table"),
        "panel_label": _(
            "{title}, {place}. Left and right: heads. Up and down: layers. "
            "Shift and arrows: cells. Enter pins, Escape unpins."
        ),
        "causal_zero": _("Probability of each generated token when this head is set to zero"),
        "causal_uniform": _("Probability of each generated token when this head attends evenly"),
        "causal_mean": _("mean change {mean}"),
        "causal_largest": _("largest: {token} {before} → {after}"),
        "causal_change": _("probability {before} → {after}"),
        "causal_computing": _("computing …"),
        "causal_summary": _("A summary over heads cannot be switched off: choose a head."),
    }
