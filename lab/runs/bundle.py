"""A run as one file to take away and bring back: a zip with its recipe, measurements, checkpoint and a script that repeats it.

A bundle that comes in is somebody's file. Nothing of it is trusted: only files of known names are read, never more bytes
than are allowed, nothing is unpickled or executed, and everything has to fit together before anything is kept.

=====================  ==============================================================================================
reason of bad_bundle   what is wrong
=====================  ==============================================================================================
too_large              more bytes than are allowed, packed or unpacked
not_a_zip              no zip file, or one that was cut off or damaged
bad_entry              a file that has no place in a bundle: another name, a path, a link, one twice, one with a password
incomplete             a file is missing
bad_manifest           the manifest is not one
bad_recipe             the recipe cannot be used here
bad_model              weights, configuration and vocabularies are damaged or do not fit together, or the model is too large
bad_data               the sentence pairs are damaged
=====================  ==============================================================================================
"""

import io
import json
import math
import platform
import stat
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import tomli_w
import torch

from lab.runs.estimate import parameters_of
from lab.runs.problems import RunProblem
from lab.runs.settings import Settings
from transformer.checkpoint import (
    CONFIG,
    METRICS,
    SNAPSHOTS,
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    TRAINING_STATE,
    WEIGHTS,
    Snapshots,
    load,
    read_config,
)
from transformer.config import ModelConfig
from transformer.data.pairs import parse_pairs
from transformer.files import write_atomically
from transformer.recipe import Recipe
from transformer.training_folder import read_metrics

FORMAT = 1
MANIFEST, RECIPE, README, SCRIPT = "manifest.json", "recipe.toml", "README.txt", "repeat.py"
NEEDED = (WEIGHTS, CONFIG, f"{SOURCE_VOCABULARY}.json", f"{TARGET_VOCABULARY}.json", METRICS)
SNAPSHOT_FILES = (f"{SNAPSHOTS}.safetensors", f"{SNAPSHOTS}.json")
DATA_FILES = ("data/train.tsv.gz", "data/dev.tsv.gz")
KEPT = (*NEEDED, *SNAPSHOT_FILES, TRAINING_STATE, *DATA_FILES)
ALLOWED = (MANIFEST, RECIPE, README, SCRIPT, *KEPT)
STATES = ("succeeded", "cancelled")
MOST_NAME = 200
MOST_STEPS = 10**9
# A table of positions is made for the longest text that a model reads.
MOST_POSITION_ELEMENTS = 50_000_000

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

README_TEXT = """\
A training run of Headlight.

manifest.json   what it was: state, steps, seconds, versions
recipe.toml     everything that is needed to repeat it, the seed too
metrics.jsonl   what was measured, a JSON object a line
repeat.py       repeats it and compares the weights: python repeat.py FOLDER_OF_HEADLIGHT
The other files are the checkpoint. Import the whole file on the page "All runs", or with: python -m lab runs import FILE

注意力实验室的一次训练。在“所有训练任务”页面导入整个文件即可继续使用；运行 repeat.py 可以重做这次训练并比较权重。
"""

