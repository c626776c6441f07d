"""What execution providers are here, asked of a process of its own: onnxruntime is imported in such only."""

import json
import os
from functools import cache

from pepper.devices import host
from pepper.devices.process import CHOOSING, Process
from pepper.devices.providers.choice import CPU, Choice
from pepper.errors import MeasureError
from pepper.packages import onnxruntime

TIMEOUT_S = 60.0


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
        with Process("pepper.devices.inspector", host.allowed_cores()) as inspector:
            answer, _ = inspector.request("look", timeout_s=TIMEOUT_S, choice=json.loads(choice))
    except MeasureError:
        return {}
    return {str(name): str(value) for name, value in answer.items()}
