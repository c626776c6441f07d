"""A run as it is to be logged: the tasks fill it, the writer writes it, the outbox keeps it while the store is away."""

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MinLen, Predicate

Status = Literal["FINISHED", "FAILED", "KILLED"]
Fact = str | int | float | bool | None


def _no_nul(text: str) -> bool:
    return "\0" not in text  # no database takes one


def _hex(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def _plain_id(text: str) -> bool:
    return text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def _inner(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts and _no_nul(path)


Text = Annotated[str, Predicate(_no_nul)]
Name = Annotated[str, MinLen(1), Predicate(_no_nul)]
Key = Annotated[str, Predicate(_hex)]
RunId = Annotated[str, Predicate(_plain_id)]
InnerPath = Annotated[str, Predicate(_inner)]
UnixTime = Annotated[float, Ge(0), Le(1e11)]
Strict: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Dataset:
    """Rows that were learned from, as MLflow lists them.

    Attributes:
        name: How it is listed.
        digest: Hash of its content.
        file: Its Parquet file, below the run's artifacts.
        columns: Names of its columns.
        rows: How many rows it has.
    """

    __pydantic_config__: ClassVar = Strict

    name: Name
    digest: Text
    file: InnerPath
    columns: tuple[Text, ...]
    rows: Annotated[int, Ge(0)]


@dataclass(frozen=True)
class NewVersion:
    """A version of a registered model that is made of a run once this is logged.

    Attributes:
        model: The registered model's name.
        tags: Facts of the version.
        description: What a person should know of it (Markdown); `RUN_ID` in it becomes the run's identifier.
    """

    __pydantic_config__: ClassVar = Strict

    model: Name
    tags: Mapping[Name, Text]
    description: Text = ""


@dataclass(frozen=True)
class Child:
    """A run below another one, such as a trial of a training.

    Attributes:
        kind: What it is a run of.
        name: Its name.
        status: How it ended.
        params: Its parameters.
        metrics: Its figures.
    """

    __pydantic_config__: ClassVar = Strict

    kind: Name
    name: Name
    status: Status = "FINISHED"
    params: Mapping[Name, Fact] = field(default_factory=dict)
    metrics: Mapping[Name, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _keep_finite(self)


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that a run needs. Numbers that are not finite are left out.

    Attributes:
        kind: What it is a run of; the tag ``pepper.kind``.
        name: The run's name.
        status: How it ended.
        params: Its parameters.
        metrics: Its figures.
        tags: More tags; those that are None are left out.
        note: Its description (Markdown).
        artifacts: A folder whose content becomes the run's artifacts.
        below: The folder of the run's artifacts that this content goes to.
        children: The runs below it.
        dataset: The rows that it learned from, among its artifacts.
        data_of: The run whose datasets it builds on: they become its inputs.
        version: What its run becomes a version of.
        parent: The run that it lies below.
        run_id: The run that was started for it; None: it gets one.
        started_s: When it began (UNIX time); None is when it ended.
        ended_s: When it was over.
        key: Unique to it; its run carries it as the tag ``pepper.record``, so that it is logged once.
    """

    __pydantic_config__: ClassVar = Strict

    kind: Name
    name: Name
    status: Status = "FINISHED"
    params: Mapping[Name, Fact] = field(default_factory=dict)
    metrics: Mapping[Name, float] = field(default_factory=dict)
    tags: Mapping[Name, Fact] = field(default_factory=dict)
    note: Text = ""
    artifacts: Path | None = None
    below: InnerPath = ""
    children: tuple[Child, ...] = ()
    dataset: Dataset | None = None
    data_of: Name | None = None
    version: NewVersion | None = None
    parent: Name | None = None
    run_id: RunId | None = None
    started_s: UnixTime | None = None
    ended_s: UnixTime = field(default_factory=time.time)
    key: Key = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        _keep_finite(self)

    @property
    def started_ms(self) -> int:
        """When it began, as MLflow counts."""
        return round(1000 * (self.ended_s if self.started_s is None else self.started_s))

    @property
    def ended_ms(self) -> int:
        """When it was over, as MLflow counts."""
        return round(1000 * self.ended_s)


RUN_ID = "{run_id}"
"""Stands in a version's description for the identifier of the run, which only the store gives."""


def _keep_finite(record: Record | Child) -> None:
    """Leave out what is no number: neither databases nor JSON take it."""
    params = {k: v for k, v in record.params.items() if not isinstance(v, float) or math.isfinite(v)}
    object.__setattr__(record, "params", params)
    metrics = {k: float(v) for k, v in record.metrics.items() if math.isfinite(v)}
    object.__setattr__(record, "metrics", metrics)
