"""The trained models a person can choose from, each loaded once for everybody."""

import gc
from pathlib import Path

import streamlit as st

from lab.ui.language import _
from lab.ui.state import menu
from transformer.checkpoint import CONFIG, Checkpoint, load, read_config

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
# The order in the menu; a folder that is not named here comes after these.
SHIPPED = ("en-zh", "zh-en", "anaphora", "reverse", "sort")
# Sentences that these models translate well, and in another order.
TELLING = {
    "en-zh": "If it rains tomorrow, we will stay at home.",
    "zh-en": "如果明天下雨，我们就待在家里。",
}
OPPOSITE = {"en-zh": "zh-en", "zh-en": "en-zh"}


def checkpoint_names() -> list[str]:
    """Names of the checkpoints that are there, the shipped ones first."""
    found = sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{CONFIG}"))
    return sorted(found, key=lambda name: SHIPPED.index(name) if name in SHIPPED else len(SHIPPED))


def checkpoint_title(name: str) -> str:
    """What the menu calls a checkpoint."""
    titles = {
        "en-zh": _("English → Chinese"),
        "zh-en": _("Chinese → English"),
        "anaphora": _("Pronouns (toy)"),
        "reverse": _("Reverse digits (toy)"),
        "sort": _("Sort digits (toy)"),
    }
    return titles.get(name, name)


def example_sentences(name: str) -> list[str]:
    """Sentences to show a checkpoint with: a telling one first, then the probes of its training.

    Raises:
        ValueError: If its configuration cannot be read.
    """
    probes = [probe["source"] for probe in read_config(CHECKPOINTS / name)["recipe"]["probes"]]
    return [*([TELLING[name]] if name in TELLING else []), *probes]


def load_checkpoint(name: str) -> Checkpoint:
    """Load a checkpoint, or return the one that is loaded.

    Raises:
        ValueError: If there is none of this name, or it is damaged.
    """
    if name not in checkpoint_names():
        raise ValueError(f"There is no checkpoint named {name!r}.")
    return _load(name, (CHECKPOINTS / name / CONFIG).stat().st_mtime_ns)


def usable_checkpoint(name: str) -> Checkpoint | None:
    """Load a checkpoint, or say in the person's language that it is damaged."""
    try:
        return load_checkpoint(name)
    except ValueError as error:
        st.error(_("This checkpoint cannot be loaded; choose another one in the sidebar."))
        st.code(str(error), language=None, wrap_lines=True)
        return None


@st.cache_resource(max_entries=8, show_spinner=False)
def _load(name: str, modified: int) -> Checkpoint:
    checkpoint = load(CHECKPOINTS / name)
    # Streamlit collects garbage after every run; what stays for good need not be searched each time.
    gc.freeze()
    return checkpoint


def checkpoint_menu() -> str | None:
    """The menu of checkpoints, in the sidebar and in the URL; None where there is none."""
    titles = {name: checkpoint_title(name) for name in checkpoint_names()}
    return menu(_("Checkpoint"), titles, key="checkpoint", place=st.sidebar) if titles else None