SCRIPT_TEXT = '''\
"""Repeats this training and compares the weights: python repeat.py FOLDER_OF_HEADLIGHT"""

import json
import sys
import tempfile
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))

import torch

from transformer.checkpoint import read_tensors
from transformer.recipe import prepare, read_recipe
from transformer.training_folder import recorded_events

torch.set_num_threads(1)
manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
print(f"made with torch {manifest['versions']['torch']}, here is {torch.__version__}")
prepared = prepare(read_recipe(here / "recipe.toml"), here / "data")
trainer, last = prepared.trainer, manifest["step"]
with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "run"
    for event in recorded_events(prepared, run, should_stop=lambda: trainer.step >= last):
        if event.step % 100 == 0 and type(event).__name__ == "StepEnd":
            print(f"step {event.step} of {last}, loss {event.loss:.4f}", flush=True)
    repeated, _ = read_tensors(run / "model.safetensors")
bundled, _ = read_tensors(here / "model.safetensors")
differences = [
    (repeated[name].to(tensor.dtype).double() - tensor.double()).abs().max().item() for name, tensor in bundled.items()
]
largest = max(differences)
print("the same weights, bit for bit" if largest == 0 else f"the weights differ by at most {largest:.3g}")
sys.exit(largest != 0)
'''


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes:
        manifest: ``name``, ``state``, ``step``, ``seconds`` and ``facts``.
        recipe: What was trained.
        records: The lines of ``metrics.jsonl``.
        files: The files of its folder by their names there.
    """

    manifest: dict[str, Any]
    recipe: Recipe
    records: list[dict[str, Any]]
    files: Mapping[str, bytes]

    def unpack(self, folder: Path) -> None:
        """Write the files into a folder of its own."""
        for name, content in self.files.items():
            write_atomically(folder / name, content)


def write_bundle(folder: Path, manifest: Mapping[str, Any]) -> bytes:
    """A run's folder as a bundle.

    Args:
        folder: Folder of the run.
        manifest: ``name``, ``state``, ``recipe``, ``step``, ``seconds``, ``created``, ``facts``.

    Raises:
        RunProblem: If there is no checkpoint yet.
    """
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise RunProblem(
            "no_checkpoint", f"The run has saved no model yet: {missing[0]} is missing.", file=missing[0]
        )
    recipe = dict(manifest["recipe"])
    about = {
        "format": FORMAT,
        **manifest,
        "seed": recipe["training"]["seed"],
        "versions": {"headlight": version(), "torch": torch.__version__, "python": platform.python_version()},
    }
    kept = [name for name in KEPT if (folder / name).exists()]
    if manifest["state"] == "succeeded":
        # Only who goes on needs it, and it is the largest file.
        kept = [name for name in kept if name != TRAINING_STATE]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps(about, ensure_ascii=False, indent=2) + "\n")
        archive.writestr(RECIPE, tomli_w.dumps(plain(recipe)))
        archive.writestr(README, README_TEXT)
        archive.writestr(SCRIPT, SCRIPT_TEXT)
        for name in kept:
            archive.writestr(name, (folder / name).read_bytes())
    return buffer.getvalue()


def version() -> str:
    """The version of this program."""
    return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"])


def plain(value: Any) -> Any:
    """Tuples as lists, which TOML writes."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def read_bundle(content: bytes, *, settings: Settings) -> Bundle:
    """Read and check a bundle; nothing is kept on disk.

    Args:
        content: The file.
        settings: What is allowed.

    Raises:
        RunProblem: With the code ``bad_bundle``, if it is no bundle, is not safe, or does not fit together.
    """
    if len(content) > settings.bundle_bytes:
        raise refusal("too_large", f"it has more than {settings.bundle_bytes:,} bytes")
    files = read_entries(content, most_bytes=settings.bundle_bytes)
    for name in (MANIFEST, *NEEDED):
        if name not in files:
            raise refusal("incomplete", f"{name} is missing")
    manifest, recipe = read_manifest(files[MANIFEST])
    check_data(files, recipe, most_bytes=settings.bundle_bytes)
    kept = {name: files[name] for name in KEPT if name in files}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in (*NEEDED, *SNAPSHOT_FILES):
            if name in kept:
                (folder / name).write_bytes(kept[name])
        check_model(folder, recipe, settings.most_parameters)
        if any(name in kept for name in SNAPSHOT_FILES):
            try:
                Snapshots.load(folder)
            except ValueError:
                # Pictures of the past are no reason to refuse the rest.
                kept = {name: each for name, each in kept.items() if name not in SNAPSHOT_FILES}
        records = read_metrics(folder)
    if manifest["state"] == "succeeded":
        kept.pop(TRAINING_STATE, None)
    return Bundle(manifest=manifest, recipe=recipe, records=records, files=kept)


def refusal(reason: str, sentence: str) -> RunProblem:
    """Why a bundle is refused."""
    return RunProblem("bad_bundle", f"This is not a bundle that can be imported: {sentence}.", reason=reason)


def read_entries(content: bytes, *, most_bytes: int) -> dict[str, bytes]:
    """The files of an archive by name, if all of them have a place in a bundle.

    Raises:
        RunProblem: If one has not, or the archive is damaged or larger than `most_bytes` when unpacked.
    """
    files: dict[str, bytes] = {}
    left = most_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                check_entry(entry, files)
                # What the archive says of sizes is not believed: it is read until there is too much.
                with archive.open(entry) as file:
                    files[entry.filename] = file.read(left + 1)
                left -= len(files[entry.filename])
                if left < 0:
                    raise refusal("too_large", f"unpacked it has more than {most_bytes:,} bytes")
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        if isinstance(error, RunProblem):
            raise
        raise refusal("not_a_zip", f"the archive is damaged ({error})") from error
    return files


def check_entry(entry: zipfile.ZipInfo, before: Mapping[str, bytes]) -> None:
    """Raise unless an entry of an archive is a plain file of a bundle that was not there before."""
    name = entry.filename
    if name not in ALLOWED or entry.orig_filename != name:
        raise refusal("bad_entry", f"{name[:80]!r} has no place in one")
    if name in before:
        raise refusal("bad_entry", f"{name} is there twice")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise refusal("bad_entry", f"{name} is no plain file")
    if entry.flag_bits & 1:
        raise refusal("bad_entry", f"{name} has a password")


