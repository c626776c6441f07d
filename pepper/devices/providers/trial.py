"""Whether a provider truly runs a model here."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.registry import provider_named
from pepper.devices.providers.small_models import products

_SIZE = 16
_TOLERANCE = 0.02  # relative to the greatest: half precision, a few products deep


def built_in() -> list[str]:
    """Return the names of the providers that this onnxruntime says it has."""
    return list(ort.get_available_providers())


def first_run(choice: Mapping[str, Any]) -> float:
    """Open a model of two matrix products on a provider and run it; return how long both took, ms.

    Raises:
        RuntimeError: The provider did not run it, or its answer is wrong.
        Exception: Whatever onnxruntime raises: it has no common base.
    """
    provider = provider_named(**choice)
    options = session_options(1, "all", spinning=False, parallel=False)
    given = {"input": np.ones((_SIZE, _SIZE), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.onnx"
        file.write_bytes(products(_SIZE, _SIZE, _SIZE, _SIZE))
        start = time.perf_counter()
        session, _ = open_checked(provider, str(file), options)
        (answer,) = provider.bind(session, given)()
        took_ms = 1000 * (time.perf_counter() - start)
        (expected,) = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, given)
    if not np.abs(np.asarray(answer) - expected).max() <= _TOLERANCE * np.abs(expected).max():
        raise RuntimeError(f"{provider.name} ran a product of matrices, but its answer is wrong")
    return took_ms
