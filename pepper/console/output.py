"""Where a task's words and results go: text for people, one JSON document for scripts, or problems only."""

import contextlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pepper.config import OutputMode

_results: ContextVar[dict[str, Any]] = ContextVar("results")


@contextlib.contextmanager
def speaking(mode: OutputMode) -> Iterator[dict[str, Any]]:
    """Collect a task's results meanwhile, and keep what it prints from stdout unless the mode is ``text``.

    In ``json`` mode, stdout gets one line at the end: the collected results as a JSON object. What the task says on
    stderr, progress and problems, is left alone in every mode.

    Args:
        mode: For whom.

    Yields:
        The collected results; what is put in there belongs to the document too.
    """
    results: dict[str, Any] = {}
    token = _results.set(results)
    try:
        with contextlib.nullcontext() if mode == OutputMode.text else contextlib.redirect_stdout(io.StringIO()):
            yield results
        if mode == OutputMode.json:
            print(json.dumps(plain(results), allow_nan=False))
    finally:
        _results.reset(token)


def add_results(**results: Any) -> None:
    """Add results to the document of the running task; without one, as in a notebook, they go nowhere."""
    _results.get({}).update(results)


@contextlib.contextmanager
def results_under(name: str) -> Iterator[None]:
    """Keep results that are added meanwhile under a name of their own, as those of one step of several."""
    inner: dict[str, Any] = {}
    add_results(**{name: inner})
    token = _results.set(inner)
    try:
        yield
    finally:
        _results.reset(token)


def plain(value: Any) -> Any:
    """Turn a value into what JSON has: NaN and infinities become null, numbers of numpy become plain ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return plain(value.tolist()) if hasattr(value, "tolist") else [plain(item) for item in value]
