"""Positional encoding (section 3.5): how a model that sees a set is told the order, in five steps.

Waves, their dot products, the rotation that moves them on, other ways, and the proof that order is lost without.
"""

from collections.abc import Iterable

import numpy as np
import streamlit as st
import torch
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from lab.figures import positions as figures
from lab.ui.checkpoints import (
    checkpoint_folder,
    checkpoint_menu,
    checkpoint_names,
    checkpoint_title,
    usable_checkpoint,
)
from lab.ui.language import _
from lab.ui.shell import page_start
from lab.ui.state import menu, segments
from transformer.analysis.offsets import offset_spread, rotary_scores, undo_rotation
from transformer.analysis.reading import with_end
from transformer.analysis.shuffle import prove_by_shuffling, reversed_words, shuffled_words
from transformer.checkpoint import Checkpoint, read_config
from transformer.data.tasks import TASKS
from transformer.positions import alibi_bias, alibi_slopes, angular_frequencies, offset_rotation, sinusoidal
from transformer.trace import Trace
from transformer.vocabulary import Encoded

WIDTHS = (4, 8, 16, 32, 64, 96, 128, 256, 512)
BASES = (10, 100, 1000, 10000, 100000)
LENGTHS = (8, 256)
FURTHEST = 64
MOST_TOKENS = 40
ROTARY_POSITIONS = 32
LONGEST_SEED = 9999
# Pixels: a slider, a menu, and a picture that has another one beside it.
CONTROL, CHOICE, PICTURE = 140, 168, 456
ERROR = r" $|R_k\,PE_{pos}-PE_{pos+k}|$"
EXAMPLES = {
    "en-zh": "The book she bought yesterday is very interesting.",
    "zh-en": "她昨天买的那本书很有意思。",
    "anaphora": "the cat followed the doctor because it was hungry .",
    "reverse": "3 1 4 1 5 9 2 6",
    "sort": "3 1 4 1 5 9 2 6",
}


