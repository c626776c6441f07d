"""Which models onnxruntime here reads at all: versions of the format, operator sets, operators."""

import re
from typing import Any

import onnxruntime as ort

from pepper.devices.providers.choice import CPU
from pepper.devices.providers.small_models import empty

_BEYOND = 9999
_IR, _OPSET = re.compile(r"max supported IR version: (\d+)"), re.compile(r"is till opset (\d+)")


def abilities() -> dict[str, Any]:
    """Return what onnxruntime reads, as it says itself; what it does not say is left out.

    Returns:
        ``ir_version``: the newest; ``opsets``: the newest of each domain; ``operators``: all of them, as `DOMAIN:NAME`.
    """
    found: dict[str, Any] = {"opsets": {}}
    schemas: list[Any] = getattr(ort.capi.onnxruntime_pybind11_state, "get_all_operator_schema", list)()
    if schemas:
        found["operators"] = sorted({f"{schema.domain}:{schema.name}" for schema in schemas})
    if (most := _most(empty(ir_version=_BEYOND), _IR)) is not None:
        found["ir_version"] = most
    for domain in {schema.domain for schema in schemas}:
        if (most := _most(empty(opsets={domain: _BEYOND}), _OPSET)) is not None:
            found["opsets"][domain] = most
    return found


def _most(model: bytes, said: re.Pattern[str]) -> int | None:
    """Return the number that is named when a model is refused."""
    try:
        ort.InferenceSession(model, providers=[CPU])
    except Exception as error:  # onnxruntime's errors have no common base
        return int(found[1]) if (found := said.search(str(error))) else None
    return None
