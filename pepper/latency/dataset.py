"""Measured rows: what latency models are trained and scored on."""

import hashlib
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from pepper.errors import LatencyError
from pepper.latency.features import FEATURES, Values
from pepper.names import Whole, distinct_names, only_named

Names = npt.NDArray[np.str_]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Measurements, each a part in a setting; all arrays have the length n.

    Attributes:
        features: See `features.FEATURES`, shape (n, len(FEATURES)).
        p50_ms: Measured median latency.
        p95_ms: 95th percentile of single inferences; NaN where too few samples were taken.
        model: Name of the model that was measured, or that it is a part of.
        part: What was measured of it; equal for equal ONNX files.
        device: Name of the device.
        load: Name of the load.
        group: What tells the model from others, whatever they are called: the beginning of its file's hash, or
            what `only_named` says where an older run or dataset does not know it.
    """

    features: Values
    p50_ms: Values
    p95_ms: Values
    model: Names
    part: Names
    device: Names
    load: Names
    group: Names

    def __post_init__(self) -> None:
        if self.features.shape != (len(self), len(FEATURES)):
            raise LatencyError(f"rows of shape {self.features.shape}: each must have {len(FEATURES)} features")

    def __len__(self) -> int:
        return len(self.p50_ms)

    def take(self, chosen: "Mask | npt.NDArray[np.int64]") -> Self:
        """Return some of the rows."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def join(cls, *parts: Self) -> Self:
        """Return the rows of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def without(self, others: Self) -> Self:
        """Return the rows that are not among others: those that differ in a feature, the median, the part or a name."""
        known = set(others._keys())
        return self.take(np.array([key not in known for key in self._keys()], bool))

    def groups(self, by: str) -> Names:
        """Return each row's group by ``model``, ``device`` or ``load``, shape (n,).

        Models of one name are told apart by the beginning of their hashes.
        """
        if by != "model":
            return np.asarray(getattr(self, by))
        pairs, row_of = np.unique(np.stack((self.model, self.group)), axis=1, return_inverse=True)
        models = [Whole(name, "", sha256) for name, sha256 in pairs.T.tolist()]
        return np.array(distinct_names(models), str)[row_of]

    def holds(self, models: Names, groups: Names) -> Mask:
        """Return which of some models have rows here: known by their hash, or by name where only that was kept here.

        Args:
            models: Their names, shape (m,).
            groups: What `group` says of them, shape (m,).
        """
        return np.isin(groups, self.group) | np.isin([only_named(name) for name in models], self.group)

    def _keys(self) -> list[tuple[bytes, float, str, str, str]]:
        names = (self.part.tolist(), self.device.tolist(), self.load.tolist())
        rows = [row.tobytes() for row in self.features]
        return list(zip(rows, self.p50_ms.tolist(), *names, strict=True))

    @property
    def digest(self) -> str:
        """A short hash of all that is in the rows, whatever their order."""
        lines = sorted(
            repr((*row.tolist(), p50, *names))
            for row, p50, *names in zip(
                self.features, self.p50_ms.tolist(), self.group, self.part, self.device, self.load, strict=True
            )
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def held_out(rows: Rows, fraction: float = 0.2) -> Mask:
    """Choose whole models for the test, each by a hash of its own name: no model that joins moves another.

    Only where chance would leave too little to test on (one model, or two of six and more) or to learn from
    (two models) do the others count: those with the least hashes are then held out, the greatest kept.

    Args:
        rows: All that was measured.
        fraction: Share of the models that is held out, in the mean.

    Returns:
        Which rows are held out, shape (n,).

    Raises:
        LatencyError: The rows hold fewer than three models.
    """
    names = dict(zip(rows.group.tolist(), rows.model.tolist(), strict=True))
    if len(names) < 3:
        called = np.unique(rows.groups("model")).tolist()
        raise LatencyError(
            f"{len(names)} model{'s' * (len(names) != 1)} measured ({', '.join(called)}); at least 3 are needed to hold"
            " some out: measure more, such as task=profile +sweep=parts"
        )
    places = {
        group: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 for group, name in names.items()
    }
    ranked = sorted(names, key=lambda group: (places[group], group))
    below = sum(place < fraction for place in places.values())
    least = 2 if len(ranked) >= 6 else 1
    return np.isin(rows.group, ranked[: min(max(least, below), len(ranked) - 2)])


def grouped_folds(groups: Names, folds: int, seed: int = 0) -> list[tuple[Mask, Mask]]:
    """Split rows so that no group lies on both sides, folds about equally large.

    Args:
        groups: The group of each row, shape (n,).
        folds: How many; fewer if there are fewer groups.
        seed: Seed of the order in which equally large groups are dealt.

    Returns:
        For each fold which rows train and which test.
    """
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    count = min(folds, len(names))
    filled = np.zeros(count)
    fold_of = {}
    for index in order.tolist():
        fold = int(np.argmin(filled))
        filled[fold] += sizes[index]
        fold_of[names[index]] = fold
    member = np.array([fold_of[name] for name in groups])
    return [(member != fold, member == fold) for fold in range(count)]
