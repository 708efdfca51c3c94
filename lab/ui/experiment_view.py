"""An experiment on a page: its claim, a button that puts it to the test here, its pictures while it runs, the verdict.

What is shown first is a recorded result. A run of the experiment is one like any other: it goes on when the page is
closed, and its address shows it again.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.experiments.events import Event, event_of_record, events_as_csv
from lab.experiments.record import command_line, events_of_record, read_record
from lab.figures.curves import readable
from lab.runs.experiment_worker import EVENTS
from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.store import Run
from lab.ui.experiment_words import experiment_words, verdict_text
from lab.ui.language import _
from lab.ui.live import drawn_once, keep_pace, live
from lab.ui.owner import owner
from lab.ui.recipe_widgets import escaped
from lab.ui.run_view import attempt_change, duration_text, is_mine, roughly, show_notices, time_text
from lab.ui.runs import problem_text, state_name
from lab.ui.state import menu

RESULTS = Path(__file__).resolve().parents[2] / "assets" / "results"
# What is added to an experiment's name in the name of a further record of it.
GRID, DEEP = "grid", "deep"
# So many runs of an experiment are offered to look at.
MOST_RUNS = 12
ICONS = {
    "holds": ":material/check_circle:",
    "does not hold": ":material/cancel:",
    "not decided": ":material/help:",
}

# What came out, and the named numbers of the report, if it has ended.
Pictures = Callable[[Sequence[Event], Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is shown of an experiment.

    Attributes:
        events: What came out so far.
        outcome: What it reports, once it has ended.
        command: The command that repeats it.
        version: Which result it is, and differs once there is more of it.
    """

    events: Sequence[Event]
    outcome: Mapping[str, Any] | None
    command: str
    version: Hashable


def show_claim(name: str) -> None:
    """The claim, and who makes it."""
    words = experiment_words(name)
    st.markdown(_("**Claim:** {claim} {source}").format(claim=words.claim, source=f":small[{words.source}]"))


def experiment_row() -> DeltaGenerator:
    """A row for an experiment's options and its button."""
    return st.container(horizontal=True, vertical_alignment="bottom", gap="small")


def show_experiment(
    lab: Laboratory,
    name: str,
    row: DeltaGenerator,
    *,
    key: str,
    options: Mapping[str, Any],
    seconds: int,
    pictures: Pictures,
    ready: bool = True,
) -> None:
    """The button that runs an experiment, and a result: a recorded one, or a run of it, live.

    Args:
        lab: Where it runs.
        name: Its name.
        row: Where the button goes.
        key: Name in the address of the run that is shown.
        options: Options that are not at their default.
        seconds: About how long it takes on one core.
        pictures: Draws what came out.
        ready: Whether the options are all right.
    """
    wanted = row.button(
        _("Put it to the test here, about {duration}").format(duration=roughly(seconds)), key=f"{key}_run",
        type="primary", icon=":material/science:", disabled=not ready,
    )  # fmt: skip
    if wanted:
        try:
            st.query_params[key] = lab.start_experiment(name, options, owner=owner())
        except RunProblem as problem:
            st.error(problem_text(problem))
    chosen = choose_result(lab, name, key=key, place=row.container(width=300))
    with row.popover(_("How it is judged"), icon=":material/gavel:"):
        st.markdown(experiment_words(name).rule)
    if chosen is None:
        st.info(_("There is no result yet; put it to the test."))
    elif (RESULTS / f"{chosen}.json").exists():
        show_recorded(name, RESULTS / f"{chosen}.json", pictures, key=key)
    else:
        busy = lab.get(chosen).unfinished
        live(news, lab, chosen, pictures, key, busy=busy)


def choose_result(lab: Laboratory, name: str, *, key: str, place: DeltaGenerator) -> str | None:
    """The result that the address asks for, by default a recorded one; None if there is none at all.

    Returns:
        The name of a record, or the ID of a run.
    """
    titles = record_titles(name)
    runs = {run.id: run for run in lab.store.runs() if run.kind == "experiment" and run.spec["name"] == name}
    asked = st.query_params.get(key)
    if asked is not None and asked not in (*titles, *runs):
        st.warning(problem_text(RunProblem("unknown_run", "", run=escaped(asked[:40]))))
    for number, (run_id, run) in enumerate(runs.items()):
        if number < MOST_RUNS or run_id == asked:
            titles[run_id] = f"{time_text(run.created)} · {state_name(run)} · {run_id}"
    return menu(_("Shown below"), titles, key=key, place=place) if titles else None


def record_titles(name: str) -> dict[str, str]:
    """The recorded results of an experiment by the names of their files, the one of its own name first."""
    further = {GRID: _("Recorded: larger grid"), DEEP: _("Recorded: deeper")}
    titles = {name: _("Recorded result")} if (RESULTS / f"{name}.json").exists() else {}
    for path in sorted(RESULTS.glob(f"{name}-*.json")):
        titles[path.stem] = further.get(path.stem.removeprefix(f"{name}-"), path.stem)
    return titles


