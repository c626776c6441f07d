"""How runs are asked for by the thousand."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CHUNK = 500
"""Runs that are asked for at once."""


def listed(run_ids: Sequence[str]) -> str:
    """Return identifiers of runs as MLflow's filters take them after ``IN``."""
    return ", ".join(f"'{run_id}'" for run_id in run_ids)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Keep the collector from looking at thousands of objects that are all alive again and again: half of the time."""
    was_on = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
