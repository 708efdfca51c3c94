"""What stands in the form of a training, kept for the session and in the address.

A *base* gives every setting its value: a preset, `OWN` for pairs that a person brings, or a run that is cloned. What a
person changes belongs to its base, so it is there again when one comes back from another. The address holds the base
and what differs from it: ``?preset=reverse&model.norm=post&training.seed=3`` prepares a training for a class.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import streamlit as st

from lab.ui.language import _
from lab.ui.recipe_form import Choice, Field, FieldError, Switch, Whole, form_fields

OWN = "own"
CLONE_PREFIX = "run-"
# Names in the address beside those of the settings.
PRESET, CLONE, TABLE, NAME = "preset", "clone", "table", "name"
DEV, SPLIT_SEED, LEAVE_OUT = "own.dev", "own.seed", "own.leave_out"
REPEAT = "repeat"
MOST_DEV, MOST_RUNS = 100_000, 10

_STATE = "train_form"
# A browser may ask with an address that was replaced a moment ago; that is nobody's wish.
OURS_SECONDS = 3.0


@dataclass(kw_only=True)
class Form:
    """What a session has put into the form.

    Attributes:
        base: Where the values come from that were not changed.
        changed: Texts that a person changed, by base and field; `TABLE` names the draft
            of a table, `NAME` is what the run shall be called.
        clone: The run that was asked for last; it stays on offer.
        published: What the address was set to lately, and when it was replaced.
        shown: For each widget the text it shows, and how often that changed otherwise than by the widget itself.
    """

    base: str = ""
    changed: dict[str, dict[str, str]] = field(default_factory=dict)
    clone: str = ""
    published: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    shown: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """What was changed of the present base."""
        return self.changed.setdefault(self.base, {})


def current_form() -> Form:
    """The form of this session."""
    return st.session_state.setdefault(_STATE, Form())


def widget_key(form: Form, name: str, text: str) -> str:
    """Key of the widget that shows a text: another one whenever the text changes otherwise than by the widget itself.

    To set the value of a widget that is there would lose what is being typed in it, and is itself lost where one run of
    the script follows another before the browser has drawn the first. A new widget begins with its text.
    """
    shown, number = form.shown.get(name, (text, 0))
    number += shown != text
    form.shown[name] = text, number
    return f"{name}/{number}"


def note_typed(form: Form, name: str, text: str) -> None:
    """Remember that a widget shows what a person has put into it."""
    form.shown[name] = text, form.shown[name][1]


def all_fields() -> dict[str, Field]:
    """The settings of the recipe, and those of how a person's own table is read."""
    own = [
        Whole(
            key=DEV, label=_("Sources held out"), low=1, high=MOST_DEV,
            help=_("Different sources whose pairs are kept for evaluation; the model never learns from them."),
        ),
        Whole(
            key=SPLIT_SEED, label=_("Seed of the split"), low=0, high=2**63 - 1,
            help=_("Decides which sources are held out."),
        ),
        Switch(key=LEAVE_OUT, label=_("Leave out the bad lines"), help=_("Start with the good lines only.")),
        Whole(
            key=REPEAT, label=_("Runs"), low=1, high=MOST_RUNS,
            help=_("How often to train, with this seed and the ones after it; they are shown as mean and spread."),
        ),
    ]  # fmt: skip
    return {**form_fields(), **{each.key: each for each in own}}


def settle_form(form: Form, bases: Collection[str], *, can_clone: Callable[[str], bool]) -> list[str]:
    """Give the form what the address asks for; where it asks for nothing, the session's form stays.

    Args:
        form: The form.
        bases: Presets and `OWN`, the first of which opens the page.
        can_clone: Whether there is a run of this ID.

    Returns:
        Sentences about what the address asks for and cannot have.
    """
    known = all_fields()
    asked = {
        key: value
        for key, value in st.query_params.items()
        if key in known or key in (PRESET, CLONE, TABLE, NAME) or "." in key
    }
    notes = []
    if asked and not is_ours(form, asked):
        base = asked.get(PRESET, next(iter(bases)))
        if base not in bases:
            notes.append(
                _("There is no preset “{name}”; this is another one.").format(name=asked[PRESET][:40])
            )
            base = next(iter(bases))
        if CLONE in asked:
            if can_clone(asked[CLONE]):
                form.clone = asked[CLONE]
                base = f"{CLONE_PREFIX}{form.clone}"
            else:
                notes.append(_("There is no training “{name}” here to clone.").format(name=asked[CLONE][:40]))
        form.base = base
        form.changed[base] = {}
        for key, text in asked.items():
            if key in (PRESET, CLONE):
                continue
            if key not in (TABLE, NAME) and key not in known:
                notes.append(
                    _("The address names “{name}”, which is no setting; it is passed over.").format(
                        name=key[:60]
                    )
                )
            elif isinstance(known.get(key), Choice | Switch) and (said := refused(known[key], text)):
                notes.append(f"{known[key].label}: {said}")
            else:
                form.changed[base][key] = text
    elif not form.base:
        form.base = next(iter(bases))
    return notes


def refused(asked: Field, text: str) -> str:
    """Why a choice cannot have a value, or nothing."""
    try:
        asked.read(text)
    except FieldError as error:
        return str(error)
    return ""


def is_ours(form: Form, asked: Mapping[str, str]) -> bool:
    """Whether an address is one that the form wrote itself, now or a moment ago."""
    now = time.monotonic()
    return any(asked == state and now < replaced + OURS_SECONDS for replaced, state in form.published)


def publish_form(form: Form, changed: Mapping[str, str]) -> None:
    """Put the form into the address: its base, and the fields that differ from it.

    Args:
        form: The form.
        changed: Texts of those fields.
    """
    cloned = form.base.startswith(CLONE_PREFIX)
    state = {CLONE: form.base.removeprefix(CLONE_PREFIX)} if cloned else {PRESET: form.base}
    state |= changed
    if not form.published or form.published[-1][1] != state:
        now = time.monotonic()
        before = [
            (min(replaced, now), old) for replaced, old in form.published if now < replaced + OURS_SECONDS
        ]
        form.published = [*before, (float("inf"), state)]
    known = all_fields()
    for key in list(st.query_params):
        if key not in state and (key in known or key in (PRESET, CLONE, TABLE, NAME) or "." in key):
            del st.query_params[key]
    wanted = {key: value for key, value in state.items() if st.query_params.get(key) != value}
    if wanted:
        st.query_params.update(wanted)