def read_manifest(content: bytes) -> tuple[dict[str, Any], Recipe]:
    """What a manifest says, each value checked, and its recipe.

    Raises:
        RunProblem: If it is not a manifest, or its recipe cannot be used.
    """
    try:
        given = json.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise refusal("bad_manifest", f"{MANIFEST} is not JSON ({error})") from error
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise refusal("bad_manifest", f"{MANIFEST} is not one of format {FORMAT}")
    name, state, step, seconds = (given.get(key) for key in ("name", "state", "step", "seconds"))
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        raise refusal("bad_manifest", f"its name must be a line of at most {MOST_NAME} characters")
    if state not in STATES:
        raise refusal("bad_manifest", f"its state must be one of {', '.join(STATES)}")
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MOST_STEPS:
        raise refusal("bad_manifest", "its step is not a number of steps")
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not math.isfinite(seconds)
        or seconds < 0
    ):
        raise refusal("bad_manifest", "its seconds are not a duration")
    if not isinstance(given.get("recipe"), dict):
        raise refusal("bad_recipe", "it has no recipe")
    try:
        recipe = Recipe.from_dict(given["recipe"])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise refusal("bad_recipe", f"its recipe cannot be used ({error})") from error
    for file in (recipe.data.train, recipe.data.dev):
        if not is_below(file):
            raise refusal("bad_recipe", f"its recipe reads {file[:80]!r}, which is not one of its own files")
    facts = given.get("facts")
    return {
        "name": name.strip(),
        "state": state,
        "step": step,
        "seconds": float(seconds),
        "facts": checked_facts(facts if isinstance(facts, dict) else {}),
    }, recipe


def is_below(name: str) -> bool:
    """Whether a path stays inside the folder it is put into, on every system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or windows.is_absolute() or bool(windows.drive) or bool(windows.root)
    return (
        isinstance(name, str)
        and not absolute
        and ".." not in (*posix.parts, *windows.parts)
        and "\0" not in name
    )


def checked_facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that are what they should be; the others are left out."""
    names = ("parameters", "source_size", "target_size", "train_pairs", "dev_pairs", "dropped")
    facts: dict[str, Any] = {
        name: given[name]
        for name in names
        if isinstance(given.get(name), int) and not isinstance(given[name], bool) and 0 <= given[name] < 2**53
    }
    layers = given.get("layers")
    if isinstance(layers, list) and all(isinstance(each, str) and len(each) < 20 for each in layers):
        facts["layers"] = layers
    return facts


def check_data(files: Mapping[str, bytes], recipe: Recipe, *, most_bytes: int) -> None:
    """Raise unless the sentence pairs of a bundle, if it has any, can be read."""
    present = [name for name in DATA_FILES if name in files]
    if len(present) == 1:
        raise refusal("incomplete", "one of the two files of sentence pairs is missing")
    for name in present:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            text = unpacker.decompress(files[name], most_bytes)
            if unpacker.unconsumed_tail:
                raise refusal("too_large", f"unpacked {name} has more than {most_bytes:,} bytes")
            if not unpacker.eof:
                raise refusal("bad_data", f"{name} is cut off")
            parse_pairs(text.decode("utf-8"), name)
        except (zlib.error, UnicodeDecodeError) as error:
            raise refusal("bad_data", f"{name} is damaged ({error})") from error
        except ValueError as error:
            if isinstance(error, RunProblem):
                raise
            raise refusal("bad_data", str(error).rstrip(".")) from error


def check_model(folder: Path, recipe: Recipe, most_parameters: int) -> None:
    """Raise unless the checkpoint in a folder is that of a recipe, small enough, and opens."""
    try:
        config = read_config(folder)
        model = ModelConfig.from_dict(config["model"])
        sizes = {"source_size": model.source_size, "target_size": model.target_size}
        if ModelConfig.from_dict({**recipe.model, **sizes}) != model:
            raise refusal("bad_model", "the configuration of the model is not that of the recipe")
        # Before anything is made that is as large as the configuration says.
        weights = (folder / WEIGHTS).stat().st_size
        if parameters_of(model) > most_parameters or parameters_of(model) > weights:
            raise refusal("bad_model", "the model is larger than its weights, or than is allowed here")
        if model.max_length * model.d_model > MOST_POSITION_ELEMENTS:
            raise refusal("bad_model", "its positions take too much memory")
        load(folder)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, RunProblem):
            raise
        raise refusal("bad_model", str(error).replace(f"{folder}/", "").rstrip(".")) from error
