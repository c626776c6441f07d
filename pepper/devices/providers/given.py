"""Whether a provider took the options that it was given: onnxruntime passes over what some do not know."""

import mmap
from collections.abc import Iterable
from pathlib import Path

import onnxruntime as ort

from pepper.devices.providers.choice import CPU, Choice

_WORDS = {"true": "1", "false": "0"}


def check_options(choice: Choice, session: ort.InferenceSession) -> None:
    """Make sure that a provider that onnxruntime has works with the options that were chosen.

    A plug-in's are not told: onnxruntime hands back what it was given. See :func:`unnamed`.

    Raises:
        ValueError: It has no such option, or works with another value.
    """
    if choice.library is not None or not choice.options:
        return
    taken = session.get_provider_options().get(choice.name, {})
    for name, value in choice.options.items():
        given = f"device.options.{name}={value}: {choice.name}"
        if choice.name == CPU:
            raise ValueError(f"{given} has no options; drop it, or give another device.provider")
        if taken and name not in taken:
            raise ValueError(f"{given} has no such option; it has {', '.join(sorted(taken))}")
        if taken and not _alike(taken[name], value):
            raise ValueError(f"{given} works with {taken[name]} all the same; give that, or drop it")


def _alike(one: str, other: str) -> bool:
    one, other = (_WORDS.get(text.lower(), text) for text in (one, other))
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def unnamed(library: Path, names: Iterable[str]) -> list[str]:
    """Return the options whose names do not occur in a plug-in's library: it cannot ask for them."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [name for name in names if content.find(name.encode()) < 0]
