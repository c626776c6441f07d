"""The latency model: gradient-boosted trees that correct the roofline estimate, in log space."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from pepper.errors import LatencyError
from pepper.graph import characteristics
from pepper.interrupts import signals_deferred
from pepper.latency.adaptation import DEVICE_COLUMNS, Adaptation
from pepper.latency.features import COLUMN, FEATURES, RISING, SETTING, Values, digest
from pepper.latency.intervals import Interval
from pepper.latency.model_schema import FORMAT, read_description, read_trees, tree_files
from pepper.latency.ranges import OutOfRange, Ranges
from pepper.latency.roofline import TERMS, Roofline

if TYPE_CHECKING:
    from xgboost import Booster

FILE = "latency_model.json"
LEAST_TO_TRAIN = 2  # rows

_DESCRIBING = (
    "arithmetic_intensity",
    "product_m",
    "product_k",
    "product_n",
    *(name for name in SETTING if name != "device_int8_gops"),  # the estimate's; a tree would see when it came about
    "load_slowdown",
)
_DESCRIBED = [COLUMN[name] for name in _DESCRIBING]
_NEW = (
    range(len(characteristics.FEATURES)),
    [column for name, column in COLUMN.items() if name.startswith("load_")],
    DEVICE_COLUMNS,
)
"""Columns of what can be outside: the part, the load, the device."""
_INPUTS = (*(f"share_{term}" for term in TERMS), "work_ms_an_operator", *_DESCRIBING)

# Not the absolute error: after each tree XGBoost sets its leaves to medians, and no constraint holds any more.
_OBJECTIVES: dict[str, dict[str, Any]] = {
    "huber": {"objective": "reg:pseudohubererror", "huber_slope": 0.1},
    "squared": {"objective": "reg:squarederror"},
}


@dataclass(frozen=True)
class Hyperparameters:
    """How the trees are grown; tuned by `tuning.tune`.

    Attributes:
        objective: Loss of the log latency: ``huber`` (about the median) or ``squared`` (the mean).
        base: What the trees correct: ``roofline``, or ``constant`` (the median latency).
        freedom: How far the roofline's factors of single kinds may lie from the common one.
        rounds: Trees of each of the ``bags``.
        learning_rate: Weight of each tree.
        max_depth: Depth of each tree.
        least_leaf: Least share of the rows in a leaf, so that no correction rests on one model.
        subsample: Share of the rows that each tree sees.
        colsample: Share of the features that each tree sees.
        reg_lambda: L2 penalty of leaves.
        bags: Ensembles whose mean is the prediction, each with a seed of its own.
        seed: Seed of all randomness.
    """

    objective: str = "huber"
    base: str = "roofline"
    freedom: float = 10.0
    rounds: int = 300
    learning_rate: float = 0.03
    max_depth: int = 4
    least_leaf: float = 0.04
    subsample: float = 0.5
    colsample: float = 0.3
    reg_lambda: float = 10.0
    bags: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Prediction:
    """Latencies of n rows.

    Attributes:
        p50_ms: Median, shape (n,).
        p95_ms: 95th percentile of single inferences; NaN if the model was trained without.
        low_ms: Lower end of the interval that the true median lies in, for a model never seen, in 90 % of cases; the
            more is new about a row, the wider.
        high_ms: Its upper end.
        outside: Whether the row lies outside of what was trained on.
    """

    p50_ms: Values
    p95_ms: Values
    low_ms: Values
    high_ms: Values
    outside: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LatencyModel:
    """Predicts the latency of parts; made by `fit`, kept by `save`.

    Attributes:
        hyperparameters: How it was trained.
        roofline: The estimate that the trees correct; None where they correct a constant.
        constant_ms: That constant, the median latency trained on.
        medians: Boosted trees for the median.
        tails: Boosted trees for the log ratio of the 95th percentile to the median; may be empty.
        ranges: The values trained on.
        most_shares: The most that each term of the roofline makes of a row trained on, shape (len(TERMS),).
        interval: Where the true median of unseen models lies.
        adaptations: Corrections for devices that were measured a little, after training.
    """

    hyperparameters: Hyperparameters
    roofline: Roofline | None
    constant_ms: float
    medians: "Sequence[Booster]"
    tails: "Sequence[Booster]"
    ranges: Ranges
    most_shares: Values
    interval: Interval = field(default_factory=Interval)
    adaptations: Sequence[Adaptation] = ()

    @classmethod
    def fit(
        cls,
        features: Values,
        p50_ms: Values,
        p95_ms: Values | None = None,
        hyperparameters: Hyperparameters | None = None,
        roofline: Roofline | None = None,
    ) -> Self:
        """Train on measured latencies.

        Args:
            features: Rows of `features.rows`, shape (n, len(FEATURES)).
            p50_ms: Medians, shape (n,).
            p95_ms: 95th percentiles, NaN where too few samples were taken; None leaves them out.
            hyperparameters: How the trees are grown.
            roofline: A roofline that was fitted to these rows before; None fits it.

        Raises:
            LatencyError: Fewer than two rows, or a latency that is no positive number.
        """
        chosen = hyperparameters or Hyperparameters()
        if len(p50_ms) < LEAST_TO_TRAIN:
            raise LatencyError(f"{len(p50_ms)} rows to train on; measure at least {LEAST_TO_TRAIN}")
        if not np.all(np.isfinite(p50_ms) & (p50_ms > 0)):
            raise LatencyError("latency_p50_ms: must be a number above 0 in every row; drop the others")
        constant = float(np.median(p50_ms))
        if chosen.base == "constant":
            roofline = None
        elif roofline is None:
            roofline = Roofline.fit(features, p50_ms, chosen.freedom)
        base = roofline.latency_ms(features) if roofline else np.full(len(p50_ms), constant)
        tails: Sequence[Booster] = ()
        if p95_ms is not None and np.isfinite(p95_ms).any():
            known = np.isfinite(p95_ms)
            spread = np.log(p95_ms[known] / p50_ms[known])
            tails = _boost(_inputs(features[known], roofline), spread, np.zeros(known.sum()), chosen)
        return cls(
            hyperparameters=chosen,
            roofline=roofline,
            constant_ms=constant,
            medians=_boost(_inputs(features, roofline), np.log(p50_ms), np.log(base), chosen),
            tails=tails,
            ranges=Ranges.of(features),
            most_shares=roofline.shares(features).max(axis=0) if roofline else np.ones(len(TERMS)),
        )

    def predict(self, features: Values) -> Prediction:
        """Predict the latency of each row; a few microseconds a row.

        Raises:
            LatencyError: The rows have other columns than the model was trained on.
        """
        median = self.p50_ms(features)
        tail = np.full(len(features), np.nan)
        if self.tails:
            tail = median * np.exp(np.maximum(_mean(self.tails, _inputs(features, self.roofline), None), 0))
        low, high = self.interval.ratios(self.novelty(features))
        return Prediction(median, tail, median * low, median * high, np.any(self.outside(features), axis=1))

    def p50_ms(self, features: Values) -> Values:
        """Predict the median latency of each row, shape (n,)."""
        trained_ms = self.trained_ms(features)
        correction = np.zeros(len(features))
        for adaptation in self.adaptations:
            there = adaptation.of_device(features)
            correction[there] = adaptation.correction(features[there], self.roofline)
        return np.asarray(trained_ms * np.exp(correction))

    def trained_ms(self, features: Values) -> Values:
        """Predict the same as training left it, without what was measured on a device afterwards, shape (n,)."""
        if features.ndim != 2 or features.shape[1] != len(FEATURES):
            raise LatencyError(f"rows of shape {features.shape}: each must have {len(FEATURES)} features")
        base = self.roofline.latency_ms(features) if self.roofline else np.full(len(features), self.constant_ms)
        return np.asarray(np.exp(_mean(self.medians, _inputs(features, self.roofline), np.log(base))))

    def mean_ms(self, features: Values) -> Values:
        """Predict the mean latency of each row, shape (n,): unlike medians, means of parts add up to the whole's."""
        median_ms = self.p50_ms(features)
        if self.roofline is None:
            return median_ms
        return np.asarray(median_ms * self.roofline.mean_ms(features) / self.roofline.latency_ms(features))

    def outside(self, features: Values) -> npt.NDArray[np.bool_]:
        """Tell which values lie outside of what was trained or adapted on, shape of the rows."""
        outside = self.ranges.outside(features)
        for adaptation in self.adaptations:
            outside[:, DEVICE_COLUMNS] &= ~adaptation.of_device(features)[:, None]
        return outside

    def novelty(self, features: Values) -> Values:
        """Tell how new each row is, by `NOVELTIES`, from 0 to 1, shape (n, len(NOVELTIES))."""
        outside = self.outside(features)
        kinds = np.zeros(len(features))
        if self.roofline is not None:
            kinds = np.maximum(self.roofline.shares(features) - self.most_shares, 0).sum(axis=1)
        return np.column_stack((kinds, *(outside[:, columns].any(axis=1) for columns in _NEW)))

    def out_of_range(self, features: Values) -> list[OutOfRange]:
        """Name every value that lies outside, row by row, the farthest first."""
        return self.ranges.named(features, self.outside(features))

    def adapted(self, adaptation: Adaptation) -> Self:
        """Return the model with a device's adaptation, in the place of what it had of that device."""
        return replace(self, adaptations=(*self.without(adaptation).adaptations, adaptation))

    def without(self, adaptation: Adaptation) -> Self:
        """Return the model as it is for all devices but the adaptation's, and as it was trained for that one."""
        others = [known for known in self.adaptations if not known.of_same(adaptation)]
        return replace(self, adaptations=others)

    @cached_property
    def importance(self) -> dict[str, float]:
        """Share of the loss that splits on each feature take away, greatest first."""
        names = _INPUTS if self.roofline else FEATURES
        gains = dict.fromkeys(names, 0.0)
        for booster in self.medians:
            for name, gain in booster.get_score(importance_type="total_gain").items():
                gains[names[int(name[1:])]] += float(np.sum(gain))
        total = sum(gains.values()) or 1.0
        return {name: gain / total for name, gain in sorted(gains.items(), key=lambda item: -item[1]) if gain > 0}

    def save(self, folder: Path) -> None:
        """Write the trees in XGBoost's own binary JSON, the rest as JSON, with the hashes of the trees' files."""
        folder.mkdir(parents=True, exist_ok=True)
        names = tree_files(len(self.medians), len(self.tails))
        hashes = {}
        for name, booster in zip(names, (*self.medians, *self.tails), strict=True):
            trees = bytes(booster.save_raw("ubj"))
            hashes[name] = hashlib.sha256(trees).hexdigest()
            (folder / name).write_bytes(trees)
        content = {
            "format": FORMAT,
            "features": FEATURES,
            "features_digest": digest(),
            "hyperparameters": asdict(self.hyperparameters),
            "roofline": self.roofline.to_json() if self.roofline else None,
            "constant_ms": self.constant_ms,
            "tails": len(self.tails),
            "lows": _known(self.ranges.lows),
            "highs": _known(self.ranges.highs),
            "most_shares": self.most_shares.tolist(),
            "interval": _known((self.interval.low, self.interval.high)),
            "wider": dict(self.interval.wider),
            "adaptations": [adaptation.to_json() for adaptation in self.adaptations],
            "files": hashes,
        }
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            LatencyError: The folder holds no latency model, a damaged one, or one of another feature list.
        """
        content = read_description(folder / FILE)
        chosen = Hyperparameters(**content["hyperparameters"])
        roofline = content["roofline"]
        hashes = content.get("files") or {}
        width = len(_INPUTS) if roofline else len(FEATURES)
        names = tree_files(chosen.bags, content["tails"])
        boosters = [_booster(folder / name, hashes.get(name), width) for name in names]
        return cls(
            hyperparameters=chosen,
            roofline=Roofline.from_json(roofline) if roofline else None,
            constant_ms=content["constant_ms"],
            medians=boosters[: chosen.bags],
            tails=boosters[chosen.bags :],
            ranges=Ranges(np.array(content["lows"], float), np.array(content["highs"], float)),
            most_shares=np.array(content.get("most_shares") or [1.0] * len(TERMS), float),
            interval=_interval(content),
            adaptations=[Adaptation.from_json(adaptation) for adaptation in content["adaptations"]],
        )


def _booster(file: Path, sha256: str | None, width: int) -> "Booster":
    import xgboost

    trees = read_trees(file, sha256)
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(trees))
        if booster.num_features() != width:
            raise ValueError(f"trees of {booster.num_features()} features, not {width}")
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise LatencyError(f"{file}: missing or corrupt; train again with task=train") from error
    return booster


def _inputs(features: Values, roofline: Roofline | None) -> Values:
    """What the trees see, by `_INPUTS`.

    A correction of an estimate depends on what makes the estimate up, not on how much there is of it: models
    that differ in size share it. Without an estimate, the trees see the features as they are.
    """
    if roofline is None:
        return features
    an_operator_ms = roofline.work_ms(features) / np.maximum(features[:, COLUMN["operators"]], 1)
    return np.column_stack((roofline.shares(features), an_operator_ms, features[:, _DESCRIBED]))


def _boost(features: Values, target: Values, base: Values, chosen: Hyperparameters) -> "list[Booster]":
    """Grow the bags of trees that add up, from the base, to the target."""
    import xgboost

    with signals_deferred():  # it calls back while it reads
        data = xgboost.QuantileDMatrix(features, target - base, max_bin=64)
    names = FEATURES if features.shape[1] == len(FEATURES) else _INPUTS
    constraints = np.isin(names, RISING).astype(int)
    boosters = []
    for bag in range(chosen.bags):
        settings = {
            **_OBJECTIVES[chosen.objective],
            "base_score": float(np.median(target - base)),
            "learning_rate": chosen.learning_rate,
            "max_depth": chosen.max_depth,
            "max_bin": 64,
            "min_child_weight": chosen.least_leaf * len(target),
            "subsample": chosen.subsample,
            "colsample_bytree": chosen.colsample,
            "reg_lambda": chosen.reg_lambda,
            "monotone_constraints": tuple(constraints.tolist()),
            "seed": chosen.seed + 7919 * bag,
            "nthread": 1,  # for some thousand rows, threads wait for each other longer than they work
        }
        boosters.append(xgboost.train(settings, data, chosen.rounds))
    return boosters


def _mean(boosters: "Sequence[Booster]", features: Values, base: Values | None) -> Values:
    """Mean of the bags' predictions, on top of the base."""
    correction = np.mean([booster.inplace_predict(features) for booster in boosters], axis=0)
    return np.asarray(correction if base is None else base + correction, float)


def _known(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN: null stands for it."""
    return [None if np.isnan(value) else float(value) for value in values]


def _interval(content: dict[str, Any]) -> Interval:
    low, high = np.array(content["interval"], float).tolist()
    wider = content.get("wider")  # versions saved before it was known have none
    return Interval(low, high, wider) if wider else Interval(low, high)
