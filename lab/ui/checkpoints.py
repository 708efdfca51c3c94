"""The trained models a person can choose from, each loaded once for everybody: those shipped, and finished runs."""

from pathlib import Path

import streamlit as st

from lab.runs.store import Run
from lab.ui.language import _
from lab.ui.runs import laboratory
from lab.ui.state import menu
from transformer.checkpoint import CONFIG, WEIGHTS, Checkpoint, load, read_config

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
# The order in the menu; a folder that is not named here comes after these.
SHIPPED = ("en-zh", "zh-en", "anaphora", "reverse", "sort")
# Sentences that these models translate well, and in another order.
TELLING = {
    "en-zh": "If it rains tomorrow, we will stay at home.",
    "zh-en": "如果明天下雨，我们就待在家里。",
}
OPPOSITE = {"en-zh": "zh-en", "zh-en": "en-zh"}
RUN_PREFIX = "run-"
# Older runs are found on their own pages.
MOST_RUNS = 30


def checkpoint_names() -> list[str]:
    """Names of the checkpoints that are there: the shipped ones, then finished runs, the newest first."""
    found = sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{CONFIG}"))
    shipped = sorted(found, key=lambda name: SHIPPED.index(name) if name in SHIPPED else len(SHIPPED))
    return [*shipped, *(run_checkpoint(run) for run in finished_runs())]


def finished_runs() -> list[Run]:
    """Trainings that have ended and left a model, the newest first."""
    try:
        lab = laboratory()
        ended = lab.store.runs(states=("succeeded", "cancelled"))
    except ValueError:
        return []  # The pages of the runs say what is wrong with them.
    trained = (run for run in ended if run.kind == "training" and (lab.folder(run.id) / WEIGHTS).exists())
    return list(trained)[:MOST_RUNS]


def run_checkpoint(run: Run) -> str:
    """What the checkpoint of a run is called in addresses."""
    return run.name if run.shipped else f"{RUN_PREFIX}{run.id}"


def checkpoint_folder(name: str) -> Path:
    """Where a checkpoint lies.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in checkpoint_names():
        raise ValueError(f"There is no checkpoint named {name!r}.")
    if name.startswith(RUN_PREFIX):
        return laboratory().folder(name.removeprefix(RUN_PREFIX))
    return CHECKPOINTS / name


def checkpoint_title(name: str) -> str:
    """What the menu calls a checkpoint."""
    titles = {
        "en-zh": _("English → Chinese"),
        "zh-en": _("Chinese → English"),
        "anaphora": _("Pronouns (toy)"),
        "reverse": _("Reverse digits (toy)"),
        "sort": _("Sort digits (toy)"),
    }
    if name.startswith(RUN_PREFIX):
        run = laboratory().store.get(name.removeprefix(RUN_PREFIX))
        return name if run is None else f"{run.name} · {run.id}"
    return titles.get(name, name)


def run_title(run: Run) -> str:
    """What a page calls a run."""
    return checkpoint_title(run.name) if run.shipped else run.name


def example_sentences(name: str) -> list[str]:
    """Sentences to show a checkpoint with: a telling one first, then the probes of its training.

    Raises:
        ValueError: If its configuration cannot be read.
    """
    probes = [probe["source"] for probe in read_config(checkpoint_folder(name))["recipe"]["probes"]]
    told = [*([TELLING[name]] if name in TELLING else []), *probes]
    if not told and name.startswith(RUN_PREFIX):
        samples = laboratory().samples(name.removeprefix(RUN_PREFIX))
        told = [source for source, _reference, _written in samples.rows] if samples else []
    return told or [first_words(name)]


def first_words(name: str) -> str:
    """A text of a few tokens that a checkpoint knows, for want of a sentence of its training."""
    vocabulary = load_checkpoint(name).source_vocabulary
    return vocabulary.decode(range(4, min(8, len(vocabulary))))


def load_checkpoint(name: str) -> Checkpoint:
    """Load a checkpoint, or return the one that is loaded.

    Raises:
        ValueError: If there is none of this name, or it is damaged.
    """
    folder = checkpoint_folder(name)
    modified = tuple(
        (folder / file).stat().st_mtime_ns for file in (CONFIG, WEIGHTS) if (folder / file).exists()
    )
    return _load(str(folder), modified)


def usable_checkpoint(name: str) -> Checkpoint | None:
    """Load a checkpoint, or say in the person's language that it is damaged."""
    try:
        return load_checkpoint(name)
    except ValueError as error:
        st.error(_("This checkpoint cannot be loaded; choose another one in the sidebar."))
        st.code(str(error), language=None, wrap_lines=True)
        return None


@st.cache_resource(max_entries=8, show_spinner=False)
def _load(folder: str, modified: tuple[int, ...]) -> Checkpoint:
    return load(Path(folder))


def checkpoint_menu() -> str | None:
    """The menu of checkpoints, in the sidebar and in the URL; None where there is none."""
    titles = {name: checkpoint_title(name) for name in checkpoint_names()}
    return menu(_("Checkpoint"), titles, key="checkpoint", place=st.sidebar) if titles else None
