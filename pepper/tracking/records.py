"""Finished cells, kept on disk until MLflow has them: nothing measured is lost."""

import io
import json
import math
import re
import uuid
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pepper.measure.profile import Profile
from pepper.tracking.outbox import Outbox, UnusableError, read_facts, read_file

SCHEMA = 1
KEY = re.compile(r"[0-9a-f]{32}")
"""What names a record: an entry of another name is none of pepper's."""
_FILE, _SAMPLES = "record.json", "samples.npz"
_MOST_SAMPLES_BYTES = 256 * 2**20
_SERIES = ("start_ns", "latency_ns")


@dataclass
class Record:
    """All that a run in MLflow needs.

    Attributes:
        name: The run's name.
        cell: The cell's identity.
        params: The cell's facts.
        profile: What was measured.
        config: The resolved configuration (YAML).
        parent: The sweep's run; None for a single run.
        uri: The store that it is meant for (a whole path for SQLite); None is whichever takes it.
        experiment: The experiment there.
        key: Unique to this measurement; the run carries it as a tag, so that it is logged once.
    """

    name: str
    cell: str
    params: dict[str, Any]
    profile: Profile
    config: str
    parent: str | None = None
    uri: str | None = None
    experiment: str | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


class Pending(Outbox[Record]):
    """The records that wait to be logged."""

    NAME = "pending"

    def add(self, record: Record) -> None:
        """Keep a record on disk; figures that are not finite are left out.

        Raises:
            TrackingError: It cannot be written (the disk is full, say).
        """
        facts = asdict(replace(record, profile=replace(record.profile, samples={})))
        del facts["profile"]["samples"]
        facts["profile"]["metrics"] = _finite(record.profile.metrics)
        facts["params"] = _finite(record.params)

        def write(folder: Path) -> None:
            if record.profile.samples:
                np.savez(folder / _SAMPLES, **record.profile.samples)  # type: ignore[arg-type]
            (folder / _FILE).write_text(json.dumps({"schema": SCHEMA, **facts}))

        self.put(record.key, write)

    def read(self, entry: Path) -> Record | None:
        """Return an entry's record; None if it is gone: another process has logged it.

        Raises:
            UnusableError: It is damaged, or of a version that this pepper does not know.
        """
        from pepper.tracking.schemas import checked_record

        facts = read_facts(entry, _FILE)
        if facts is None:
            return None
        schema = facts.pop("schema", None)
        if schema != SCHEMA:
            raise UnusableError(f"{_FILE} is of schema {schema!r}, not {SCHEMA}: log it with the pepper that wrote it")
        if not KEY.fullmatch(entry.name) or facts.get("key") != entry.name:
            raise UnusableError(f"{_FILE} is of another record than its folder's name says")
        facts = checked_record(facts)
        try:
            samples = _read_samples(read_file(entry, _SAMPLES, _MOST_SAMPLES_BYTES))
        except FileNotFoundError:
            if not entry.exists():
                return None
            samples = {}
        if facts["profile"]["status"] == "FINISHED" and not samples:
            raise UnusableError(f"{_SAMPLES} is not there")
        return Record(**{**facts, "profile": Profile(**facts["profile"], samples=samples)})


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if not isinstance(value, float) or math.isfinite(value)}


def _read_samples(content: bytes) -> dict[str, "np.ndarray[Any, Any]"]:
    """Return the samples that `Pending.add` wrote: two arrays of one length.

    Raises:
        UnusableError: They are something else. Nothing larger than the file is made of it, and nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            if not stored or sorted(archive.namelist()) != sorted(f"{name}.npy" for name in _SERIES):
                raise ValueError(f"not {' and '.join(_SERIES)}, uncompressed")
            samples = {name: _read_array(archive.read(f"{name}.npy")) for name in _SERIES}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UnusableError(f"{_SAMPLES} is damaged ({error})") from error
    lengths = {len(array) for array in samples.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise UnusableError(f"{_SAMPLES} does not hold {' and '.join(_SERIES)} of one length")
    return samples


def _read_array(content: bytes) -> "np.ndarray[Any, Any]":
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
