"""The trainings of the checkpoints that come with the project, seen as runs that nobody can change."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.runs.series import series_of
from lab.runs.store import Run, Series
from transformer.checkpoint import CONFIG, METRICS, read_config
from transformer.training_folder import read_metrics

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
PREFIX = "shipped-"


def shipped_runs() -> list[Run]:
    """The trainings of all shipped checkpoints that can be read, by name."""
    paths = sorted(CHECKPOINTS.glob(f"*/{CONFIG}"))
    found = [shipped_run(path.parent.name, path.stat().st_mtime_ns) for path in paths]
    return [run for run in found if run is not None]


@lru_cache(maxsize=64)
def shipped_run(name: str, _modified: int) -> Run | None:
    """The training of a shipped checkpoint, or None if it cannot be read."""
    folder = CHECKPOINTS / name
    try:
        config = read_config(folder)
        records = read_metrics(folder)
        steps, model = config["recipe"]["training"]["steps"], config["model"]
    except (ValueError, KeyError, TypeError):
        return None
    seconds = [record.get("seconds") for record in records if record["event"] == "Finished"]
    return Run(
        id=f"{PREFIX}{name}",
        kind="training",
        name=name,
        owner="",
        group="",
        state="succeeded",
        spec=config["recipe"],
        step=config["step"],
        steps=steps,
        created=0.0,
        seconds=seconds[-1] if seconds and seconds[-1] else 0.0,
        facts=shipped_facts(model),
        shipped=True,
    )


def shipped_facts(model: dict[str, Any]) -> dict[str, Any]:
    """What is known of a shipped checkpoint's model."""
    return {
        "source_size": model["source_size"],
        "target_size": model["target_size"],
        "layers": [
            *(f"encoder.{index}" for index in range(model["encoder_layers"])),
            *(f"decoder.{index}" for index in range(model["decoder_layers"])),
        ],
    }


def shipped_folder(run_id: str) -> Path | None:
    """The folder of a shipped checkpoint's training, or None if `run_id` is not one."""
    return next((CHECKPOINTS / run.name for run in shipped_runs() if run.id == run_id), None)


def shipped_series(run_id: str) -> dict[str, Series]:
    """What was measured while a shipped checkpoint was trained."""
    folder = shipped_folder(run_id)
    return {} if folder is None else _series(folder, (folder / METRICS).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _series(folder: Path, _modified: int) -> dict[str, Series]:
    return series_of(read_metrics(folder))
