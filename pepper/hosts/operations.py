"""What a head may ask of a host that joined: a closed list, plain values in and out (JSON text, and bytes)."""

import importlib
import json
import threading
from collections.abc import Sequence
from typing import Any

from pepper import errors

OPERATIONS = {
    **dict.fromkeys(
        ("describe", "clock", "facts", "state", "cores", "installed", "resolve", "calibrate", "busy_percent"),
        "pepper.hosts.described",
    ),
    "unreadable": "pepper.hosts.readable",
    **dict.fromkeys(("held", "receive"), "pepper.hosts.held"),
    **dict.fromkeys(("listen", "probe"), "pepper.hosts.probing"),
    "lend": "pepper.hosts.lending",
    **dict.fromkeys(("measure", "path"), "pepper.measure.sent"),
    **dict.fromkeys(("learner", "score"), "pepper.planning.scoring_away"),
    "stop": "pepper.hosts.operations",
}
"""By name, the module whose function of that name answers it. It takes a request's values by name, and the pieces
(bytes) that go with it as `pieces`, if there are any; it returns a value, or a value and pieces."""

Answer = tuple[str, list[bytes]]

_MOST_KEPT = 8
_measuring = threading.Lock()
_running: dict[str, str] = {}
"""In words, by its key: what is measured right now."""

_stopped: set[str] = set()
_finished: dict[str, Answer] = {}
"""The newest answers to what is measured, by its key: what was finished while the head was away is not lost."""


def perform(operation: str, request: str, pieces: Sequence[bytes], once: str | None) -> Answer:
    """Answer a head's request: what was found, or which of pepper's errors it was.

    Args:
        operation: One of `OPERATIONS`.
        request: Its arguments, as JSON.
        pieces: Bytes that go with it.
        once: The key of something that is measured: one such at a time, and the same again is answered as before.
    """
    if once is None:
        return _performed(operation, request, pieces)
    with _measuring:
        if once not in _finished:
            _running[once] = _in_words(operation, request)
            try:
                _finished[once] = _performed(operation, request, pieces)
            finally:
                del _running[once]
            for key in list(_finished)[:-_MOST_KEPT]:
                del _finished[key]
        return _finished[once]


def stop(once: str) -> None:
    """End what is measured under this key, at the next safe point."""
    _stopped.add(once)


def running() -> list[str]:
    """Return, in words, what is measured right now."""
    return list(_running.values())


def check_wanted() -> None:
    """End here if nobody waits for what is measured any more: a safe point.

    Raises:
        MeasureError: Nobody does.
    """
    if _stopped.intersection(_running):
        raise errors.MeasureError("nobody waits for it any more")


def found_in(answer: Answer) -> tuple[Any, list[bytes]]:
    """Return what a host found, and the pieces that go with it.

    Raises:
        PepperError: The one that it raised there.
    """
    text, pieces = answer
    given = json.loads(text)
    if "error" in given:
        raise getattr(errors, given["error"], errors.DeviceError)(given["said"])
    return given["found"], pieces


def _in_words(operation: str, request: str) -> str:
    values = json.loads(request)
    what = values.get("model") or values.get("spec") or {}
    return f"{operation} {what.get('name', '')}".strip()


def _performed(operation: str, request: str, pieces: Sequence[bytes]) -> Answer:
    values = json.loads(request)
    values |= {"pieces": pieces} if pieces else {}
    try:
        found = getattr(importlib.import_module(OPERATIONS[operation]), operation)(**values)
    except errors.PepperError as error:
        return json.dumps({"error": type(error).__name__, "said": str(error)}), []
    value, given = found if isinstance(found, tuple) else (found, [])
    return json.dumps({"found": value}), given
