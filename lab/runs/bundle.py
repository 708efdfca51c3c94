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
import platform
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from lab.runs.bundle_checks import (
    FORMAT,
    MANIFEST,
    check_data,
    check_model,
    check_state,
    checked_snapshots,
    facts_of_model,
    is_count,
    read_entries,
    read_manifest,
    read_records,
    refusal,
)
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
    read_config,
)
from transformer.config import ModelConfig
from transformer.files import write_atomically
from transformer.recipe import Recipe

RECIPE, README, SCRIPT = "recipe.toml", "README.txt", "repeat.py"
NEEDED = (WEIGHTS, CONFIG, f"{SOURCE_VOCABULARY}.json", f"{TARGET_VOCABULARY}.json", METRICS)
SNAPSHOT_FILES = (f"{SNAPSHOTS}.safetensors", f"{SNAPSHOTS}.json")
DATA_FILES = ("data/train.tsv.gz", "data/dev.tsv.gz")
KEPT = (*NEEDED, *SNAPSHOT_FILES, TRAINING_STATE, *DATA_FILES)
ALLOWED = (MANIFEST, RECIPE, README, SCRIPT, *KEPT)
# What cannot be packed any smaller.
PACKED = (".safetensors", ".gz")

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
"""Repeats this training and compares the weights: python repeat.py FOLDER_OF_HEADLIGHT [FOLDER_OF_DATA]"""

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
data = Path(sys.argv[2]) if len(sys.argv) > 2 else here / "data"
try:
    prepared = prepare(read_recipe(here / "recipe.toml"), data)
except ValueError as error:
    sys.exit(str(error))
trainer, last = prepared.trainer, json.loads((here / "config.json").read_text(encoding="utf-8"))["step"]
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
        # A copy of a run that works, failed or was lost is one that was stopped where its checkpoint stands.
        "state": "succeeded" if manifest["state"] == "succeeded" else "cancelled",
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
            how = zipfile.ZIP_STORED if name.endswith(PACKED) else zipfile.ZIP_DEFLATED
            archive.writestr(name, (folder / name).read_bytes(), how)
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
    files = read_entries(content, allowed=ALLOWED, most_bytes=settings.bundle_bytes)
    for name in (MANIFEST, *NEEDED):
        if name not in files:
            raise refusal("incomplete", f"{name} is missing")
    manifest, recipe = read_manifest(files[MANIFEST], most_steps=settings.most_steps)
    check_data(files, DATA_FILES, most_bytes=settings.bundle_bytes)
    if manifest["state"] == "succeeded":
        files.pop(TRAINING_STATE, None)
    kept = {name: files[name] for name in KEPT if name in files}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, each in kept.items():
            if name not in DATA_FILES:
                (folder / name).write_bytes(each)
        model = check_model(folder, recipe, most_parameters=settings.most_parameters)
        if TRAINING_STATE in kept:
            check_state(folder, recipe)
        # From here on it is written anew from what was understood.
        records = read_records(kept[METRICS], model, steps=recipe.training.steps)
        kept[METRICS] = "".join(json.dumps(record) + "\n" for record in records).encode()
        kept[CONFIG] = checked_config(folder, model, recipe, manifest["step"])
        snapshots = checked_snapshots(folder, recipe, model)
        for name in SNAPSHOT_FILES:
            kept.pop(name, None)
        if snapshots is not None:
            snapshots.save(folder)
            kept |= {name: (folder / name).read_bytes() for name in SNAPSHOT_FILES}
    manifest["facts"] |= facts_of_model(model)
    return Bundle(manifest=manifest, recipe=recipe, records=records, files=kept)


def checked_config(folder: Path, model: ModelConfig, recipe: Recipe, most: int) -> bytes:
    """The configuration of a checkpoint with what was checked of it; its step is at most `most`."""
    given = read_config(folder)
    step, versions = given.get("step"), given.get("versions")
    made_with = versions.get("torch") if isinstance(versions, dict) else None
    config = {
        "format": given["format"],
        "model": model.to_dict(),
        "recipe": recipe.to_dict(),
        "step": step if is_count(step) and step <= most else most,
        "versions": {"torch": made_with if isinstance(made_with, str) and len(made_with) < 100 else ""},
    }
    return (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode()
