"""What execution providers are here, asked of a process of its own: onnxruntime is imported in such only."""

import json
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

from pepper.devices import host
from pepper.devices.process import CHOOSING, Process
from pepper.devices.providers.choice import CPU, Choice
from pepper.devices.providers.known import KNOWN
from pepper.errors import MeasureError
from pepper.packages import onnxruntime

TIMEOUT_S = 60.0
REMOTE = ("AzureExecutionProvider",)
"""Providers that onnxruntime lists and that run no model: they ask a service."""


def found(choice: Choice) -> tuple[tuple[str, str], ...]:
    """Return what a provider and its hardware are here, and what of the environment chooses among accelerators.

    It is empty for the CPU's own, and where the provider is not there: what opens a model on it then says so.
    """
    if choice.name == CPU and choice.library is None:
        return ()
    chosen = {name: os.environ[name] for name in CHOOSING if os.environ.get(name)}
    package = {"package": str(onnxruntime())}
    return tuple(sorted({**_looked(json.dumps(choice.to_json())), **chosen, **package}.items()))


@cache
def _looked(choice: str) -> dict[str, str]:
    try:
        answer = _asked("look", choice=json.loads(choice))
    except MeasureError:
        return {}
    return {str(name): str(value) for name, value in answer.items()}


@cache
def choices() -> list[Choice]:
    """Return the providers that there may be here: onnxruntime's, those of known plug-ins, those that packages add.

    Raises:
        MeasureError: onnxruntime cannot be imported.
    """
    answer = _asked("available")
    plugins = [Choice(name, known.module) for name, known in KNOWN.items() if known.module and find_spec(known.module)]
    names = [name for name in answer["built_in"] if name not in REMOTE]
    return [*map(Choice, names), *plugins, *map(Choice, answer["added"])]


@cache
def reads() -> dict[str, Any]:
    """Return which models onnxruntime here reads; see :func:`pepper.devices.providers.abilities.abilities`.

    Raises:
        MeasureError: onnxruntime cannot be imported.
    """
    return _asked("reads")


def first_run_ms(choice: Choice) -> float:
    """Run a small model on a provider, in a process of its own; return how long opening and running it took, ms.

    Raises:
        MeasureError: It does not run it, with the reason.
    """
    return float(_asked("run", choice=choice.to_json())["first_ms"])


def _asked(op: str, **fields: Any) -> dict[str, Any]:
    with Process("pepper.devices.inspector", host.allowed_cores()) as inspector:
        return inspector.request(op, timeout_s=TIMEOUT_S, **fields)[0]
