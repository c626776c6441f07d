"""What may stand in a latency model's folder, checked whole before anything of it is used or handed to XGBoost."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pepper.documents import first_fault, read_bytes, read_json
from pepper.errors import LatencyError
from pepper.latency.adaptation import DEVICE, FACTORS
from pepper.latency.features import FEATURES, digest
from pepper.latency.intervals import NOVELTIES
from pepper.latency.roofline import TERMS
from pepper.strict import StrictModel

FORMAT = 3
_MOST_TREES_BYTES = 2**28
_MOST_MS = 1e9
_MOST_FACTOR = 1e15
_MOST_WIDER = 1e4
_MOST_LOG = 100.0  # of a correction: beyond, e to its power leaves what a float holds


def _named(*names: str) -> AfterValidator:
    def check(found: dict[str, Any]) -> dict[str, Any]:
        if found.keys() != set(names):
            raise ValueError(f"does not hold what it should: {', '.join(sorted(found.keys() ^ set(names))[:3])}")
        return found

    return AfterValidator(check)


def _each(count: int) -> Any:
    return Field(min_length=count, max_length=count)


Count = Annotated[int, Field(ge=1, le=10**6)]
Bags = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class _Head(BaseModel):
    """What tells whether the rest can be understood at all."""

    model_config = ConfigDict(extra="allow", strict=True)
    format: Any = None
    features: list[str] = []
    features_digest: str = ""


class _Hyperparameters(StrictModel):
    objective: Literal["huber", "squared"]
    base: Literal["roofline", "constant"]
    freedom: Annotated[float, Field(gt=0)]
    rounds: Count
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    max_depth: Annotated[int, Field(ge=1, le=64)]
    least_leaf: Share
    subsample: Share
    colsample: Share
    reg_lambda: Annotated[float, Field(ge=0)]
    bags: Bags
    seed: int


class _Adaptation(StrictModel):
    device: Annotated[dict[str, float | None], _named(*DEVICE)]
    factors: Annotated[dict[str, Annotated[float, Field(ge=-_MOST_LOG, le=_MOST_LOG)]], _named(*FACTORS)]
    measurements: Count


class LatencyModelSchema(StrictModel):
    """A `pepper.latency.model.LatencyModel` without its trees."""

    format: Literal[3]
    features: list[str]
    features_digest: str
    hyperparameters: _Hyperparameters
    roofline: Annotated[dict[str, Annotated[float, Field(ge=0, le=_MOST_FACTOR)]], _named(*TERMS)] | None
    constant_ms: Annotated[float, Field(gt=0, le=_MOST_MS)]
    tails: Annotated[int, Field(ge=0, le=64)]
    lows: Annotated[list[float | None], _each(len(FEATURES))]
    highs: Annotated[list[float | None], _each(len(FEATURES))]
    interval: Annotated[list[Annotated[float, Field(gt=0, le=_MOST_MS)] | None], _each(2)]
    adaptations: list[_Adaptation]
    most_shares: Annotated[list[Share], _each(len(TERMS))] | None = None  # as files, and so is the next
    wider: Annotated[dict[str, Annotated[float, Field(ge=0, le=_MOST_WIDER)]], _named(*NOVELTIES)] | None = None
    files: dict[str, Sha256] | None = None  # versions saved before they were kept have none

    @model_validator(mode="after")
    def _belongs_together(self) -> "LatencyModelSchema":
        if (self.hyperparameters.base == "roofline") != (self.roofline is not None):
            raise ValueError(
                f"base is {self.hyperparameters.base}, but there is {'a' if self.roofline else 'no'} roofline"
            )
        if self.files is not None and self.files.keys() != set(tree_files(self.hyperparameters.bags, self.tails)):
            raise ValueError("files are not those of its trees")
        return self


def tree_files(bags: int, tails: int) -> list[str]:
    """Return the names of a latency model's files of trees: those of the median, then those of the tail."""
    return [*(f"median_{bag}.ubj" for bag in range(bags)), *(f"tail_{bag}.ubj" for bag in range(tails))]


def read_description(file: Path) -> dict[str, Any]:
    """Return what `pepper.latency.model.LatencyModel.save` wrote beside the trees.

    Raises:
        LatencyError: The file holds no latency model, or one of another format or feature list.
    """
    try:
        content = read_json(file)
        _check_head(file, _Head.model_validate(content))
        LatencyModelSchema.model_validate(content)
    except LatencyError:
        raise
    except (OSError, ValueError) as error:  # pydantic's among them
        raise LatencyError(
            f"{file}: no latency model that can be read ({_reason(error)}); train one with task=train"
        ) from error
    return content


def _check_head(file: Path, head: _Head) -> None:
    if head.format != FORMAT:
        raise LatencyError(
            f"{file}: format {str(head.format)[:20]}, but this pepper reads {FORMAT}; train again with task=train"
        )
    if head.features_digest != digest():
        changed = set(head.features) ^ set(FEATURES)
        named = f" ({', '.join(sorted(changed)[:3])}{', ...' if len(changed) > 3 else ''})" if changed else ""
        raise LatencyError(
            f"{file.parent}: trained on another feature list{named} than this pepper has; train again with task=train"
        )


def read_trees(file: Path, sha256: str | None) -> bytes:
    """Return the trees that a file holds, in XGBoost's format, once they are known to be those that were saved.

    Args:
        file: The file.
        sha256: The hash that it was saved with; None where it was saved without: it is taken as it is.

    Raises:
        LatencyError: It is missing, or another one.
    """
    try:
        content = read_bytes(file, _MOST_TREES_BYTES)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("not what was saved")
    except (OSError, ValueError) as error:
        raise LatencyError(f"{file}: missing or corrupt ({_reason(error)}); train again with task=train") from error
    return content


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        return first_fault(error)
    return str(error.strerror) if isinstance(error, OSError) else str(error)
