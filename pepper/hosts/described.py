"""What a host that joined says of itself."""

from typing import Any

import psutil

import pepper
from pepper.hosts.local import here
from pepper.packages import onnxruntime_version


def describe() -> dict[str, Any]:
    """Return what this machine is and which state it is in."""
    return {
        "facts": here().facts(),
        "state": here().state(),
        "cores": here().cores(),
        "pepper": pepper.__version__,
        "onnxruntime": onnxruntime_version(),
        "agent_memory_bytes": psutil.Process().memory_info().rss,
    }
