"""Attention heads (section 3.2.2): a sentence in, and what every head of the model attends to.

A person types a source sentence; the model writes the target, or reads the one it is given. Three linked panels show
the encoder's self-attention, the decoder's masked self-attention and the cross-attention of that forward pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from lab.figures.arcs import sharpest_head
from lab.figures.heads import (
    AttentionMap,
    Scale,
    Selection,
    View,
    heads_payload,
    selection_from_json,
    selection_json,
)
from lab.figures.heads_export import to_csv, to_html
from lab.figures.reading_maps import reading_maps
from lab.ui.checkpoints import checkpoint_menu, checkpoint_title, example_sentences, usable_checkpoint
from lab.ui.heads_view import heads_strings, heads_view
from lab.ui.language import _
from lab.ui.readings import MOST_TOKENS, other_direction, read_sentence, without_head
from lab.ui.shell import page_start
from lab.ui.state import segments
from transformer.analysis.ablation import Mode
from transformer.analysis.reading import LengthError, Reading
from transformer.checkpoint import Checkpoint

PICTURE = "heads"
SENTENCES = "sentences_before"
HEIGHT = 700
BEAMS = (1, 2, 4, 8)
SUMMARIES = ("mean", "max")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to look at the heads (`view`, `scale`, `without`), and the `beam` the model writes with."""

    view: View
    scale: Scale
    without: Mode
    beam: int


def page() -> None:
    """Sentence, picture, downloads."""
    name = checkpoint_menu()
    st.title(_("Attention heads"))
    if name is None:
        st.info(_("There is no checkpoint here yet. Make one with `make checkpoint-reverse`, then reload."))
        return
    checkpoint = usable_checkpoint(name)
    if checkpoint is None:
        return
    source, target, options = sentences(name)
    try:
        reading = read_sentence(name, source, target, options.beam)
    except LengthError as error:
        st.error(too_long(error))
        return
    announce(reading)
    picture(name, checkpoint, reading, options)


def sentences(name: str) -> tuple[str, str, Options]:
    """Ask for the sentences and for how to look at them.

    Returns:
        The source, the target (empty: the model writes it), and the options.
    """
    examples = example_sentences(name)
    settle_sentences(examples)
    source_place, target_place, menu = st.columns([10, 10, 3], vertical_alignment="bottom")
    source = source_place.text_input(
        _("Source sentence"), key="source", bind="query-params", autocomplete="off"
    )
    target = target_place.text_input(
        _("Target sentence"),
        key="target",
        bind="query-params",
        autocomplete="off",
        placeholder=_("empty: the model writes it"),
    )
    st.session_state[SENTENCES] = (examples, source, target)
    with menu.popover(_("View"), icon=":material/tune:", width="stretch"):
        options = view_options()
        st.markdown(_("**Example sentences**"))
        for number, example in enumerate(examples):
            st.button(example, key=f"example_{number}", on_click=take, args=(name, example), width="stretch")
    if not source.strip():
        st.info(_("The source is empty, so this is the example. Type a sentence above."))
        source = examples[0]
    offer_other_direction(name, source)
    return source, target, options


def view_options() -> Options:
    """Ask how to look at the heads, and how the model writes."""
    ways = {"zero": _("zeroing it"), "uniform": _("attending evenly")}
    return Options(
        view=segments(_("Show"), {"tokens": _("tokens"), "words": _("words")}, key="view"),
        scale=segments(_("Colours"), {"unit": _("0 to 1"), "head": _("per head")}, key="scale"),
        without=segments(_("Take the head out by"), ways, key="without"),
        beam=st.select_slider(
            _("Beam (1: greedy)"), BEAMS, key="beam", bind="query-params",
            help=_("How many hypotheses the model keeps while it writes the target."),
        ),
    )  # fmt: skip


def settle_sentences(examples: list[str]) -> None:
    """Before their fields: open on an example, and bring back what was typed when the person was on another page.

    A change of the checkpoint brings its own example, unless the person typed a sentence.
    """
    examples_before, source, target = st.session_state.get(SENTENCES, (examples, examples[0], ""))
    asks_anew = st.query_params.get("source", source) != source
    if examples_before != examples and source in examples_before and not asks_anew:
        st.session_state["source"], st.session_state["target"] = examples[0], ""
    elif "source" not in st.session_state and "source" not in st.query_params:
        st.session_state["source"] = source
        if "target" not in st.query_params:
            st.session_state["target"] = target


def take(name: str, source: str) -> None:
    """Put a sentence into the source and let the checkpoint write the target."""
    st.session_state["checkpoint"] = name
    st.session_state["source"] = source
    st.session_state["target"] = ""