def show_recorded(name: str, path: Path, pictures: Pictures, *, key: str) -> None:
    """A result that comes with the project."""
    try:
        result = recorded(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        st.error(_("The recorded result cannot be read. Put the claim to the test here instead."))
        st.code(str(error), language=None, wrap_lines=True)
        return
    show_result(name, result, pictures, key=key)


@st.cache_resource(max_entries=16, show_spinner=False)
def recorded(path: str, modified: int) -> Result:
    """A recorded result, read once for everybody.

    Args:
        path: Its file.
        modified: When the file was changed; part of what Streamlit remembers it by.

    Raises:
        ValueError: If it cannot be read.
    """
    record = read_record(Path(path))
    return Result(
        events=events_of_record(record), outcome=record["outcome"], command=record["command"], version=(path, modified)
    )  # fmt: skip


def news(lab: Laboratory, run_id: str, pictures: Pictures, key: str, every: float | None) -> None:
    """All that changes while an experiment runs."""
    try:
        run = lab.get(run_id)
    except RunProblem as problem:
        st.error(problem_text(problem))
        return
    keep_pace(every, busy=run.unfinished)
    show_notices()
    lab.watch()
    result = result_of(lab, run)
    if run.outcome is None:
        show_progress(lab, run, key=key)
    show_result(run.spec["name"], result, pictures, key=key)


def show_progress(lab: Laboratory, run: Run, *, key: str) -> None:
    """How far it is, and the buttons that stop and resume it."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    facts = [state_name(run)]
    if run.state == "queued":
        facts.append(_("in place {place} of the queue").format(place=lab.place(run)))
    if run.seconds:
        facts.append(duration_text(run.seconds))
    if run.seconds_left is not None:
        facts.append(_("about {duration} left").format(duration=roughly(run.seconds_left)))
    row.container(width="stretch").progress(min(1.0, run.step / max(run.steps, 1)), text=" · ".join(facts))
    if is_mine(lab, run) and run.unfinished:
        row.button(
            _("Stop"), key=f"{key}_stop", icon=":material/stop_circle:", disabled=run.stop_requested is not None,
            on_click=attempt_change, args=(lab.stop, run.id),
        )  # fmt: skip
    elif is_mine(lab, run) and run.resumable:
        row.button(
            _("Begin again"), key=f"{key}_resume", icon=":material/replay:", on_click=attempt_change,
            args=(lab.resume, run.id),
        )  # fmt: skip
    if run.error is not None and not run.unfinished:
        st.error(problem_text(run.error))


def result_of(lab: Laboratory, run: Run) -> Result:
    """What a run of an experiment found so far."""
    path = lab.folder(run.id) / EVENTS
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return Result(
        events=stored_events(str(path), size) if size else (),
        outcome=run.outcome,
        command=command_line(run.spec["name"], run.spec["options"]),
        version=(str(path), size, run.outcome is None),
    )


@st.cache_resource(max_entries=16, show_spinner=False)
def stored_events(path: str, size: int) -> list[Event]:
    """The events in the first `size` bytes of a file that grows; a line that is not whole yet is passed over."""
    found = []
    with open(path, "rb") as file:
        lines = file.read(size).decode(errors="replace").splitlines()
    for line in lines:
        try:
            found.append(event_of_record(json.loads(line)))
        except ValueError:
            continue
    return found


def show_result(name: str, result: Result, pictures: Pictures, *, key: str) -> None:
    """The verdict with its telling numbers, the pictures, all other numbers, and what can be taken away."""
    outcome = result.outcome
    words = experiment_words(name, outcome["numbers"] if outcome is not None else ())
    if outcome is not None:
        with st.container(border=True, gap="small"):
            row = st.container(horizontal=True, vertical_alignment="center", gap="small")
            verdict = outcome["verdict"]
            row.markdown(f"{ICONS[verdict]} **{verdict_text(verdict)}**", width="content")
            told = _("{count} seeds · {duration}").format(
                count=len(outcome["seeds"]), duration=duration_text(outcome["seconds"])
            )
            row.caption(told, width="content")
            take_away(name, result, row, key=key)
            st.html(numbers_table(words.main, outcome["numbers"]))
    if result.events:
        numbers = outcome["numbers"] if outcome is not None else {}
        drawn_once(lambda: pictures(result.events, numbers), name, result.version)
    if outcome is None:
        take_away(name, result, experiment_row(), key=key)
    else:
        others = {each: words.numbers.get(each, each) for each in outcome["numbers"]}
        rest = {
            each: text for each, text in others.items() if each not in words.main and not bound(each, others)
        }
        if rest:
            with st.expander(_("All other numbers")):
                st.html(numbers_table(rest, outcome["numbers"]))


def take_away(name: str, result: Result, row: DeltaGenerator, *, key: str) -> None:
    """What was measured as a table, and the command that repeats it."""
    if result.events:
        row.download_button(
            _("Table (CSV)"), lambda: events_as_csv(result.events), f"{name}.csv", "text/csv", key=f"{key}_csv",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
    with row.popover(_("Repeat it"), icon=":material/terminal:"):
        st.code(result.command, language="sh", wrap_lines=True)


def bound(name: str, numbers: Mapping[str, Any]) -> bool:
    """Whether a number is the end of another's interval."""
    stem = name.removesuffix("_low").removesuffix("_high")
    return stem != name and stem in numbers


def numbers_table(names: Mapping[str, str], numbers: Mapping[str, Any]) -> str:
    """Numbers with their intervals, as HTML.

    Args:
        names: What each number is called, by name; those that are not there are left out.
        numbers: The numbers.
    """
    cells = "".join(
        f"<div class='number'><span>{escape(text)}</span><b>{escape(number_text(numbers, name))}</b></div>"
        for name, text in names.items()
        if name in numbers
    )
    return f"<div class='numbers'>{cells}</div>"


def number_text(numbers: Mapping[str, Any], name: str) -> str:
    """A number, and the interval around it if it has one."""
    text = plain_number(numbers[name])
    low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
    if low is None or high is None:
        return text
    return _("{number} (95 %: {low} to {high})").format(
        number=text, low=plain_number(low), high=plain_number(high)
    )


def plain_number(value: Any) -> str:
    """A number with three digits, at most three behind the point; a count as it is; what was not finite as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, int):
        return f"{value:,}"
    return (f"{value:.3f}" if abs(value) < 1 else readable(value)).replace("-", "−")
