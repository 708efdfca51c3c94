"""A page with nothing but the picture of all heads, over an untrained model's traced weights.

Query parameters: source, target (tokens apart by spaces), layers, heads, view, scale, causal, lang.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamlit as st

st.set_page_config(layout="wide")

from lab.figures.heads import Selection, heads_payload  # noqa: E402
from lab.ui.heads_view import heads_strings, heads_view  # noqa: E402
from lab.ui.language import settle_language  # noqa: E402
from tests.lab.heads_sample import causal_sample, sample_maps  # noqa: E402

asked = st.query_params
source = asked.get("source", "她 昨 天 买 的 那 本 书 很 有 意 思 。").split()
target = asked.get("target", "The book she bought yesterday is very interest ing .").split()
settle_language()
maps = sample_maps(source, target, int(asked.get("layers", "3")), int(asked.get("heads", "4")))
selected = Selection(map="cross", layer=1, head=1, heads={"encoder": (0, 0), "decoder": (0, 1)})
shown = st.session_state.get("shown", selected)
payload = heads_payload(
    maps,
    selection=shown,
    view=asked.get("view", "tokens"),
    scale=asked.get("scale", "unit"),
    strings=heads_strings(),
    causal=causal_sample(maps, shown) if "causal" in asked else None,
)
selection = heads_view(payload, key="heads", height=int(os.environ.get("HEADS_HEIGHT", "760")))
if selection != shown:
    st.session_state["shown"] = selection
    if "causal" in asked:
        st.rerun()
st.text(f"selected {selection.map} {selection.layer} {selection.head}")
st.text(f"pinned {selection.pinned}")
