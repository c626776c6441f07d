"""What stands in the files that versions before left to be logged, checked whole before anything of it is used."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from pepper.documents import first_fault
from pepper.strict import StrictModel
from pepper.tracking.entries import UnusableError
from pepper.tracking.record import Fact, Key, Name, RunId, Text, UnixTime


class _Worker(StrictModel):
    model_config = ConfigDict(extra="allow")
    onnxruntime: Name | None = None


class _Environment(StrictModel):
    model_config = ConfigDict(extra="allow")
    worker: _Worker = _Worker()


class ProfileSchema(StrictModel):
    """A `pepper.measure.profile.Profile` without its samples."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    started_s: UnixTime
    ended_s: UnixTime
    verdict: Literal["VALID", "INVALID", ""] = ""
    reasons: list[Text] = Field(default_factory=list)
    metrics: dict[Name, float] = Field(default_factory=dict)
    environment: _Environment = _Environment()
    operators: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ProfileSchema":
        """A finished profile has a verdict and its figures."""
        figures = [f"latency_p50{part}_ms" for part in ("", "_low", "_high")] + ["throughput_per_s", "samples"]
        missing = [name for name in figures if name not in self.metrics]
        if self.status == "FINISHED" and (missing or not self.verdict):
            raise ValueError(f"a finished profile without {missing[0] if missing else 'a verdict'}")
        return self


class CellSchema(StrictModel):
    """A cell, without its samples."""

    name: Name
    cell: Name
    params: dict[Name, Fact]
    profile: ProfileSchema
    config: Text
    parent: Name | None = None
    uri: Name | None = None
    experiment: Name | None = None
    key: Key


class SweepEndSchema(StrictModel):
    """How a sweep ended, without its artifacts."""

    run_id: RunId
    status: Literal["FINISHED", "FAILED", "KILLED"]
    metrics: dict[Name, float]
    note: Text
    uri: Name
    experiment: Name
    ended_s: UnixTime


class ExecutionSchema(StrictModel):
    """An execution, without its artifacts."""

    name: Name
    params: dict[Name, Fact]
    metrics: dict[Name, float]
    provenance: dict[Name, Fact]
    note: Text
    failed: bool
    ended_s: UnixTime
    key: Key


class UnloggedSchema(StrictModel):
    """What is kept of an execution."""

    uri: Name
    experiment: Name
    execution: ExecutionSchema


def checked(schema: type[StrictModel], facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts as they are, once they are known to be such.

    Raises:
        UnusableError: Something is missing, of another type, or too much.
    """
    try:
        schema.model_validate(facts)
    except ValidationError as error:
        raise UnusableError(first_fault(error)) from error
    return facts
