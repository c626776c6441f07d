"""What versions before left to be logged, each kind in its own form: made records of, so that all else knows one form.

Cells lie in ``pending`` as ``record.json`` of schema 1 with their samples, ends of sweeps in ``ends``, executions in
``unlogged``.
"""

import contextlib
import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tokenize import TokenError  # NumPy parses a header as Python does
from typing import Any

import numpy as np

from pepper.measure.profile import Profile
from pepper.tracking.entries import ARTIFACTS, UnusableError, files_below, read_facts, read_file
from pepper.tracking.outbox import FILE, Outbox, SetAside
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.record import Record
from pepper.tracking.runs import EXECUTION, SWEEP

CELLS = "earlier"
"""Where cells are moved to while records are made of them."""
ENDS, EXECUTIONS = "ends", "unlogged"
_SAMPLES = "samples.npz"
_MOST_SAMPLES_BYTES = 256 * 2**20
_SERIES = ("start_ns", "latency_ns")

Found = tuple[Record, str | None, str | None, Callable[[Path], None] | None]
"""A record, the store that it is meant for, the experiment there, and what writes its artifacts."""


def boxes(folder: Path) -> dict[str, Outbox]:
    """Return where such entries lie in a tracking folder, those among the records apart."""
    return {name: Outbox(folder, name) for name in (CELLS, ENDS, EXECUTIONS)}


def adopt(folder: Path) -> list[SetAside]:
    """Make records of what versions before left in a tracking folder, whose lock is held.

    Returns:
        What cannot be used.

    Raises:
        TrackingError: A record cannot be written; what it is made of stays.
    """
    box, set_aside = Outbox(folder), []
    _move_cells(box, folder / CELLS)
    for name, outbox in boxes(folder).items():
        for entry in outbox.entries():
            try:
                found = _READERS[name](entry)
                if not (box.folder / found[0].key).exists():  # or it was added, and the process ended before it went on
                    box.add(*found)
            except UnusableError as error:
                set_aside.append(outbox.set_aside(entry, str(error)))
            else:
                outbox.remove(entry)
    return set_aside


def _move_cells(box: Outbox, to: Path) -> None:
    for entry in box.entries():
        with contextlib.suppress(UnusableError):  # the outbox says so
            facts = read_facts(entry, FILE)
            if facts and facts.get("schema") == 1 and type(facts["schema"]) is int:
                to.mkdir(exist_ok=True)
                entry.rename(to / entry.name)


def _facts(entry: Path, file: str) -> dict[str, Any]:
    facts = read_facts(entry, file)
    if facts is None:
        raise UnusableError("is gone")
    return facts


def _cell(entry: Path) -> Found:
    from pepper.tracking.earlier_schemas import CellSchema, checked

    facts = _facts(entry, FILE)
    facts.pop("schema", None)
    if facts.get("key") != entry.name:
        raise UnusableError(f"{FILE} is of another record than its folder's name says")
    checked(CellSchema, facts)
    try:
        samples = _read_samples(read_file(entry, _SAMPLES, _MOST_SAMPLES_BYTES))
    except FileNotFoundError:
        samples = {}
    if facts["profile"]["status"] == "FINISHED" and not samples:
        raise UnusableError(f"{_SAMPLES} is not there")
    profile = Profile(**facts.pop("profile"), samples=samples)
    uri, experiment, config = (facts.pop(name, None) for name in ("uri", "experiment", "config"))
    return record_profile(profile=profile, **facts), uri, experiment, partial(write_artifacts, profile, config)


def _end(entry: Path) -> Found:
    from pepper.tracking.earlier_schemas import SweepEndSchema, checked

    facts = checked(SweepEndSchema, _facts(entry, "sweep.json"))
    uri, experiment = facts.pop("uri"), facts.pop("experiment")
    return Record(kind=SWEEP, name=SWEEP, artifacts=_artifacts(entry), **facts), uri, experiment, None


def _execution(entry: Path) -> Found:
    from pepper.tracking.earlier_schemas import UnloggedSchema, checked

    facts = checked(UnloggedSchema, _facts(entry, "execution.json"))
    execution = facts["execution"]
    provenance, failed = execution.pop("provenance"), execution.pop("failed")
    record = Record(
        kind=EXECUTION,
        status="FAILED" if failed else "FINISHED",
        tags={f"pepper.{key}": value for key, value in provenance.items()},
        data_of=str(provenance.get("training_run") or "") or None,
        artifacts=_artifacts(entry),
        **execution,
    )
    return record, facts["uri"], facts["experiment"], None


_READERS = {CELLS: _cell, ENDS: _end, EXECUTIONS: _execution}


def _artifacts(entry: Path) -> Path:
    files_below(entry / ARTIFACTS)
    return entry / ARTIFACTS


def _read_samples(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return the samples of a cell: two arrays of one length.

    Raises:
        UnusableError: They are something else. Nothing larger than the file is made of it, and nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            if not stored or sorted(archive.namelist()) != sorted(f"{name}.npy" for name in _SERIES):
                raise ValueError(f"not {' and '.join(_SERIES)}, uncompressed")
            samples = {name: _read_array(archive.read(f"{name}.npy")) for name in _SERIES}
    except (ValueError, OSError, EOFError, RuntimeError, SyntaxError, TokenError, zipfile.BadZipFile) as error:
        raise UnusableError(f"{_SAMPLES} is damaged ({error})") from error
    lengths = {len(array) for array in samples.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise UnusableError(f"{_SAMPLES} does not hold {' and '.join(_SERIES)} of one length")
    return samples


def _read_array(content: bytes) -> np.ndarray[Any, Any]:
    """Return a row of numbers in NumPy's format."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of NumPy's format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    values = stream.read()
    if dtype.kind not in "iuf" or len(shape) != 1 or shape[0] * dtype.itemsize != len(values):
        raise ValueError("no row of numbers")
    array = np.frombuffer(values, dtype)
    if not np.isfinite(array).all():
        raise ValueError("not all numbers are finite")
    return array
