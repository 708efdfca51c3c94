"""The command line: ``python -m transformer train | translate | inspect | evaluate``.

An error is one sentence on stderr and exit status 2.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
import torch

from transformer.recipe import prepare, read_recipe
from transformer.train import Evaluated, Event, Finished, StepEnd
from transformer.training_folder import make_shippable, recorded_events

INTERRUPTED = 130
FOLDER = click.Path(path_type=Path)

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=max(1, (os.cpu_count() or 2) - 1),
    show_default="cores minus one",
    help="Threads to compute with.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train a Transformer, translate with it, look inside it, and measure it."""


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--output", type=FOLDER, required=True, help="Folder of the checkpoint.")
@click.option("--data", type=FOLDER, help="Folder that holds the recipe's files of sentence pairs.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting.")
@click.option("--resume", is_flag=True, help="Go on with the training in the output folder.")
@click.option("--ship", is_flag=True, help="At the end keep float16 weights and no training state.")
@click.option(
    "--log-every", type=click.IntRange(1), default=100, show_default=True, help="Steps between two lines of progress."
)
@threads_option
def train(
    recipe: Path,
    output: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    ship: bool,
    log_every: int,
    threads: int,
) -> None:
    """Train what RECIPE, a TOML file, describes."""
    torch.set_num_threads(threads)
    prepared = prepare(read_recipe(recipe, overrides), data)
    steps = prepared.recipe.training.steps
    click.echo(
        f"{prepared.trainer.model.num_parameters():,} parameters, vocabularies of "
        f"{len(prepared.source_vocabulary):,} and {len(prepared.target_vocabulary):,} tokens",
        err=True,
    )
    finished = False
    with stop_requested() as should_stop, show_progress(steps, log_every) as show:
        for event in recorded_events(prepared, output, resume=resume, should_stop=should_stop):
            show(event)
            finished = isinstance(event, Finished)
    if not finished:
        click.echo(f"Stopped after step {prepared.trainer.step}; go on with --resume.", err=True)
        raise SystemExit(INTERRUPTED)
    if ship:
        make_shippable(prepared, output)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, or a request to terminate, into a wish that can be asked for; the second ends at once."""
    wished = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal wished
        if wished:
            raise KeyboardInterrupt
        wished = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: wished
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def show_progress(steps: int, log_every: int) -> Iterator[Callable[[Event], None]]:
    """Show events on stderr: a bar on a terminal, else a line for some steps and each evaluation."""
    if not sys.stderr.isatty():
        yield lambda event: print_event(event, steps, log_every)
        return
    evaluated = ""
    with click.progressbar(
        length=steps, file=sys.stderr, label="training", show_pos=True, item_show_func=lambda item: item or ""
    ) as bar:

        def show(event: Event) -> None:
            nonlocal evaluated
            if isinstance(event, Evaluated):
                evaluated = f", dev loss {event.loss:.3f}, accuracy {event.accuracy:.1%}"
            elif isinstance(event, StepEnd):
                bar.update(event.step - bar.pos, f"loss {event.loss:.3f}{evaluated}")

        yield show


def print_event(event: Event, steps: int, log_every: int) -> None:
    """Print an evaluation, the end, and every so many steps a line."""
    if isinstance(event, StepEnd) and event.step % log_every == 0:
        click.echo(
            f"step {event.step}/{steps}  epoch {event.epoch}  loss {event.loss:.4f}  learning rate "
            f"{event.learning_rate:.2e}  gradient norm {event.grad_norm:.2f}  {event.tokens_per_second:,.0f} tokens/s",
            err=True,
        )
    elif isinstance(event, Evaluated):
        click.echo(
            f"step {event.step}/{steps}  dev loss {event.loss:.4f}  accuracy {event.accuracy:.2%}  "
            f"sequence accuracy {event.sequence_accuracy:.2%}",
            err=True,
        )
    elif isinstance(event, Finished):
        click.echo(f"finished after {event.seconds:.0f} s", err=True)


def main() -> None:
    """Run the command line, turning every expected error into one sentence and exit status 2."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
    except ValueError as error:
        fail(str(error))


def fail(message: str) -> None:
    """End with one sentence on stderr and exit status 2."""
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
