"""What is in a bundle, checked piece by piece: nothing of it is trusted, and what is kept is what was understood.

Each check raises a `RunProblem` with the code ``bad_bundle`` and the reason that `lab.runs.bundle` lists.
"""

import io
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

import torch

from lab.runs.estimate import parameters_of
from lab.runs.problems import RunProblem
from lab.runs.series import SERIES, is_measured
from transformer.checkpoint import (
    TRAINING_STATE,
    WEIGHTS,
    ProbeText,
    Snapshots,
    load,
    load_training_state,
    read_config,
    read_tensors,
)
from transformer.config import ModelConfig
from transformer.data.pairs import parse_pairs
from transformer.data.tasks import task
from transformer.recipe import Recipe

FORMAT = 1
MANIFEST = "manifest.json"
STATES = ("succeeded", "cancelled")
MOST_NAME = 200
# A bundle has some fifteen entries; a directory of millions would be read before the first of them is looked at.
MOST_ENTRIES, MOST_DIRECTORY_BYTES = 64, 65536
END_OF_DIRECTORY, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x07"
END_BYTES, LOCATOR_BYTES, MOST_COMMENT = 22, 20, 65535
# A table of sinusoids is made for the longest text that a model reads, in double precision.
MOST_POSITION_ELEMENTS = 2**22
# Larger whole numbers are no floats any more.
MOST_NUMBER = 2**53
DTYPES = (torch.float32, torch.float16)
# What can come out of reading a file that was made to do harm.
UNREADABLE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, struct.error,
)  # fmt: skip


def refusal(reason: str, sentence: str) -> RunProblem:
    """Why a bundle is refused."""
    return RunProblem("bad_bundle", f"This is not a bundle that can be imported: {sentence}.", reason=reason)


def read_entries(content: bytes, *, allowed: Collection[str], most_bytes: int) -> dict[str, bytes]:
    """The files of an archive by name, if all of them have a place in a bundle.

    Args:
        content: The archive.
        allowed: Names that have a place.
        most_bytes: Most bytes of all files, unpacked.

    Raises:
        RunProblem: If one has no place, or the archive is damaged or too large.
    """
    check_directory(content)
    files: dict[str, bytes] = {}
    left = most_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                check_entry(entry, allowed, files)
                # What the archive says of sizes is not believed: it is read until there is too much.
                with archive.open(entry) as file:
                    files[entry.filename] = file.read(left + 1)
                left -= len(files[entry.filename])
                if left < 0:
                    raise refusal("too_large", f"unpacked it has more than {most_bytes:,} bytes")
    except RunProblem:
        raise
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise refusal("not_a_zip", f"the archive is damaged ({error})") from error
    return files


def check_directory(content: bytes) -> None:
    """Raise unless an archive ends with a directory as small as a bundle's."""
    start = content.rfind(END_OF_DIRECTORY, max(0, len(content) - END_BYTES - MOST_COMMENT))
    end = content[start : start + END_BYTES]
    if start < 0 or len(end) < END_BYTES:
        raise refusal("not_a_zip", "it is no archive, or was cut off")
    count, size = struct.unpack("<HL", end[10:16])
    large = content[max(0, start - LOCATOR_BYTES) : start].startswith(LOCATOR_64)
    if large or count > MOST_ENTRIES or size > MOST_DIRECTORY_BYTES:
        raise refusal("bad_entry", "it holds too many files")


