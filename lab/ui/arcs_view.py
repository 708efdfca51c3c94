"""The picture of arcs on a page: mounts ``assets/components/arcs``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "components" / "arcs"
_picture = st.components.v2.component(
    "headlight_arcs",
    html='<div class="arcs-root"></div>',
    css=(_FOLDER / "arcs.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "arcs.js").read_text(encoding="utf-8"),
)


def arcs_view(payload: Mapping[str, Any], *, label: str, key: str) -> None:
    """Draw arcs; everything after that happens in the browser.

    Args:
        payload: What `lab.figures.arcs.arcs_payload` returned.
        label: What a screen reader calls the picture.
        key: The component's key.
    """
    _picture(key=key, data={**payload, "label": label})
