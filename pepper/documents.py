"""Files that others may have written or changed: read whole, within limits, and refused in a line."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pydantic import ValidationError

MOST_BYTES = 32 * 2**20  # JSON takes up to thirty times as much in memory
MOST_DEPTH = 64
_MOST_NAME_BYTES = 255  # Linux takes no longer ones
_MOST_SHOWN = 60  # letters of a value


def read_bytes(file: Path, most: int) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds more bytes than ``most``.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size  # 0 of what is no regular file
        content = stream.read(1 + (min(size, most) or most))
    if len(content) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    return content


def read_json(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds something else: no JSON, NaN or infinities, too much, or nested too deep.
    """
    return parse_json(read_bytes(file, MOST_BYTES))


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the object that JSON holds.

    Raises:
        ValueError: As of `read_json`.
    """
    try:
        found = json.loads(content.decode("utf-8-sig"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no object")
    if _deeper(found, MOST_DEPTH):
        raise ValueError("nested too deep")
    return found


def plain_name(name: str) -> str:
    """Return the name if it is that of a file in a folder, and leads nowhere else.

    Raises:
        ValueError: It is not.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > _MOST_NAME_BYTES:
        raise ValueError("is no plain file name")
    return name


def first_fault(error: "ValidationError") -> str:
    """Say in a line where a document first differs from its schema, what is there, and what should be."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in fault["loc"])
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where} is missing"
    if not where:  # of the whole: what it holds tells nothing
        return " ".join(said.split())
    if fault["type"] == "value_error" and isinstance(fault["input"], dict):  # of what belongs together, not of a value
        return " ".join(f"{where}: {said}".split())
    shown = repr(fault["input"])
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
    return " ".join(f"{where} is {shown}: {said[:1].lower()}{said[1:]}".split())


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _deeper(tree: object, levels: int) -> bool:
    inner: Sequence[object] = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return bool(inner) and (levels == 0 or any(_deeper(value, levels - 1) for value in inner))