def check_entry(entry: zipfile.ZipInfo, allowed: Collection[str], before: Mapping[str, bytes]) -> None:
    """Raise unless an entry of an archive is a plain file of a bundle that was not there before."""
    name = entry.filename
    if name not in allowed or entry.orig_filename != name:
        raise refusal("bad_entry", f"{name[:80]!r} has no place in one")
    if name in before:
        raise refusal("bad_entry", f"{name} is there twice")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise refusal("bad_entry", f"{name} is no plain file")
    if entry.flag_bits & 1:
        raise refusal("bad_entry", f"{name} has a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refusal("bad_entry", f"{name} is packed in an unusual way")


def read_manifest(content: bytes, *, most_steps: int) -> tuple[dict[str, Any], Recipe]:
    """What a manifest says, each value checked, and its recipe.

    Args:
        content: The manifest.
        most_steps: Most steps of a training that can be resumed.

    Raises:
        RunProblem: If it is not a manifest, or its recipe cannot be used.
    """
    try:
        given = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise refusal("bad_manifest", f"{MANIFEST} is not JSON ({error})") from error
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise refusal("bad_manifest", f"{MANIFEST} is not one of format {FORMAT}")
    recipe = read_recipe(given.get("recipe"))
    name, state, step, seconds = (given.get(key) for key in ("name", "state", "step", "seconds"))
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        raise refusal("bad_manifest", f"its name must be a line of at most {MOST_NAME} characters")
    if state not in STATES:
        raise refusal("bad_manifest", f"its state must be one of {', '.join(STATES)}")
    steps = recipe.training.steps
    if not is_count(step) or step > steps or (state == "succeeded" and step < steps):
        raise refusal(
            "bad_manifest", f"its step is not one of a training of {steps:,} steps that has {state}"
        )
    if not (isinstance(seconds, float) or is_count(seconds)) or not 0 <= seconds < MOST_NUMBER:
        raise refusal("bad_manifest", "its seconds are not a duration")
    if state != "succeeded" and steps > most_steps:
        raise refusal("bad_recipe", f"it would go on for more than {most_steps:,} steps")
    facts = given.get("facts")
    return {
        "name": name.strip(),
        "state": state,
        "step": step,
        "seconds": float(seconds),
        "facts": checked_facts(facts if isinstance(facts, dict) else {}),
    }, recipe


def read_recipe(given: Any) -> Recipe:
    """The recipe of a manifest.

    Raises:
        RunProblem: If it cannot be used.
    """
    if not isinstance(given, dict):
        raise refusal("bad_recipe", "it has no recipe")
    try:
        recipe = Recipe.from_dict(given)
        data = recipe.data
        texts = (
            data.task,
            data.train,
            data.dev,
            *(text for p in recipe.probes for text in (p.source, p.target)),
        )
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("what should be text is none")
        if data.task:
            task(data.task)
    except UNREADABLE as error:
        raise refusal("bad_recipe", f"its recipe cannot be used ({error})") from error
    for file in (data.train, data.dev):
        if not is_below(file):
            raise refusal("bad_recipe", f"its recipe reads {file[:80]!r}, which is not one of its own files")
    return recipe


def is_below(name: str) -> bool:
    """Whether a path stays inside the folder it is put into, on every system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or windows.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not absolute and ".." not in (*posix.parts, *windows.parts) and "\0" not in name


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_NUMBER


def checked_facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that cannot be read from its model and are what they should be."""
    names = ("train_pairs", "dev_pairs", "dropped")
    return {name: given[name] for name in names if is_count(given.get(name))}


def check_data(files: Mapping[str, bytes], names: Collection[str], *, most_bytes: int) -> None:
    """Raise unless the sentence pairs of a bundle, if it has any, can be read."""
    present = [name for name in names if name in files]
    if present and len(present) < len(names):
        raise refusal("incomplete", "one of the two files of sentence pairs is missing")
    for name in present:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            text = unpacker.decompress(files[name], most_bytes)
            if unpacker.unconsumed_tail:
                raise refusal("too_large", f"unpacked {name} has more than {most_bytes:,} bytes")
            # Whoever reads the file later would unpack a second part too, however large it is.
            if not unpacker.eof or unpacker.unused_data:
                raise refusal("bad_data", f"{name} is cut off, or something follows it")
            parse_pairs(text.decode("utf-8"), name)
        except RunProblem:
            raise
        except (zlib.error, ValueError) as error:
            raise refusal("bad_data", f"{name} is damaged ({error})".rstrip(".")) from error


def check_model(folder: Path, recipe: Recipe, *, most_parameters: int) -> ModelConfig:
    """The configuration of the checkpoint in a folder, if it is that of a recipe, small enough, and opens.

    Raises:
        RunProblem: If not.
    """
    try:
        model = ModelConfig.from_dict(read_config(folder)["model"])
        sizes = {"source_size": model.source_size, "target_size": model.target_size}
        if ModelConfig.from_dict({**recipe.model, **sizes}) != model:
            raise refusal("bad_model", "the configuration of the model is not that of the recipe")
        # Before anything is made that is as large as the configuration says.
        parameters = parameters_of(model)
        if parameters > most_parameters or parameters > (folder / WEIGHTS).stat().st_size:
            raise refusal("bad_model", "the model is larger than its weights, or than is allowed here")
        if model.max_length * model.d_model > MOST_POSITION_ELEMENTS:
            raise refusal("bad_model", "its positions take too much memory")
        if any(tensor.dtype not in DTYPES for tensor in read_tensors(folder / WEIGHTS)[0].values()):
            raise refusal("bad_model", "its weights are of an unusual kind")
        load(folder)
    except RunProblem:
        raise
    except UNREADABLE as error:
        raise refusal("bad_model", about(error, folder)) from error
    return model


def about(error: Exception, folder: Path) -> str:
    """What an error says, without the name of a folder that is gone by the time it is read."""
    return str(error).replace(f"{folder}{os.sep}", "").rstrip(".")


def layers_of(model: ModelConfig) -> list[str]:
    """The layers by their names in the trace."""
    return [
        *(f"encoder.{index}" for index in range(model.encoder_layers)),
        *(f"decoder.{index}" for index in range(model.decoder_layers)),
    ]


def facts_of_model(model: ModelConfig) -> dict[str, Any]:
    """The facts of a run that its model tells."""
    return {
        "parameters": parameters_of(model),
        "source_size": model.source_size,
        "target_size": model.target_size,
        "layers": layers_of(model),
    }


def read_records(content: bytes, model: ModelConfig, *, steps: int) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that a training of a model could have written, in rising order; the others are left out."""
    last: dict[str, int] = {}
    records = []
    for line in content.decode("utf-8", "replace").split("\n"):
        try:
            given = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(given, dict):
            continue
        event, step = str(given.get("event")), given.get("step")
        if event not in EVENTS or not is_count(step) or not last.get(event, -1) < step <= steps:
            continue
        last[event] = step
        records.append(
            {name: value for name, value in given.items() if name == "event" or fits(name, value, model)}
        )
    return records


# Those without a series say only that they happened.
EVENTS = (*SERIES, "ProbesRecorded", "Finished")


def fits(name: str, value: Any, model: ModelConfig) -> bool:
    """Whether a field of an event is a number, or says of each layer one."""
    layers = layers_of(model)
    if name == "layers":
        return bool(value == layers)
    of_layers = name in SERIES["LayersMeasured"]
    if isinstance(value, list) != of_layers or (of_layers and len(value) != len(layers)):
        return False
    numbers = value if isinstance(value, list) else [value]
    return is_measured(value) and all(isinstance(n, float) or abs(n) < MOST_NUMBER for n in numbers)


def checked_snapshots(folder: Path, recipe: Recipe, model: ModelConfig) -> Snapshots | None:
    """The snapshots in a folder, or None if they are not those of a training of this recipe.

    Pictures of the past are no reason to refuse the rest.
    """
    try:
        found = Snapshots.load(folder)
        if len(found.probes) != len(recipe.probes) or not all(map(is_probe, found.probes)):
            return None
        checked = Snapshots(found.probes)
        for step in found.steps:
            if not 0 <= step <= recipe.training.steps:
                return None
            checked.add(step, [maps_of(found, number, step, model) for number in range(len(found.probes))])
    except UNREADABLE:
        return None
    return checked


def is_probe(probe: ProbeText) -> bool:
    """Whether a probe has tokens that are text, as many as it should predict."""
    tokens = (*probe.source, *probe.target, *probe.predicted)
    return all(isinstance(token, str) for token in tokens) and len(probe.target) == len(probe.predicted)


def maps_of(snapshots: Snapshots, number: int, step: int, model: ModelConfig) -> dict[str, torch.Tensor]:
    """All attention of a probe at a step, by name.

    Raises:
        ValueError: If a map is not as large as its sentences are long.
        KeyError: If one is missing.
    """
    probe = snapshots.probes[number]
    source, target = len(probe.source), len(probe.target)
    shapes = {f"encoder.{n}.self_attention.weights": (source, source) for n in range(model.encoder_layers)}
    for n in range(model.decoder_layers):
        shapes[f"decoder.{n}.self_attention.weights"] = (target, target)
        shapes[f"decoder.{n}.cross_attention.weights"] = (target, source)
    maps = {name: snapshots.weights(number, step, name) for name in shapes}
    if any(maps[name].shape != (model.num_heads, *shape) for name, shape in shapes.items()):
        raise ValueError("a map of attention does not fit its sentences")
    return maps


def check_state(folder: Path, recipe: Recipe) -> None:
    """Raise unless the training state in a folder is one from which a training of this recipe can go on."""
    try:
        state, origin = load_training_state(folder)
        made_from = json.loads(origin)
        if Recipe.from_dict(made_from["recipe"]) != recipe or not isinstance(made_from["vocabularies"], str):
            raise ValueError("it is of another training")
        if not all(map(is_count, state.numbers.values())) or state.numbers["step"] > recipe.training.steps:
            raise ValueError("its numbers are none of a training")
        torch.Generator().set_state(state.tensors["random_state"])
    except UNREADABLE as error:
        raise refusal("bad_model", f"{TRAINING_STATE} is damaged ({about(error, folder)})") from error
