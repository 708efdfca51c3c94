"""The command ``experiment``: list the experiments, or run one and tell what came out."""

import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lab.experiments.events import Concluded, Event, Measured, Progress

SHOW_EVERY_SECONDS = 5.0


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Change an option; see the list."
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was measured as a table.",
)
@click.option(
    "--record",
    "record_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all that came out, and how to repeat it, as one JSON file.",
)
def experiment(
    name: str | None,
    as_json: bool,
    settings: tuple[str, ...],
    csv_file: Path | None,
    record_file: Path | None,
) -> None:
    """Put the claim NAME to the test. Without NAME: list the claims."""
    # Here and not above: whoever asks for help need not wait for torch.
    import torch

    from lab.experiments.catalogue import EXPERIMENTS, find_experiment
    from lab.experiments.events import events_as_csv
    from lab.experiments.experiment import options_record, report
    from lab.experiments.record import write_record
    from transformer.files import write_atomically

    if name is None:
        listed = [listing(each) for each in EXPERIMENTS.values()]
        if as_json:
            click.echo(json.dumps(listed, ensure_ascii=False))
        else:
            click.echo("\n\n".join(listing_text(each) for each in listed))
        return
    chosen = find_experiment(name)
    changed = dict(split_setting(setting) for setting in settings)
    options = chosen.make_options(changed)
    torch.set_num_threads(1)
    began = time.perf_counter()
    points: list[Event] = []
    concluded: Concluded | None = None
    with show_progress(name) as show:
        for event in chosen.run(options):
            if isinstance(event, Progress):
                show(event)
            elif isinstance(event, Measured):
                points.append(event)
            else:
                concluded = event
    assert concluded is not None, "an experiment ends with what it concludes"
    outcome = report(chosen, concluded, time.perf_counter() - began)
    if csv_file is not None:
        write_atomically(csv_file, events_as_csv(points).encode())
    if record_file is not None:
        write_record(
            record_file, outcome=outcome, options=options_record(options), changed=changed, events=points
        )
    click.echo(json.dumps(outcome, ensure_ascii=False) if as_json else outcome_text(outcome))


def split_setting(setting: str) -> tuple[str, Any]:
    """Take ``option=value`` apart; a value that is not TOML is taken as a string.

    Raises:
        ValueError: If it is not of this form.
    """
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{setting!r} is not of the form option=value, such as seeds=3.")
    try:
        return name.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), text.strip()


@contextmanager
def show_progress(name: str) -> Iterator[Callable[[Progress], None]]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    shown_at = time.monotonic()

    def line(progress: Progress) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= SHOW_EVERY_SECONDS:
            click.echo(f"{name}  {progress.done}/{progress.total}", err=True)
            shown_at = time.monotonic()

    if not sys.stderr.isatty():
        yield line
        return
    with click.progressbar(length=1000, file=sys.stderr, label=name) as bar:
        yield lambda progress: bar.update(1000 * progress.done // max(progress.total, 1) - bar.pos)


def listing(chosen: Any) -> dict[str, Any]:
    """What there is to know of an experiment before it runs."""
    from lab.experiments.experiment import options_record

    return {
        "name": chosen.name,
        "claim": chosen.claim,
        "source": chosen.source,
        "rule": chosen.rule,
        "options": options_record(chosen.options()),
    }


def listing_text(listed: dict[str, Any]) -> str:
    """The same to read."""
    options = "  ".join(f"{name}={json.dumps(value)}" for name, value in listed["options"].items())
    return (
        f"{listed['name']}\n  {listed['claim']}\n  Source: {listed['source']}\n"
        f"  Verdict: {listed['rule']}\n  Options: {options}"
    )


def outcome_text(outcome: dict[str, Any]) -> str:
    """What came out, to read."""
    width = max(map(len, outcome["numbers"]))
    numbers = [f"  {name:<{width}}  {number_text(value)}" for name, value in outcome["numbers"].items()]
    seeds = ", ".join(map(str, outcome["seeds"]))
    return "\n".join(
        [
            f"{outcome['name']}: {outcome['verdict']}",
            f"  Claim: {outcome['claim']}",
            f"  Source: {outcome['source']}",
            *numbers,
            f"  seeds {seeds}; {outcome['seconds']:.1f} s",
        ]
    )


def number_text(value: float | int | bool | None) -> str:
    """A figure to read; what is not a finite number is named in the figure beside it."""
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4g}"
