"""What a head may ask of a host that joined: a closed list, plain values in and out (JSON text)."""

import importlib
import json
from typing import Any

from pepper import errors

OPERATIONS = {
    "describe": "pepper.hosts.described",
}
"""By name, the module whose function of that name answers it."""


def perform(operation: str, request: str) -> str:
    """Answer a head's request: what was found, or which of pepper's errors it was."""
    try:
        module = importlib.import_module(OPERATIONS[operation])
        return json.dumps({"found": getattr(module, operation)(**json.loads(request))})
    except errors.PepperError as error:
        return json.dumps({"error": type(error).__name__, "said": str(error)})


def answer(text: str) -> Any:
    """Return what a host found.

    Raises:
        PepperError: The one that it raised there.
    """
    given = json.loads(text)
    if "error" in given:
        raise getattr(errors, given["error"], errors.DeviceError)(given["said"])
    return given["found"]
