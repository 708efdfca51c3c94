"""The work of an experiment's run: its events, a JSON line each in ``events.jsonl`` of the run's folder.

An experiment that was interrupted begins again: it takes a minute, and what it says depends on its options alone.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from lab.experiments.catalogue import find_experiment
from lab.experiments.events import Concluded, Progress, event_record
from lab.experiments.experiment import report
from lab.runs.recorder import Recorder
from lab.runs.settings import Settings
from lab.runs.store import Run, Store

EVENTS = "events.jsonl"


def experiment(
    settings: Settings, store: Store, run: Run, recorder: Recorder, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Run an experiment; returns what it reports, or None if it was stopped.

    Raises:
        ValueError: If there is no such experiment, or an option has a value that is not allowed.
    """
    chosen = find_experiment(run.spec["name"])
    events = chosen.run(chosen.make_options(run.spec["options"]))
    began, total = time.perf_counter(), run.steps
    with (settings.folder(run.id) / EVENTS).open("w", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps(event_record(event), ensure_ascii=False) + "\n")
            file.flush()
            if isinstance(event, Progress):
                if event.total != total:
                    store.set_columns(run.id, run.attempt, steps=event.total)
                    total = event.total
                recorder.reach(event.done)
            if isinstance(event, Concluded):
                recorder.reach(total)
                return report(chosen, event, time.perf_counter() - began)
            if should_stop():
                return None
    raise RuntimeError(f"The experiment {chosen.name} ended without a conclusion.")
