"""Where models are cut and how they are split."""

from dataclasses import dataclass
from enum import StrEnum

from pepper.config.checks import MISSING, within
from pepper.errors import ConfigError


class CutKind(StrEnum):
    """What may cross at a cut."""

    tensors = "tensors"
    bridges = "bridges"
    frontiers = "frontiers"


@dataclass
class CutsConfig:
    """Where a model may be cut.

    Attributes:
        kind: ``tensors`` (one tensor crosses), ``bridges`` (one edge of the operator graph) or
            ``frontiers`` (up to ``max_tensors`` tensors).
        max_tensors: The most tensors that may cross at a frontier.
        bridge_dist: The least distance of two cuts, in operators; the later of two that are closer is left out.
        why: A tensor; ``task=cuts`` says why no cut is there.
    """

    kind: CutKind = MISSING
    max_tensors: int = 4
    bridge_dist: int = 1
    why: str | None = None

    def __post_init__(self) -> None:
        within("cuts.max_tensors", self.max_tensors, 1)
        within("cuts.bridge_dist", self.bridge_dist, 1)


@dataclass
class SplitConfig:
    """How ``task=split`` cuts a model up.

    Attributes:
        out: Folder for the parts and the manifest.
        parts: How many parts of nearly equal MACs; None means 2.
        at: Tensors to cut at, in place of ``parts``.
        every: Whether to cut wherever ``cuts`` allows it, in place of ``parts``.
        plan: A plan's file; its parts, in place of ``parts``.
        tolerance: Largest accepted difference between parts and whole, relative to the largest magnitude
            in the output; None means what rounding explains, measured on the model itself.
        seed: Seed of the inputs that both run on.
        log: Whether the parts are logged to MLflow.
    """

    out: str | None = None
    parts: int | None = None
    at: list[str] | None = None
    every: bool = False
    plan: str | None = None
    tolerance: float | None = None
    seed: int = 0
    log: bool = False

    def __post_init__(self) -> None:
        within("split.parts", self.parts, 1)
        within("split.tolerance", self.tolerance, 0)
        within("split.seed", self.seed, 0)
        given = [key for key in ("parts", "at", "every", "plan") if getattr(self, key) not in (None, False)]
        if len(given) > 1:
            raise ConfigError(
                f"split.{given[0]}={getattr(self, given[0])}: split.{given[1]} says where to cut already;"
                " drop one of them"
            )
