"""Checks that the schemas share; every message names the key, the value and what is right."""

from collections.abc import Collection
from typing import Any

from pepper.errors import ConfigError, nearest

MISSING: Any = "???"
"""The user must give it."""


def one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Check that a value is among those allowed."""
    if value not in allowed:
        raise ConfigError(not_one_of(key, value, allowed))


def not_one_of(key: str, value: str, allowed: Collection[str]) -> str:
    """Say that a value is not among those allowed."""
    return f"{key}={value}: must be one of {', '.join(allowed)}{nearest(value, allowed)}"


def by_name(key: str, value: object) -> None:
    """Make sure that a value is values by name: what stands for another key's value may be anything.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{key}={str(value)[:60]}: must be values by name, such as {key}.NAME=VALUE")


def within(key: str, value: float | None, low: float, high: float = float("inf"), *, above: bool = False) -> None:
    """Check ``low <= value <= high`` (or ``low < value``), and that it is finite; None passes: it means the default."""
    if value == MISSING:
        raise ConfigError(f"{key}: has no value")
    if value is not None and not ((low < value if above else low <= value) and value <= high and value < float("inf")):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        limit = f" and at most {high:g}" if high != float("inf") else " and finite" if value == high else ""
        raise ConfigError(f"{key}={value}: must be {bound}{limit}")


def a_name(key: str, value: str, without: str = "") -> None:
    """Check that MLflow takes a value for the name of something that it keeps."""
    if value != MISSING and (not value.strip() or set(value) & set(without)):
        said = f" without {' or '.join(without)}" if without else ""
        raise ConfigError(f"{key}={value}: must be a name{said}")