def waves() -> None:
    """Step 1: sines and cosines from fast to slow."""
    width, length, base, row = wave_controls()
    pairs = row.multiselect(
        _("Pairs $i$ drawn as waves"), range(width // 2), default=sorted({0, width // 16, width // 6}),
        max_selections=figures.MAX_PAIRS, key="pairs", bind="query-params", width=2 * CONTROL,
    )  # fmt: skip
    table, frequencies = sinusoidal(length, width, base), angular_frequencies(width, base)
    figure = figures.wave_figure(
        table.numpy(), frequencies.float().numpy(), pairs,
        position=_("position"), dimension=_("dimension"), value=_("value"),
    )  # fmt: skip
    show(
        figure,
        _("Waves of the chosen dimensions above the table of all encodings, position against dimension."),
    )
    st.markdown(
        _(
            "Read the lower picture column by column: one column is the vector added to the word at that position. "
            "All numbers stay between −1 and 1, however long the text. Fast waves tell neighbours apart; the slowest "
            "needs {longest} positions for one turn."
        ).format(longest=f"{2 * np.pi / frequencies[-1].item():,.0f}")
    )


def dot_products() -> None:
    """Step 2: how alike two encodings are says how far apart they stand."""
    width, length, base, row = wave_controls()
    row.latex(r"PE_{pos}\cdot PE_{pos+k}=\sum_{i=0}^{d_{model}/2-1}\cos(\omega_i k)", width="content")
    table = sinusoidal(length, width, base)
    products = table @ table.T
    matrix, curves = side_by_side()
    with matrix:
        figure = figures.similarity_figure(
            products.numpy(), largest=width / 2, position=_("position"), value=_("dot product"),
            title=_("Every two positions"),
        )  # fmt: skip
        show(figure, _("Dot products of the encodings of every two positions; equal along every diagonal."))
    with curves:
        rows = sorted({0, length // 4, length // 2, 3 * length // 4, length - 1})
        figure = figures.offset_figure(
            products.numpy(), rows, offset=_("distance k"), value=_("dot product"),
            position_symbol="pos", title=_("The same numbers against the distance"),
        )  # fmt: skip
        show(figure, _("Dot product against distance for several positions; the lines lie on one another."))
    result = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    result.markdown(
        _(
            "The lines lie on one another: the dot product knows only **how far apart** two words stand. It is "
            "symmetric, so by itself it cannot tell left from right."
        ),
        width=560,
    )
    result.metric(
        _("Largest difference at equal distance"),
        figures.short_number(offset_spread(products)),
        width="content",
    )


def rotation() -> None:
    """Step 3: one matrix moves every encoding on by k."""
    width, length, base, row = wave_controls()
    position = row.slider(_("Position $pos$"), 0, FURTHEST, 3, key="pos", bind="query-params", width=CONTROL)
    offset = row.slider(_("Distance $k$"), 1, FURTHEST, 5, key="k", bind="query-params", width=CONTROL)
    pair = row.selectbox(
        _("Pair $i$"), range(width // 2), index=width // 16, key="pair", bind="query-params", width=90
    )
    position, offset = bounded(position, 0, FURTHEST), bounded(offset, 1, FURTHEST)
    table = sinusoidal(max(length, position + offset + 1), width, base)
    frequency = angular_frequencies(width, base)[pair].item()
    left, right = side_by_side()
    with left:
        figure = figures.clock_figure(
            table.numpy(), pair, frequency, position, offset,
            sine=_("dimension {number} (sin)").format(number=2 * pair),
            cosine=_("dimension {number} (cos)").format(number=2 * pair + 1), number=_("position"),
        )  # fmt: skip
        show(
            figure,
            _("Two dimensions of the encodings as a clock's hand, turned from one position to another."),
        )
    matrix = offset_rotation(offset, width, base)
    block = slice(2 * pair, 2 * pair + 2)
    start, end, turn = table[position, block], table[position + offset, block], matrix[block, block]
    error = (
        (sinusoidal(length, width, base) @ matrix.T - sinusoidal(length, width, base, start=offset))
        .abs()
        .max()
    )
    with right:
        st.latex(
            rf"""\underbrace{{\textcolor{{{figures.WAVES[0]}}}{{{column(end)}}}}}_{{PE_{{{position + offset}}}}}
            =\underbrace{{\textcolor{{{figures.WAVES[1]}}}{{\begin{{pmatrix}}{number(turn[0, 0])}&{number(turn[0, 1])}
            \\{number(turn[1, 0])}&{number(turn[1, 1])}\end{{pmatrix}}}}}}_{{R_{{{offset}}}}}
            \underbrace{{\textcolor{{{figures.WAVES[2]}}}{{{column(start)}}}}}_{{PE_{{{position}}}}}"""
        )
        st.latex(
            r"R_k=\begin{pmatrix}\cos k\omega_i&\sin k\omega_i\\-\sin k\omega_i&\cos k\omega_i\end{pmatrix}"
        )
        st.latex(
            rf"k\,\omega_{{{pair}}}={offset * frequency:.3g}\ \mathrm{{rad}}={np.degrees(offset * frequency):.3g}°"
        )
        st.metric(
            _("Largest error for {length} positions").format(length=length) + ERROR,
            figures.short_number(error.item()),
        )
        st.markdown(
            _(
                "Moving on by $k$ turns the hand by $k\\omega_i$, **wherever it starts**. One matrix does it for all "
                "positions, so a single linear layer can look “$k$ words back”."
            )
        )


def other_ways() -> None:
    """Step 4: positions that are learned, turned into queries and keys, or taken off the scores."""
    kinds = {"learned": _("Learned"), "rotary": _("Rotary"), "alibi": "ALiBi"}
    row = st.container(horizontal=True)
    kind = segments(_("Instead of the waves"), kinds, key="kind", place=row.container(width="content"))
    {"learned": learned, "rotary": rotary, "alibi": alibi}[kind](row)


def learned(row: DeltaGenerator) -> None:
    """A table with a row a position, trained like any other weight."""
    name = checkpoint_with("learned")
    if name is None:
        return
    checkpoint = usable_checkpoint(name)
    if checkpoint is None:
        return
    most = min(64, checkpoint.model.config.max_length)
    count = bounded(
        row.slider(
            _("Positions shown"), 4, most, min(24, most), key="rows", bind="query-params", width=2 * CONTROL
        ),
        4,
        most,
    )
    with torch.inference_mode():
        table = checkpoint.model.source_positions(count)[0]
    waves_table = sinusoidal(count, table.shape[1], checkpoint.model.config.position_base)
    longest = longest_training_text(checkpoint, checkpoint.hash)
    left, right = side_by_side()
    spreads = []
    for place, title, rows, boundary in (
        (left, _("Learned table of this model"), table, longest if longest and longest < count else None),
        (right, _("Sinusoids of the same width"), waves_table, None),
    ):
        unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        similarities = unit @ unit.T
        spreads.append(offset_spread(similarities))
        figure = figures.similarity_figure(
            similarities.numpy(), largest=1.0, position=_("position"), value=_("cosine similarity"),
            title=title, boundary=boundary,
        )  # fmt: skip
        with place:
            show(figure, title)
    st.markdown(
        _(
            "The table of the model “{title}”: nobody gave it a pattern; what it knows of the order, it found in "
            "training. At equal distance its similarities differ by up to {learned}, those of the sinusoids by {waves}."
        ).format(
            title=checkpoint_title(name),
            learned=figures.short_number(spreads[0]),
            waves=figures.short_number(spreads[1]),
        )
    )
    if longest:
        st.markdown(
            _(
                "Its training texts had at most {longest} tokens. Every row after the dashed line is still what chance "
                "made it: a learned table says nothing about places it never saw."
            ).format(longest=longest)
        )


def rotary(row: DeltaGenerator) -> None:
    """Queries and keys turned by their position."""
    name = checkpoint_with("rotary")
    if name is None:
        return
    checkpoint = usable_checkpoint(name)
    if checkpoint is None:
        return
    config = checkpoint.model.config
    text = row.text_input(
        _("Text the model reads"), EXAMPLES["reverse"], key="rotary_text", bind="query-params", width=CHOICE
    )
    encoded = read_text(checkpoint, text)
    if encoded is None:
        return
    heads = {
        f"{layer}.{head}": _("layer {layer} · head {head}").format(layer=layer, head=head)
        for layer in range(1, config.encoder_layers + 1)
        for head in range(1, config.num_heads + 1)
    }
    layer, head = (
        int(number) - 1
        for number in menu(_("Head"), heads, key="rotary_head", place=row.container(width=CHOICE)).split(".")
    )
    places = {str(place): f"{place} · {token}" for place, token in enumerate(encoded.tokens)}
    query_place, key_place = (
        int(
            menu(
                label,
                places,
                key=key,
                default=str(min(default, len(places) - 1)),
                place=row.container(width=CONTROL),
            )
        )
        for label, key, default in (
            (_(":blue[Query] of token"), "rotary_query", 2),
            (_(":orange[Key] of token"), "rotary_key", 5),
        )
    )
    attention = f"encoder.{layer}.self_attention"
    trace = Trace(keep=[f"{attention}.{part}" for part in ("queries", "keys", "scores")])
    with torch.inference_mode():
        checkpoint.model.encode(torch.tensor([encoded.ids]), trace)
        query, key = (
            undo_rotation(
                trace[f"{attention}.{part}"][:, head, None, place : place + 1],
                config.position_base,
                start=place,
            ).flatten()
            for part, place in (("queries", query_place), ("keys", key_place))
        )
        scores = rotary_scores(
            query, key, ROTARY_POSITIONS, base=config.position_base,
            scale=checkpoint.model.encoder[layer].self_attention.attention.scale,
        )  # fmt: skip
    observed = trace[f"{attention}.scores"][0, head, query_place, key_place].item()
    left, right = side_by_side()
    with left:
        largest = float(f"{scores.abs().max().item():.2g}") or 1.0
        figure = figures.similarity_figure(
            scores.numpy(), largest=largest, position=_("position"), value=_("score"),
            title=_("Query at the row, key at the column"),
        )  # fmt: skip
        show(
            figure,
            _("Score of one query and one key put at every two positions; equal along every diagonal."),
        )
    with right:
        rows = [0, ROTARY_POSITIONS // 4, ROTARY_POSITIONS // 2, ROTARY_POSITIONS - 1]
        figure = figures.offset_figure(
            scores.numpy(), rows, offset=_("distance k from query to key"), value=_("score"),
            position_symbol="m", title=_("The same scores against the distance"),
            observed=(key_place - query_place, observed, _("in this text")),
        )  # fmt: skip
        show(
            figure,
            _("Score against distance with the query at several positions; the lines lie on one another."),
        )
    result = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    result.markdown(
        _(
            "Rotary positions add nothing to the words: query and key are **turned** by their positions, with the same "
            "rotations as before. So $R_m q\\cdot R_n k$ depends on $n-m$ alone. The diamond is the score this head "
            "really gave: {score}."
        ).format(score=f"{observed:.3g}"),
        width=600,
    )
    result.metric(
        _("Largest difference at equal distance"),
        figures.short_number(offset_spread(scores)),
        width="content",
    )


def alibi(row: DeltaGenerator) -> None:
    """A penalty on the scores that grows with the distance."""
    heads = row.select_slider(
        _("Heads"), (1, 2, 3, 4, 6, 8), 8, key="alibi_heads", bind="query-params", width=CONTROL
    )
    length = row.slider(_("Length"), 4, 64, 16, key="alibi_length", bind="query-params", width=CONTROL)
    row.latex(r"score_{ij}=\frac{q_i\cdot k_j}{\sqrt{d_k}}-m_h\,|i-j|", width="content")
    length = bounded(length, 4, 64)
    slopes = alibi_slopes(heads)
    bias = alibi_bias(slopes, length, length)[0, :, 0]  # (H, T): from the first position to each
    numbers = range(1, heads + 1)
    left, right = side_by_side()
    with left:
        figure = figures.falling_figure(
            bias.numpy(), [f"m<sub>{head}</sub> = {slope:.3g}" for head, slope in zip(numbers, slopes, strict=True)],
            distance=_("distance"), value=_("added to the score"), title=_("Taken off the score"),
        )  # fmt: skip
        show(figure, _("What each head adds to a score: straight lines that fall with the distance."))
    with right:
        figure = figures.falling_figure(
            bias.exp().numpy(), [_("head {head}").format(head=head) for head in numbers],
            distance=_("distance"), value=_("factor"), title=_("What that leaves of a weight, before it is normalised"),
        )  # fmt: skip
        show(figure, _("The factor on the weight by head and distance: steep heads keep only near words."))
    st.markdown(
        _(
            "ALiBi takes slope × distance off each score: near words win, steep heads look near and flat heads look "
            "far. These are the numbers a model here adds; no bundled model was trained with them."
        )
    )


def shuffle() -> None:
    """Step 5: the same words in another order, with positions and without."""
    name = checkpoint_menu()
    if name is None:
        st.info(_("This part needs a trained model, and none is here yet."))
        return
    checkpoint = usable_checkpoint(name)
    if checkpoint is None:
        return
    row = st.container(horizontal=True, gap="medium")
    text = row.text_input(
        _("Sentence"),
        EXAMPLES.get(name, EXAMPLES["en-zh"]),
        key=f"sentence_{name}",
        bind="query-params",
        width=480,
    )
    ways = {"shuffled": _("Shuffled"), "reversed": _("Reversed")}
    way = segments(_("New order"), ways, key="order", place=row.container(width="content"))
    seed = row.number_input(
        _("Shuffle number"), 0, LONGEST_SEED, 1, key="seed", bind="query-params", disabled=way == "reversed",
        width=CONTROL,
    )  # fmt: skip
    encoded = read_text(checkpoint, text)
    if encoded is None:
        return
    words = encoded.words[:-1]  # EOS stays where it is
    if words[-1] == 0:
        st.warning(_("One word has only one order. Type at least two words."))
        return
    order = (
        reversed_words(words) if way == "reversed" else shuffled_words(words, bounded(seed, 0, LONGEST_SEED))
    )
    proof = prove_by_shuffling(checkpoint.model, encoded.ids, (*order, len(words)))
    st.text(
        _("Old order: {old}\nNew order: {new}").format(
            old=spaced(encoded, range(len(words))), new=spaced(encoded, order)
        )
    )
    worst_off, worst_on = proof.without_positions.max().item(), proof.with_positions.max().item()
    figure = figures.shuffle_figure(
        proof.with_positions.numpy(), proof.without_positions.numpy(), encoded.tokens,
        off=_("Positions off: largest change {number}").format(number=figures.short_number(worst_off)),
        on=_("Positions on: largest change {number}").format(number=figures.short_number(worst_on)),
        value=_("change of the output"),
    )  # fmt: skip
    show(
        figure,
        _("Change of the encoder's output of each token, without positions above, with positions below."),
    )
    if checkpoint.model.config.positions == "none":
        st.markdown(_("This model has no positions to switch off: both pictures are the same."))
    else:
        st.markdown(
            _(
                "**Without positions the encoder sees a set:** each word's output is the same in both orders, up to "
                "rounding ({off} beside outputs as large as {size}). With positions it changes by up to {on}."
            ).format(
                off=figures.short_number(worst_off),
                size=figures.short_number(proof.size_without),
                on=figures.short_number(worst_on),
            )
        )
    with st.expander(_("What exactly is compared")):
        st.markdown(
            _(
                "The encoder reads both orders. For every token we take its output in each, and show the largest "
                "difference over all dimensions. Words move whole, so the parts of one word stay together; the end "
                "mark `<eos>` keeps its place but is a member of the set like any other. “Off” sets the added "
                "positions to zero, or undoes the rotation of queries and keys, in this very model; nothing is trained "
                "again. A decoder is another matter: its causal mask alone tells it something of the order."
            )
        )


def wave_controls() -> tuple[int, int, int, DeltaGenerator]:
    """Width, length and base of the sinusoids, and the row they stand in, for more controls beside them."""
    row = st.container(horizontal=True, gap="medium")
    width = row.select_slider("$d_{model}$", WIDTHS, 64, key="d_model", bind="query-params", width=CONTROL)
    length = row.slider(_("Length"), *LENGTHS, 64, key="length", bind="query-params", width=CONTROL)
    base = row.select_slider(_("Base"), BASES, 10000, key="base", bind="query-params", width=CONTROL)
    return width, bounded(length, *LENGTHS), base, row


def checkpoint_with(kind: str) -> str | None:
    """Name of the first model whose positions are of this kind; where there is none, say so."""
    for name in checkpoint_names():
        try:
            positions = read_config(checkpoint_folder(name))["model"]["positions"]
        except ValueError:
            continue
        if positions == kind:
            return name
    st.info(_("This part needs a model trained with such positions, and none is here yet."))
    return None


@st.cache_data(max_entries=8, show_spinner=False)
def longest_training_text(_checkpoint: Checkpoint, checkpoint_hash: str) -> int | None:
    """Tokens of the longest of 500 training texts, EOS included, if the model was trained on a toy task."""
    data = _checkpoint.config["recipe"]["data"]
    if data.get("task") not in TASKS:
        return None
    examples = TASKS[data["task"]].examples(seed=1, count=500)
    return 1 + max(
        map(len, _checkpoint.source_vocabulary.encode_ids([example.source for example in examples]))
    )


def read_text(checkpoint: Checkpoint, text: str) -> Encoded | None:
    """A text in tokens with EOS after them; where it cannot be shown, say why."""
    encoded = checkpoint.source_vocabulary.encode(text)
    count = len(encoded.ids)
    if count == 0:
        st.warning(_("There is no text. Type a sentence."))
        return None
    if count > MOST_TOKENS:
        st.warning(
            _("This text has {count} tokens; the picture takes at most {limit}. Shorten it.").format(
                count=count, limit=MOST_TOKENS
            )
        )
        return None
    if any(encoded.unknown):
        strange = [token for token, unknown in zip(encoded.tokens, encoded.unknown, strict=True) if unknown]
        st.text(
            _("Not in this model's vocabulary, so read as one and the same unknown token: {tokens}").format(
                tokens=" ".join(dict.fromkeys(strange))
            )
        )
    return with_end(encoded)


def spaced(encoded: Encoded, order: Iterable[int]) -> str:
    """The tokens in an order, with spaces between words."""
    parts, before = [], None
    for place in order:
        parts.append(encoded.tokens[place] if encoded.words[place] == before else f" {encoded.tokens[place]}")
        before = encoded.words[place]
    return "".join(parts).strip()


def show(figure: Figure, alt: str) -> None:
    """Put a picture on the page."""
    st.plotly_chart(figure, config=figures.CONFIG, alt=alt)


def side_by_side() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two places for pictures beside one another, or below where there is no room."""
    row = st.container(horizontal=True, gap="small")
    return row.container(width=PICTURE), row.container(width=PICTURE)


def bounded(value: int, low: int, high: int) -> int:
    """A widget's value within its limits, which only the browser keeps."""
    return min(max(value, low), high)


def number(value: Tensor) -> str:
    """A number of an equation, three decimals."""
    return f"{value.item():.3f}".replace("-0.000", "0.000")


def column(vector: Tensor) -> str:
    """A pair of numbers as a column in an equation."""
    return rf"\begin{{pmatrix}}{number(vector[0])}\\{number(vector[1])}\end{{pmatrix}}"


page_start()
STEPS = {
    "waves": (_("1 Waves"), waves),
    "dot_product": (_("2 Dot product"), dot_products),
    "rotation": (_("3 Rotation"), rotation),
    "others": (_("4 Learned, rotary, ALiBi"), other_ways),
    "shuffle": (_("5 Shuffle the words"), shuffle),
}
st.title(_("Positional encoding"))
opening = st.container(horizontal=True, vertical_alignment="center", gap="medium")
opening.markdown(
    _(
        "Attention on its own sees a **set**: shuffle the words and nothing changes. So the paper adds to each word a "
        "vector that says where it stands, made of waves from fast to slow."
    ),
    width=560,
)
opening.latex(
    r"\begin{aligned}PE_{(pos,\,2i)}&=\sin\!\big(pos/base^{2i/d_{model}}\big)\\"
    r"PE_{(pos,\,2i+1)}&=\cos\!\big(pos/base^{2i/d_{model}}\big)\end{aligned}",
    width="content",
)
titles = {name: title for name, (title, _show) in STEPS.items()}
step = segments(_("Step"), titles, key="step", label_visibility="collapsed")
STEPS[step][1]()
