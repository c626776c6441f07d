"""The errors that pepper raises for a user's mistake or a machine's fault.

Each message is one line that names the key or file, the value and the fix.
"""

import difflib
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence

_PLAIN = re.compile(r"[\w@%+:,./-]*=[\w@%+=:,./\[\]-]*")
"""A command-line argument that a shell takes as it stands; brackets in a name may be a pattern of files."""


class PepperError(Exception):
    """Root of pepper's own errors; the command line prints its message and exits with status 2."""


class ConfigError(PepperError, ValueError):
    """A configuration key has a value that pepper cannot use."""


class ModelError(PepperError, ValueError):
    """An ONNX model is missing, corrupt or cannot be used as asked."""


class DeviceError(PepperError, RuntimeError):
    """A device cannot be set up or does not answer as asked."""


class HostLostError(DeviceError):
    """A host was away for longer than it is waited for."""


class MeasureError(PepperError, RuntimeError):
    """A measurement failed: the worker crashed, hung or refused the model."""


class HungError(MeasureError):
    """A program did not answer in time, and was killed."""


class TrackingError(PepperError, RuntimeError):
    """The tracking store is unreachable or refused a record."""


class LatencyError(PepperError, ValueError):
    """A latency model cannot be trained, loaded or used as asked."""


class PlacementError(PepperError, ValueError):
    """A placement problem is contradictory or has no solution."""


class ExecutionError(PepperError, RuntimeError):
    """A plan cannot be run, or no plan is left to go on with."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'resnet50'?``, or an empty string if nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names as a sentence lists them, such as ``a, b, c and 497 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def key_of(section: str, name: str) -> str:
    """Return the key by which the command line sets a name's value; a name that needs quotes gets them."""
    if "=" not in name and name[:1] not in ("'", '"'):
        return f"{section}.{name}"
    return f"{section}.'{name}'" if '"' in name else f'{section}."{name}"'


def argument(key: str, value: object) -> str:
    """Return ``KEY=VALUE`` as it is typed into a shell: in quotes where a name or a value needs them."""
    written = f"{key}={value}"
    return written if _PLAIN.fullmatch(written) else shlex.quote(written)


def refusal(error: OSError) -> str:
    """Return the system's reason; where a folder was copied, that of the first file."""
    return str(error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror)
