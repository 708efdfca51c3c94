"""Settings of the run system, from the environment, so that the app, the command line and the workers agree.

=======================  ==========================================================================================
variable                 what it sets
=======================  ==========================================================================================
HEADLIGHT_DATA           folder of runs; by default the user's data folder
HEADLIGHT_SLOTS          trainings at the same time; by default cores minus one, at least one
HEADLIGHT_STEPS          most steps of a training
HEADLIGHT_PARAMETERS     most parameters of a model
HEADLIGHT_QUEUE          most unfinished runs of one owner
HEADLIGHT_UPLOAD_MB      largest file of sentence pairs
HEADLIGHT_BUNDLE_MB      largest bundle
HEADLIGHT_GRACE          seconds that a worker has to save itself before it is ended
HEADLIGHT_SHARED         1: people may stop and delete only their own runs
=======================  ==========================================================================================
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the run system works.

    Attributes:
        data: Folder of the database and the runs.
        slots: Runs that work at the same time.
        most_steps: Most steps of a training.
        most_parameters: Most parameters of a model.
        most_queued: Most unfinished runs of one owner.
        upload_bytes: Largest file of sentence pairs.
        bundle_bytes: Largest bundle.
        grace_seconds: Seconds that a worker has to save itself before it is ended.
        shared: Whether people may stop and delete only their own runs.
    """

    data: Path
    slots: int = 1
    most_steps: int = 200_000
    most_parameters: int = 50_000_000
    most_queued: int = 50
    upload_bytes: int = 5 * MEGABYTE
    bundle_bytes: int = 200 * MEGABYTE
    grace_seconds: float = 30.0
    shared: bool = False

    @property
    def database(self) -> Path:
        """The database of all runs."""
        return self.data / "runs.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this folder."""
        return self.data / "supervisor.lock"

    @property
    def calibration(self) -> Path:
        """How fast this machine trains, measured."""
        return self.data / "calibration.json"

    def folder(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.data / "runs" / run_id

    def variables(self) -> dict[str, str]:
        """The environment variables from which another process reads these settings."""
        return {
            "HEADLIGHT_DATA": str(self.data),
            "HEADLIGHT_SLOTS": str(self.slots),
            "HEADLIGHT_STEPS": str(self.most_steps),
            "HEADLIGHT_PARAMETERS": str(self.most_parameters),
            "HEADLIGHT_QUEUE": str(self.most_queued),
            "HEADLIGHT_UPLOAD_MB": str(self.upload_bytes // MEGABYTE),
            "HEADLIGHT_BUNDLE_MB": str(self.bundle_bytes // MEGABYTE),
            "HEADLIGHT_GRACE": str(int(self.grace_seconds)),
            "HEADLIGHT_SHARED": str(int(self.shared)),
        }


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment names.

    Raises:
        ValueError: If a variable has a value that is not allowed.
    """

    def whole(name: str, default: int, low: int = 1) -> int:
        text = environment.get(name, "").strip()
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or int(text) < low:
            raise ValueError(f"{name} is {text!r}; it must be a whole number of at least {low}.")
        return int(text)

    named = environment.get("HEADLIGHT_DATA", "").strip()
    folder = Path(named).expanduser() if named else Path(platformdirs.user_data_dir("headlight", False))
    return Settings(
        data=folder.absolute(),
        slots=whole("HEADLIGHT_SLOTS", max(1, (os.cpu_count() or 2) - 1)),
        most_steps=whole("HEADLIGHT_STEPS", Settings.most_steps),
        most_parameters=whole("HEADLIGHT_PARAMETERS", Settings.most_parameters),
        most_queued=whole("HEADLIGHT_QUEUE", Settings.most_queued),
        upload_bytes=whole("HEADLIGHT_UPLOAD_MB", Settings.upload_bytes // MEGABYTE) * MEGABYTE,
        bundle_bytes=whole("HEADLIGHT_BUNDLE_MB", Settings.bundle_bytes // MEGABYTE) * MEGABYTE,
        grace_seconds=float(whole("HEADLIGHT_GRACE", int(Settings.grace_seconds), low=0)),
        shared=whole("HEADLIGHT_SHARED", 0, low=0) > 0,
    )
