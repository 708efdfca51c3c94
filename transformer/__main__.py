"""The command line: ``python -m transformer train | translate | inspect | evaluate | fetch``.

An error is one sentence on stderr and exit status 2.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click
import numpy as np
import torch

from transformer.analysis.reading import read
from transformer.checkpoint import load
from transformer.command_line import INTERRUPTED, run_command
from transformer.data.download import download_pairs
from transformer.data.pairs import read_pairs, swap
from transformer.files import write_atomically
from transformer.recipe import prepare, read_recipe
from transformer.train import Evaluated, Event, Finished, StepEnd
from transformer.training_folder import make_shippable, recorded_events
from transformer.translate import TooLongError, measure, translate

FOLDER = click.Path(path_type=Path)

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=max(1, (os.cpu_count() or 2) - 1),
    show_default="cores minus one",
    help="Threads to compute with.",
)
checkpoint_option = click.option(
    "--checkpoint", type=FOLDER, required=True, help="Folder of the trained model."
)
beam_option = click.option(
    "--beam",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Hypotheses kept while decoding; 1 takes the most probable token each time.",
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
    "--log-every",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Steps between two lines of progress.",
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
    finished = False
    with stop_requested() as should_stop:
        events = recorded_events(prepared, output, resume=resume, should_stop=should_stop)
        click.echo(
            f"{prepared.trainer.model.num_parameters():,} parameters, vocabularies of "
            f"{len(prepared.source_vocabulary):,} and {len(prepared.target_vocabulary):,} tokens",
            err=True,
        )
        with show_progress(steps, log_every) as show:
            for event in events:
                show(event)
                finished = isinstance(event, Finished)
    if not finished:
        click.echo(f"Stopped after step {prepared.trainer.step}; go on with --resume.", err=True)
        raise SystemExit(INTERRUPTED)
    if ship:
        make_shippable(prepared, output)


@cli.command("translate")
@checkpoint_option
@beam_option
@threads_option
def translate_lines(checkpoint: Path, beam: int, threads: int) -> None:
    """Translate each line of standard input to a line of standard output."""
    torch.set_num_threads(threads)
    model = load(checkpoint)
    lines = read_lines(sys.stdin.buffer.read())
    try:
        translations = translate(model, lines, beam=beam)
    except TooLongError as error:
        raise ValueError(f"Line {error.index + 1} cannot be translated: {error}.") from error
    sys.stdout.buffer.write("".join(f"{translation}\n" for translation in translations).encode())
    sys.stdout.buffer.flush()


def read_lines(content: bytes) -> list[str]:
    """Cut standard input into lines; only a line feed ends one.

    Raises:
        ValueError: If it is not UTF-8.
    """
    lines = content.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"Line {number} of the input is not UTF-8 text.") from error
    return texts


@cli.command()
@checkpoint_option
@click.option("--source", required=True, help="Text to read.")
@click.option("--target", help="Text to put in the decoder's mouth; by default the model writes one.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="NPZ file to write."
)
@threads_option
def inspect(checkpoint: Path, source: str, target: str | None, output: Path, threads: int) -> None:
    """Write every tensor of one forward pass under its name.

    Attention arrays are heads x queries x keys. source_tokens and target_tokens label what encoder and decoder read.
    """
    torch.set_num_threads(threads)
    reading = read(load(checkpoint), encodable(source), None if target is None else encodable(target))
    arrays = {name: tensor.numpy() for name, tensor in reading.tensors.items()}
    arrays["source_tokens"] = np.array(reading.source.tokens)
    arrays["target_tokens"] = np.array(reading.decoder_input)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(output, buffer.getvalue())


def encodable(text: str) -> str:
    """A text from the command line.

    Raises:
        ValueError: If it came as bytes that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("The text is not UTF-8.") from error
    return text


@cli.command()
@checkpoint_option
@click.option(
    "--pairs", "pairs_file", type=click.Path(path_type=Path), required=True, help="Source, tab, target."
)
@click.option("--swap", "swapped", is_flag=True, help="The file's second column is the source.")
@beam_option
@threads_option
def evaluate(checkpoint: Path, pairs_file: Path, swapped: bool, beam: int, threads: int) -> None:
    """Translate the sources of a file of sentence pairs and print BLEU and chrF as JSON.

    Several targets of one source count as its references.
    """
    torch.set_num_threads(threads)
    model = load(checkpoint)
    pairs = read_pairs(pairs_file)
    if swapped:
        pairs = swap(pairs)
    try:
        quality = measure(model, pairs, beam=beam)
    except TooLongError as error:
        raise ValueError(
            f"Source {error.index + 1} of {pairs_file} cannot be translated: {error}."
        ) from error
    click.echo(json.dumps(asdict(quality)))


@cli.command("fetch")
@click.argument("url")
@click.option("--sha256", required=True, help="Checksum the file must have.")
@click.option("--output", type=FOLDER, required=True, help="Folder to write to; the DATA of the recipes.")
@click.option("--name", required=True, help="What to call the files, such as tatoeba/cmn-eng.")
@click.option("--dev", type=click.IntRange(1), default=1000, show_default=True, help="Sources to hold out.")
@click.option("--seed", default=1, show_default=True, help="Which sources these are.")
def fetch_pairs(url: str, sha256: str, output: Path, name: str, dev: int, seed: int) -> None:
    """Download sentence pairs from URL, check them, and split them into NAME.train.tsv.gz and NAME.dev.tsv.gz."""
    train_pairs, dev_pairs = download_pairs(url, sha256, output, name, dev=dev, seed=seed)
    click.echo(f"{train_pairs:,} pairs to train on, {dev_pairs:,} held out, in {output}", err=True)


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


if __name__ == "__main__":
    run_command(cli)
