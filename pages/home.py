"""Home: a sentence that a real model has just translated, where it looked, and three examples one click away."""

from html import escape

import streamlit as st

from lab.figures.arcs import arcs_payload, sharpest_head, strongest_arc
from lab.figures.reading_maps import reading_maps
from lab.ui.arcs_view import arcs_view
from lab.ui.checkpoints import checkpoint_names, checkpoint_title, example_sentences, usable_checkpoint
from lab.ui.language import _, language
from lab.ui.readings import read_sentence
from lab.ui.shell import page_start

EXAMPLES = {
    "zh-en": "她昨天买的那本书很有意思。",
    "en-zh": "The book she bought yesterday is very interesting.",
    "anaphora": "女王看见了厨师，因为他来晚了。",
}


def page() -> None:
    """Claim, picture, examples, ways on, credit."""
    st.title(_("See what a Transformer attends to"))
    st.markdown(
        _(
            "A real encoder–decoder Transformer, small enough for this laptop. Type a sentence, and see what every "
            "head looks at while it writes. Every number comes from the running model."
        )
    )
    names = checkpoint_names()
    if names:
        picture(opening(names))
        examples(names)
    ways_on()
    credit()


def opening(names: list[str]) -> str:
    """The checkpoint that opens the page: one that reads the person's language, if it is there."""
    wanted = {"zh": "zh-en", "en": "en-zh"}[language()]
    return wanted if wanted in names else names[0]


def picture(name: str) -> None:
    """Draw where the sharpest head looked while the model wrote."""
    checkpoint = usable_checkpoint(name)
    if checkpoint is None:
        return
    reading = read_sentence(name, example_sentences(name)[0], "", 1)
    config = checkpoint.model.config
    cross = next(
        each for each in reading_maps(reading, config.d_model // config.num_heads) if each.key == "cross"
    )
    layer, head = sharpest_head(cross)
    place = _("layer {layer} · head {head}").format(layer=layer + 1, head=head + 1)
    with st.container(border=True):
        arcs_view(arcs_payload(cross, layer, head), label=f"{_('Cross-attention')}, {place}", key="arcs")
        told = _(
            "Above: what the model read. Below: what it wrote. The arcs are the attention weights of one head ({place})."
        ).format(place=place)
        arc = strongest_arc(cross, layer, head)
        if arc is not None:
            noticed = _(
                "To write “{written}”, it put {weight} of its attention on “{read}”. Point at any word to see where else it "
                "looked, not always where one would expect."
            ).format(written=arc.written, read=arc.read, weight=f"{arc.weight:.3g}")
            told = f"{told}  \n{noticed}"
        st.caption(told)


def examples(names: list[str]) -> None:
    """Three examples, each a link to the picture of all its heads."""
    st.subheader(_("Look at every head"))
    for column, (name, sentence) in zip(st.columns(len(EXAMPLES)), EXAMPLES.items(), strict=True):
        if name not in names:
            continue
        with column, st.container(border=True, height="stretch"):
            st.caption(checkpoint_title(name))
            st.page_link(
                "pages/attention_heads.py",
                label=sentence,
                icon=":material/grid_view:",
                query_params={"lang": language(), "checkpoint": name, "source": sentence},
            )


def ways_on() -> None:
    """What to try next."""
    st.subheader(_("Try next"))
    ways = (
        (
            "attention_heads",
            _("Type a sentence of your own and walk through the heads with the arrow keys"),
            ":material/keyboard:",
            {},
        ),
        (
            "positional_encoding",
            _("Shuffle the words: does attention notice?"),
            ":material/shuffle:",
            {"step": "shuffle"},
        ),
        ("train", _("Train a model of your own, in less than a minute"), ":material/model_training:", {}),
        (
            "time_machine",
            _("Watch attention grow, from even to sharp, while a model learns"),
            ":material/history:",
            {},
        ),
        ("add_norm", _("Pre-norm or post-norm? Let both train side by side"), ":material/balance:", {}),
        ("runs", _("Compare trainings, seed by seed"), ":material/table_rows:", {}),
    )
    columns = st.columns(2)
    for number, (page_name, label, icon, query) in enumerate(ways):
        with columns[number % 2]:
            st.page_link(
                f"pages/{page_name}.py", label=label, icon=icon, query_params={"lang": language(), **query}
            )


def credit() -> None:
    """Whose sentences the translation models learned from, as their licence asks."""
    source = _(
        "The translation models learned from sentences of {tatoeba}, paired by {manythings}, under {licence}."
    )
    links = {
        "tatoeba": "<a href='https://tatoeba.org'>Tatoeba</a>",
        "manythings": "<a href='https://www.manythings.org/anki/'>ManyThings.org</a>",
        "licence": "<a href='https://creativecommons.org/licenses/by/2.0/fr/'>CC BY 2.0 FR</a>",
    }
    st.html(f"<small>{escape(source).format(**links)}</small>")


page_start()
page()
