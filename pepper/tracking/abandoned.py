"""Runs whose process is gone: one that was killed outright cannot end its run itself."""

import json
import os
import platform
from functools import cache
from pathlib import Path

import psutil

from pepper.tracking.store import Store, reaching

OWNER_TAG = "pepper.owner"
_SAME_START_S = 2.0  # a process's start is known to a clock tick; the clock itself may be set meanwhile


@cache
def _place() -> dict[str, str]:
    """Where process identifiers mean the same: the machine, its boot and the container."""
    return {
        "host": platform.node(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
    }


def owner() -> str:
    """Return the tag that names this process among all that ever ran (JSON)."""
    process = psutil.Process()
    return json.dumps({**_place(), "pid": os.getpid(), "started_s": process.create_time()})


def is_gone(tag: str) -> bool:
    """Tell whether a tagged process has surely ended; one on another machine or in another container may live."""
    here = _place()
    try:
        facts = json.loads(tag)
        place = {name: facts[name] for name in here}
        pid, started_s = int(facts["pid"]), float(facts["started_s"])
    except (ValueError, TypeError, KeyError):  # no tag of pepper's
        return False
    if place["host"] != here["host"]:
        return False
    if place["boot"] != here["boot"]:
        return True
    if place["pid_namespace"] != here["pid_namespace"]:
        return False
    try:
        return abs(psutil.Process(pid).create_time() - started_s) > _SAME_START_S
    except psutil.NoSuchProcess:
        return True


def close_abandoned(store: Store) -> int:
    """End the runs whose process is gone as KILLED; return how many there were.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
        abandoned = [run for run in running if OWNER_TAG in run.data.tags and is_gone(run.data.tags[OWNER_TAG])]
        for run in abandoned:
            note = "**KILLED**: its process ended without a word; what it had finished is kept."
            store.client.set_tag(run.info.run_id, "mlflow.note.content", note)
            store.client.set_terminated(run.info.run_id, "KILLED")
    return len(abandoned)
