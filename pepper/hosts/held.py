"""Models that a host holds: fetched once by their hash, in pieces, and gone on with where that was cut short."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pepper.caches import cache_folder
from pepper.errors import DeviceError, ModelError, refusal

_HASH = re.compile(r"[0-9a-f]{64}")


def folder(model: str) -> Path:
    """Return where the files of a model are, or will be, by its hash."""
    if not _HASH.fullmatch(model):
        raise ModelError(f"{model[:80]!r} is no model's hash")
    return cache_folder("models") / model


def held(model: str, files: Mapping[str, int]) -> dict[str, int]:
    """Return how many bytes of each file of a model are here already.

    Args:
        model: Its hash.
        files: How many each has, by its name beside the model.
    """
    found = {}
    for name, size in files.items():
        file = _file(model, name)
        part = _part(file)
        found[name] = size if file.is_file() else part.stat().st_size if part.is_file() else 0
        if found[name] > size:
            part.unlink()
            found[name] = 0
    return found


def hold(model: str, name: str, offset: int, size: int, pieces: Sequence[bytes] = ()) -> int:
    """Add to a file of a model; return how many bytes of it are here now.

    A piece that does not begin where the file ends is left out: it came twice, or too late.

    Raises:
        DeviceError: It cannot be written.
    """
    file = _file(model, name)
    part = _part(file)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            if stream.tell() == offset:
                stream.writelines(pieces)
            reached = stream.tell()
        if reached == size:
            part.replace(file)
    except OSError as error:
        raise DeviceError(f"{part}: {refusal(error)}; make room there") from error
    return reached


def drop(model: str) -> None:
    """Forget a model that is damaged: it is fetched again."""
    shutil.rmtree(folder(model), ignore_errors=True)


def _file(model: str, name: str) -> Path:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ModelError(f"{name!r} is no file beside a model")
    return folder(model) / path


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")