def offer_other_direction(name: str, source: str) -> None:
    """Offer the model that reads the script the sentence is written in."""
    other = other_direction(name, source)
    if other is not None:
        say, act = st.columns([3, 1], vertical_alignment="center")
        say.info(
            _("This model reads {language}.").format(
                language={"en-zh": _("English"), "zh-en": _("Chinese")}[name]
            )
        )
        act.button(
            _("Use {checkpoint}").format(checkpoint=checkpoint_title(other)),
            on_click=take, args=(other, source), type="primary", width="stretch", icon=":material/swap_horiz:",
        )  # fmt: skip


def too_long(error: LengthError) -> str:
    """Say in the person's language which sentence is too long."""
    message = {
        "source": _("The source has {length} tokens; this page shows at most {limit}. Shorten it."),
        "target": _("The target has {length} tokens; this page shows at most {limit}. Shorten it."),
    }[error.side]
    return message.format(length=error.length, limit=error.limit)


def announce(reading: Reading) -> None:
    """Say what was read and written, and what to look at."""
    head = _("The model writes") if reading.generated else _("The model is given")
    notes = []
    if not reading.finished:
        notes.append(_("It did not end within {limit} tokens.").format(limit=MOST_TOKENS))
    unknown = [
        token
        for encoded in (reading.source, reading.target)
        for token, missing in zip(encoded.tokens, encoded.unknown, strict=True)
        if missing
    ]
    if unknown:
        notes.append(_("Not in the vocabulary: {tokens}").format(tokens=" ".join(dict.fromkeys(unknown))))
    notice = _(
        "The darker a cell, the more its row looks at its column. In cross-attention each written word finds its source."
    )
    st.html(
        "<style>.said { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: baseline }"
        ".said p { margin: 0 0 0.25rem } .notice { opacity: 0.75; font-size: 0.9375rem }</style>"
        f"<div class='said'><p>{escape(head)} <strong>{escape(reading.target.text)}</strong> "
        f"<small>{escape(' '.join(notes))}</small></p><p class='notice'>{escape(notice)}</p></div>"
    )


def picture(name: str, checkpoint: Checkpoint, reading: Reading, options: Options) -> None:
    """Draw all heads, and say what the selected one does to the words that are written."""
    config = checkpoint.model.config
    maps = reading_maps(reading, config.d_model // config.num_heads)
    payload = heads_payload(
        maps,
        selection=selection_from_url(maps),
        view=options.view,
        scale=options.scale,
        strings=heads_strings(),
    )
    selection = selection_now(payload)
    payload["selection"] = selection_json(selection)
    if isinstance(selection.head, int):
        outcome = without_head(name, reading, selection.map, selection.layer, selection.head, options.without)
        payload["causal"] = {
            "map": selection.map,
            "layer": selection.layer,
            "head": selection.head,
            "mode": options.without,
            "tokens": list(reading.target.tokens),
            "before": list(outcome.before),
            "after": list(outcome.after),
            "delta": list(outcome.change),
        }
    selection_to_url(heads_view(payload, key=PICTURE, height=HEIGHT))
    title = f"{checkpoint_title(name)}: {reading.source.text}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            _("Weights (CSV)"), lambda: to_csv(maps), "attention.csv", "text/csv",
            on_click="ignore", icon=":material/table:",
        )  # fmt: skip
        st.download_button(
            _("Picture (HTML)"), lambda: to_html(payload, title), "attention.html", "text/html",
            on_click="ignore", icon=":material/html:",
        )  # fmt: skip
        st.caption(
            _(
                "A weight says where a head looks, not why the model answers as it does (Jain and Wallace 2019). "
                "What the head does is seen when it is taken out."
            ),
            width="stretch",
        )


def selection_from_url(maps: list[AttentionMap]) -> Selection:
    """The map, layer and head in the address; by default the sharpest cross-attention."""
    cross = next(each for each in maps if each.key == "cross")
    sharpest = sharpest_head(cross)
    asked = next((each for each in maps if each.key == st.query_params.get("map")), cross)
    layers, heads = asked.weights.shape[:2]
    layer, head = sharpest if asked is cross else (layers - 1, 0)
    named = st.query_params.get("head", "")
    return Selection(
        map=asked.key,
        layer=number_from(st.query_params.get("layer", ""), layers, layer),
        head=named if named in SUMMARIES else number_from(named, heads, head),
        heads={"cross": sharpest},
    )


def number_from(text: str, count: int, default: int) -> int:
    """An index below `count` from a number that counts from 1, or `default` if it is none."""
    numbers = {str(index + 1): index for index in range(count)}
    return numbers.get(text, default)


def selection_now(payload: Mapping[str, Any]) -> Selection:
    """What the reader has selected in the picture, which is known before it is drawn again."""
    given = selection_from_json(payload["selection"], payload, Selection())
    reported = st.session_state.get(PICTURE, {}).get("selection")
    return selection_from_json(reported, payload, given)


def selection_to_url(selection: Selection) -> None:
    """Put the map, layer and head into the address, counted from 1."""
    head = selection.head + 1 if isinstance(selection.head, int) else selection.head
    st.query_params.update({"map": selection.map, "layer": selection.layer + 1, "head": head})


page_start()
page()
