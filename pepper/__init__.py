"""pepper profiles ONNX models on devices, learns their latency and places their parts.

From Python (see :mod:`pepper.api`)::

    import pepper

    model = pepper.load("my.onnx")
    model.cuts()                                    # where it can be cut
    model.profile(device="share50", load="cpu25")   # how long it takes
    model.predict(device="share50", load="cpu25")   # how long the champion says that it takes
    model.place(fleet="three_shares", link="wifi")  # which device runs which part
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pepper.api import Model as Model
    from pepper.api import load as load

__version__ = "0.1.0"

_API = ("Model", "load")


def __getattr__(name: str) -> Any:
    """Import the API when it is first asked for: the command line and the worker do without."""
    if name in _API:
        from pepper import api

        return getattr(api, name)
    raise AttributeError(f"module 'pepper' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_API))
