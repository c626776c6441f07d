"""What clients send: typed, bounded, and nothing that names a path."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pepper.config.cutting import CutKind

MOST_CELLS = 1000
_SIZE = 2**31 - 1

Option = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}$")]
"""The name of an option of the configuration."""
ModelId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(description="SHA-256 of the model", examples=["0" * 64])
]
Size = Annotated[int, Field(ge=0, le=_SIZE)]
TensorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/\- ]{0,199}$")]
"""The name of an input, a dimension or a tensor, in letters that no interpolation or pattern is made of."""


def _given(values: Mapping[str, object]) -> list[str]:
    """Return those values that are given as the command line has them."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


class Asked(BaseModel):
    """The base of requests: no key but those that are named."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Sizes(Asked):
    """Sizes of dynamic dimensions, as the group ``model`` of the configuration has them."""

    batch: Annotated[int, Field(ge=1, le=_SIZE)] | None = Field(
        default=None, description="Of a dynamic first dimension"
    )
    dims: dict[TensorName, Size] = Field(default={}, description="By symbolic dimension", max_length=100)
    shapes: dict[TensorName, list[Size]] = Field(default={}, description="Whole shapes by tensor", max_length=100)

    def overrides(self) -> list[str]:
        """Return them as the command line has them."""
        from pepper.errors import key_of

        batch = _given({"model.batch": self.batch})
        dims = [f"{key_of('model.dims', name)}={size}" for name, size in self.dims.items()]
        return batch + dims + [f"{key_of('model.shapes', name)}={shape}" for name, shape in self.shapes.items()]


class Spacing(Asked):
    """Where a model may be cut, as the group ``cuts`` of the configuration has it."""

    kind: CutKind = CutKind.tensors
    max_tensors: int = Field(default=4, ge=1, le=1000)
    bridge_dist: int = Field(default=1, ge=1, le=_SIZE, description="Least distance of two cuts, in operators")

    def cut_overrides(self) -> list[str]:
        """Return it as the command line has it."""
        return [f"cuts={self.kind}", f"cuts.max_tensors={self.max_tensors}", f"cuts.bridge_dist={self.bridge_dist}"]


class CutsAsked(Sizes, Spacing):
    """Which cuts."""


class CellAsked(Sizes):
    """A model on a device under a load."""

    model: ModelId
    device: Option | None = Field(default=None, description="null: the service's own", examples=["share50"])
    load: Option | None = Field(default=None, description="null: the service's own", examples=["cpu25"])
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None

    def cell_overrides(self) -> tuple[str, ...]:
        """Return device and load as the command line has them."""
        given = {"device": self.device, "load": self.load, "device.threads": self.threads}
        return tuple(_given(given))


class BatchAsked(Asked):
    """Many cells."""

    cells: list[CellAsked] = Field(min_length=1, max_length=MOST_CELLS)


class SplitAsked(Sizes, Spacing):
    """How to split a model."""

    model: ModelId
    parts: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many, of nearly equal work"
    )
    at: list[TensorName] | None = Field(default=None, description="Tensors to cut at", min_length=1, max_length=1000)
    every: bool = Field(default=False, description="Cut wherever the kind and the distance allow it")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum((self.parts is not None, self.at is not None, self.every)) > 1:
            raise ValueError("parts, at and every exclude each other; give one of them")
        return self


class PlaceAsked(Sizes, Spacing):
    """What to place, and where."""

    model: ModelId
    fleet: Option | None = Field(default=None, description="null: the service's own", examples=["three_shares"])
    link: Option | None = Field(default=None, description="null: the service's own", examples=["wifi"])
    objective: Option | None = Field(default=None, description="null: the service's own", examples=["throughput"])
    max_parts: Annotated[int, Field(ge=1, le=1000)] | None = None
    split: bool = Field(default=False, description="Whether the parts are written and proved, too")

    def place_overrides(self) -> list[str]:
        """Return it as the command line has it."""
        chosen = _given({"fleet": self.fleet, "link": self.link, "objective": self.objective})
        return [*chosen, *self.cut_overrides(), *_given({"place.max_parts": self.max_parts})]


class ProfileAsked(CellAsked):
    """What to measure."""

    measure: Option | None = Field(default=None, description="null: the service's own", examples=["quick"])

    def profile_overrides(self) -> list[str]:
        """Return it as the command line has it."""
        return [*self.cell_overrides(), *_given({"measure": self.measure})]
