"""The command line of the laboratory: ``python -m lab runs`` and ``python -m lab experiment``.

An error is one sentence on stderr and exit status 2.
"""

import getpass
import json
import math
import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from lab.experiments.command_line import experiment
from lab.runs.comparison import (
    LAYER_SERIES,
    MOST_POINTS,
    SCALAR_SERIES,
    VARIANTS,
    arms,
    members,
    start_comparison,
    trial_of,
    write_trials,
)
from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings
from lab.runs.store import Run
from transformer.command_line import run_command
from transformer.files import write_atomically
from transformer.recipe import read_recipe

WAIT_SECONDS = 0.5
FOLLOWED = ("train_loss", "dev_loss", "accuracy")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Trainings beside the app, and claims put to the test."""


cli.add_command(experiment)


@cli.group()
def runs() -> None:
    """List, start, stop and take home runs. They train whether or not the app is open."""


def laboratory() -> Laboratory:
    """The laboratory of the data folder that the environment names, or the usual one."""
    return Laboratory(read_settings())


@runs.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_runs(as_json: bool) -> None:
    """List all runs, newest first."""
    found = laboratory().runs()
    if as_json:
        for run in found:
            click.echo(json.dumps(asdict(run), ensure_ascii=False))
    else:
        for run in found:
            click.echo(f"{run.id}  {run.state:<9}  {run.step:>7}/{run.steps:<7}  {run.name}")


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(run_id: str, as_json: bool) -> None:
    """Show a run: its state, its last metrics and its log."""
    lab = laboratory()
    run = lab.get(run_id)
    names = [name for name in lab.series_names([run_id]) if not name.startswith("layer_")]
    last = last_values(lab, run_id, names)
    if as_json:
        shown = {name: value if math.isfinite(value) else None for name, value in last.items()}
        click.echo(json.dumps({**asdict(run), "metrics": shown}, ensure_ascii=False))
        return
    click.echo(f"{run.id}  {run.name}\n{state_line(lab, run)}")
    for name, value in last.items():
        click.echo(f"{name:<20} {value:.5g}")
    for entry in lab.log(run_id):
        at = datetime.fromtimestamp(entry.time).isoformat(sep=" ", timespec="seconds")
        told = " ".join(f"{name}={value}" for name, value in entry.details.items())
        click.echo(f"{at}  {entry.kind}  {told}".rstrip())


@runs.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder that holds the recipe's files of sentence pairs."
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting.")
@click.option("--name", help="What to call it; by default the name of the recipe.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit status 1 if it did not succeed.")
def start(recipe: Path, data: Path | None, overrides: tuple[str, ...], name: str | None, wait: bool) -> None:
    """Put what RECIPE, a TOML file, describes into the queue and print the run's ID."""
    lab = laboratory()
    run_id = lab.start(
        read_recipe(recipe, overrides), name=name or recipe.stem, owner=getpass.getuser(), data=data
    )
    click.echo(run_id)
    if wait and follow(lab, run_id) != "succeeded":
        raise SystemExit(1)


def follow(lab: Laboratory, run_id: str) -> str:
    """Show on stderr how a run gets on until it has ended; returns the state it ended in."""
    before = ""
    while True:
        run = lab.get(run_id)
        line = state_line(lab, run)
        if line != before:
            click.echo(line, err=True)
        if not run.unfinished:
            return run.state
        before = line
        lab.watch()
        time.sleep(WAIT_SECONDS)


def state_line(lab: Laboratory, run: Run) -> str:
    """State, steps and the last metrics of a run."""
    place = lab.place(run)
    waiting = f", place {place} in the queue" if place else ""
    error = f" ({run.error.get('sentence', run.error['code'])})" if run.error else ""
    values = last_values(lab, run.id, FOLLOWED)
    metrics = "".join(f"  {name} {value:.4f}" for name, value in values.items())
    return f"{run.state}{waiting}{error}  step {run.step}/{run.steps}{metrics}"


def last_values(lab: Laboratory, run_id: str, names: Iterable[str]) -> dict[str, float]:
    """The last value of each series that the run has."""
    return {name: float(series.values[-1]) for (_, name), series in lab.series([run_id], names).items()}


@runs.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice(list(VARIANTS)),
    default=("pre", "post", "deepnorm"),
    show_default=True,
    help="Where the norm stands, and without the residual connection if alone; several times for several.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Trainings of each.")
@click.option("--wait", is_flag=True, help="Wait until all have ended.")
@click.option(
    "--record",
    "record_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Wait, and write what was measured as one JSON file.",
)
def compare(
    recipe: Path,
    overrides: tuple[str, ...],
    variants: tuple[str, ...],
    seeds: int,
    wait: bool,
    record_file: Path | None,
) -> None:
    """Train RECIPE, a TOML file, with its norm in several places, and print the comparison's ID."""
    lab = laboratory()
    planned = arms(read_recipe(recipe, overrides), variants, seeds)
    names = {variant: f"{recipe.stem} {variant}" for variant in variants}
    group = start_comparison(lab, planned, owner=getpass.getuser(), names=names)
    click.echo(group)
    if not wait and record_file is None:
        return
    for run in members(lab, group):
        follow(lab, run.id)
    if record_file is not None:
        ended = members(lab, group)
        measured = lab.series([run.id for run in ended], [*SCALAR_SERIES, *LAYER_SERIES], most=MOST_POINTS)
        settings = [part for each in overrides for part in ("--set", each)]
        chosen = [part for each in variants for part in ("--variant", each)]
        command = ["python", "-m", "lab", "runs", "compare", recipe.as_posix(), *settings, *chosen]
        command += ["--seeds", str(seeds), "--record", record_file.as_posix()]
        write_trials(record_file, [trial_of(run, measured) for run in ended], command=shlex.join(command))


@runs.command()
@click.argument("run_id", metavar="ID")
def cancel(run_id: str) -> None:
    """Let a run save itself and end."""
    laboratory().stop(run_id)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
def resume(run_id: str, wait: bool) -> None:
    """Let a run that was cancelled or failed go on from its last checkpoint."""
    lab = laboratory()
    lab.resume(run_id)
    if wait and follow(lab, run_id) != "succeeded":
        raise SystemExit(1)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write; by default ID.zip."
)
def export(run_id: str, output: Path | None) -> None:
    """Write a run as a bundle: recipe, seed, versions, metrics, checkpoint, and a script that repeats it."""
    content = laboratory().export(run_id)
    path = output or Path(f"{run_id}.zip")
    write_atomically(path, content)
    click.echo(str(path))


@runs.command("import")
@click.argument("bundle", type=click.Path(path_type=Path))
def import_bundle(bundle: Path) -> None:
    """Import a BUNDLE and print the new run's ID."""
    click.echo(laboratory().import_bundle(bundle.read_bytes(), getpass.getuser()))


if __name__ == "__main__":
    run_command(cli)
