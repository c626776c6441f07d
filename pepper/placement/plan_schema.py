"""What may stand in a plan's file, checked whole before anything of it is used."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

_MOST = 2**53  # whole numbers beyond are none that a float can hold

Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
DeviceName = Annotated[str, StringConstraints(max_length=250, pattern=r"^[\w. -]+(#\d+)?$")]
"""What MLflow takes as a part of a metric's name, and the number of a device of several equal ones."""
Amount = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Size = Annotated[int, Field(ge=0, le=_MOST)]


class _Strict(BaseModel):
    """No key but those that are named, no value of another type, no number that is none."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class _Model(_Strict):
    name: Text
    path: Text
    sha256: Text
    input_shapes: dict[Text, list[Size]]
    inner_shapes: dict[Text, list[Size]] = {}
    inputs: dict[Text, Any] = {}


class _Nothing(_Strict):
    """A plan of numbers that came from no model."""


class _Link(_Strict):
    origin: DeviceName = Field(alias="from")
    target: DeviceName = Field(alias="to")
    bandwidth_mbit_s: Rate | None
    latency_ms: Amount
    forwarded_mbit_s: Rate | None


class _Fleet(_Strict):
    devices: dict[DeviceName, dict[str, Any]]
    links: list[_Link]
    source: DeviceName | None
    sink: DeviceName | None

    @model_validator(mode="after")
    def _known(self) -> "_Fleet":
        ends = [end for link in self.links for end in (link.origin, link.target)]
        for name in (*ends, self.source, self.sink):
            if name is not None and name not in self.devices:
                raise ValueError(f"{name!r} is not among the fleet's devices")
        return self


class _Part(_Strict):
    start: Count
    stop: Count
    device: DeviceName
    time_ms: Amount
    pickup_ms: Amount
    memory_bytes: Amount
    receive_ms: Amount
    receive_bytes: Amount
    inputs: list[Text]
    outputs: list[Text]


class _Rules(_Strict):
    pinned: dict[DeviceName, Annotated[list[Count], Field(min_length=2, max_length=2)]] = {}
    excluded: list[DeviceName] = []
    max_parts: Annotated[int, Field(gt=0, le=_MOST)] | None = None


class PlanSchema(_Strict):
    """A `pepper.placement.plan.Plan`."""

    model: _Model | _Nothing
    fleet: _Fleet
    objective: Literal["latency", "throughput"]
    parts: Annotated[list[_Part], Field(min_length=1)]
    return_ms: Amount
    latency_ms: Amount
    period_ms: Amount
    sent_bytes: Amount
    bound_ms: Amount
    gap: Annotated[float, Field(ge=-1e-6)]  # rounding
    solver: Text
    provenance: dict[Text, Any] = {}
    rules: _Rules = _Rules()

    @model_validator(mode="after")
    def _in_order(self) -> "PlanSchema":
        if [part.start for part in self.parts] != [0, *(part.stop for part in self.parts[:-1])]:
            raise ValueError("the parts do not follow one another")
        for part in self.parts:
            if part.device not in self.fleet.devices:
                raise ValueError(f"a part runs on {part.device!r}, which is not among the fleet's devices")
            if part.stop <= part.start:
                raise ValueError("a part has no operators")
        return self
