"""What installed packages add to pepper, by name: entry points (``importlib.metadata``) of the groups below.

A group's names are looked at only where a name is none of pepper's own, and only what is used is imported.
"""

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from pepper.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PROVIDERS = "pepper.providers"
"""Subclasses of :class:`pepper.devices.providers.provider.Provider`, by the execution provider's name."""

DEVICES = "pepper.devices"
"""Subclasses of :class:`pepper.devices.cores.CoresDevice`, by what ``device.kind`` is to be."""

LOADS = "pepper.loads"
"""Subclasses of :class:`pepper.measure.load.Load`, by what ``load.generator`` is to be."""

SOLVERS = "pepper.solvers"
"""Functions of :data:`pepper.placement.chain.Solver`, by name."""


@cache
def _found(group: str) -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # some programs that import this start without it

    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """Return the names that were added to a group, in order."""
    return sorted(_found(group))


def check(key: str, value: str, own: Collection[str], group: str) -> None:
    """Check that a key's value is one of pepper's own, or was added.

    Raises:
        ConfigError: It is neither.
    """
    if value not in own and value not in _found(group):
        known = [*own, *names(group)]
        raise ConfigError(f"{key}={value}: must be one of {', '.join(known)}{nearest(value, known)}")


@cache
def load(group: str, name: str) -> object:
    """Return what was added to a group under this name.

    Raises:
        KeyError: Nothing was.
        ConfigError: It cannot be imported.
    """
    point = _found(group)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        package = f"package {point.dist.name}" if point.dist else "a package"
        raise ConfigError(
            f"{name!r} of {group}: cannot be imported from {package} ({error}); mend or uninstall it"
        ) from error


def load_class(group: str, name: str, base: type) -> type:
    """Return a class that was added to a group under this name.

    Raises:
        KeyError: Nothing was.
        ConfigError: It cannot be imported, or does not keep the contract: it is no subclass of `base`.
    """
    found = load(group, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{name!r} of {group}: is no subclass of {base.__module__}.{base.__qualname__}; make it one")
    return found
