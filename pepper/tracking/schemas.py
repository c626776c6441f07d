"""What may stand in the files of an outbox, checked whole before anything of it is used."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from pepper.strict import StrictModel
from pepper.tracking.outbox import UnusableError

Text = Annotated[str, Field(pattern="^[^\\x00]*$")]  # no database takes a NUL
Name = Annotated[Text, Field(min_length=1)]
Hex = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
RunId = Annotated[str, Field(pattern="^[0-9A-Za-z_-]+$")]
UnixTime = Annotated[float, Field(ge=0, le=1e11)]  # seconds
Fact = str | int | float | bool | None


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


class RecordSchema(StrictModel):
    """A `pepper.tracking.records.Record` without its samples."""

    name: Name
    cell: Name
    params: dict[Name, Fact]
    profile: ProfileSchema
    config: Text
    parent: Name | None = None
    uri: Name | None = None
    experiment: Name | None = None
    key: Hex


class SweepEndSchema(StrictModel):
    """A `pepper.tracking.sweeps.SweepEnd` without its artifacts."""

    run_id: RunId
    status: Literal["FINISHED", "FAILED", "KILLED"]
    metrics: dict[Name, float]
    note: Text
    uri: Name
    experiment: Name
    ended_s: UnixTime


class ExecutionSchema(StrictModel):
    """A `pepper.tracking.executions.Execution` without its artifacts."""

    name: Name
    params: dict[Name, Fact]
    metrics: dict[Name, float]
    provenance: dict[Name, Fact]
    note: Text
    failed: bool
    ended_s: UnixTime
    key: Hex


class UnloggedSchema(StrictModel):
    """What is kept of an execution."""

    uri: Name
    experiment: Name
    execution: ExecutionSchema


def checked_record(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a record's facts as they are, once they are known to be such.

    Raises:
        UnusableError: Something is missing, of another type, or too much.
    """
    return _checked(RecordSchema, facts)


def checked_end(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a sweep's end as they are, once they are known to be such.

    Raises:
        UnusableError: Something is missing, of another type, or too much.
    """
    return _checked(SweepEndSchema, facts)


def checked_execution(facts: dict[str, Any]) -> dict[str, Any]:
    """Return an execution's facts as they are, once they are known to be such.

    Raises:
        UnusableError: Something is missing, of another type, or too much.
    """
    return _checked(UnloggedSchema, facts)


def _checked(schema: type[StrictModel], facts: dict[str, Any]) -> dict[str, Any]:
    try:
        schema.model_validate(facts)
    except (ValidationError, RecursionError) as error:
        raise UnusableError(_first(error)) from error
    return facts


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    first, *others = error.errors(include_url=False, include_input=False)
    more = f" (and {len(others)} more)" if others else ""
    return " ".join(f"{'.'.join(map(str, first['loc']))}: {first['msg']}{more}".split())
