"""A device that is not at hand: how long models take there, from a few latencies and from how other devices behaved.

Nothing is asked about the device but the latencies of about ten models. Its log latency, as a function of the model, is
taken for a draw from a Gaussian process (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter
2) that is made of devices known and of devices that could be:

- its level is not known at all;
- it strays from the mean of the known devices as they stray from it (their sample covariance);
- it may spend its time in any shares on the terms of the roofline, as no known device does;
- it has ways of its own, smooth in the models' characteristics.

How much of the last three there is, and of noise, is averaged over, weighted by evidence (ibid., section 5.2). So is
what runs there, where a model can be described in several ways, such as with operators that no output needs and
without. Single latencies may be far off: errors have a Student's t distribution (by reweighting, as in Lange, Little
and Taylor, JASA 1989).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from pepper.errors import LatencyError
from pepper.graph import characteristics
from pepper.latency.features import Values
from pepper.latency.roofline import TERMS, Roofline

Behaviour = Callable[[Values], Values]
"""How long rows of features, shape (n, len(FEATURES)), take on a known device: milliseconds, shape (n,)."""

LEAST = 3
"""Fewest latencies to learn a device from."""

_IMAGINED = 200  # devices that could be
_CONCENTRATION = 0.3  # of their Dirichlet distribution: most are ruled by a few terms
_LEVEL, _MEAN = 2.0, 0.1  # standard deviations, log: of the level, and of the known devices' mean times a number
_KINSHIP = (0.5, 1.0, 2.0)  # how far it strays from the mean, in what the known devices do
_IMAGINATION = (0.0, 0.1, 0.3, 1.0)
_OWN_WAYS = (0.02, 0.1)
_NOISE = (0.02, 0.05, 0.1, 0.3)
_SMOOTH = 2.0  # length, in mean standard deviations of a characteristic
_FREEDOM = 4.0  # degrees of freedom of Student's t
_ITERATIONS = 15
_NEGLIGIBLE = 1e-3  # an explanation no more probable is left out
_NINETY = 1.645  # standard deviations, two-sided
_CALIBRATED = Roofline(np.ones(len(TERMS)))


@dataclass(frozen=True)
class Kin:
    """What known devices, and those that could be, say of any device.

    Attributes:
        behaviours: The known devices.
        pool: Models that latencies are compared over, rows of features, shape (p, len(FEATURES)).
    """

    behaviours: Sequence[Behaviour]
    pool: Values

    def __post_init__(self) -> None:
        if not self.behaviours:
            raise LatencyError("no known device to learn another one from; measure one first")

    def view(self, features: Values) -> "View":
        """See rows of features, shape (n, len(FEATURES)), as this prior does."""
        known = self._logs(features) - self._levels
        mean = known.mean(axis=1)
        imagined = self._imagined(features) - self._imagined_levels
        centre, spread = self._scale
        varied = spread > 1e-6
        place = (_log_characteristics(features)[:, varied] - centre[varied]) / spread[varied]
        return View(
            mean=mean,
            known=(known - mean[:, None]) / np.sqrt(known.shape[1]),
            imagined=(imagined - mean[:, None]) / np.sqrt(_IMAGINED),
            place=place / np.sqrt(max(place.shape[1], 1)),
        )

    def _logs(self, features: Values) -> Values:
        return np.log(np.stack([behaviour(features) for behaviour in self.behaviours], axis=1))

    def _imagined(self, features: Values) -> Values:
        """Log latencies on devices that could be, shape (n, _IMAGINED), at a level of their own."""
        kinds = self._term_ms > 0
        shares = np.random.default_rng(0).dirichlet(np.full(kinds.sum(), _CONCENTRATION), _IMAGINED)
        relative = _CALIBRATED.terms_ms(features)[:, kinds] / self._term_ms[kinds]
        return np.asarray(np.log(np.maximum(relative @ shares.T, 1e-3)))

    @cached_property
    def _levels(self) -> Values:
        return np.asarray(self._logs(self.pool).mean(axis=0))

    @cached_property
    def _term_ms(self) -> Values:
        return np.asarray(_CALIBRATED.terms_ms(self.pool).mean(axis=0))

    @cached_property
    def _imagined_levels(self) -> Values:
        return np.asarray(self._imagined(self.pool).mean(axis=0))

    @cached_property
    def _scale(self) -> tuple[Values, Values]:
        place = _log_characteristics(self.pool)
        return place.mean(axis=0), place.std(axis=0)


@dataclass(frozen=True)
class View:
    """Models as a device's prior sees them; all have the length n.

    Attributes:
        mean: The known devices' mean log latency, each less its mean over the pool.
        known: How far each known device strays from it, over the root of their number, shape (n, devices).
        imagined: The same of each device that could be, shape (n, _IMAGINED).
        place: Characteristics on a common scale, shape (n, k).
    """

    mean: Values
    known: Values
    imagined: Values
    place: Values

    def covariance(self, others: "View", kinship: float, imagination: float, own_ways: float) -> Values:
        """Covariance of the log latencies of these rows with those of m others on one device, shape (n, m)."""
        squares = ((side.place**2).sum(axis=1) for side in (self, others))
        distance = np.add.outer(*squares) - 2 * self.place @ others.place.T
        return np.asarray(
            _LEVEL**2
            + _MEAN**2 * np.outer(self.mean, others.mean)
            + kinship**2 * self.known @ others.known.T
            + imagination**2 * self.imagined @ others.imagined.T
            + own_ways**2 * np.exp(-np.maximum(distance, 0) / (2 * _SMOOTH**2))
        )

    def variance(self, kinship: float, imagination: float, own_ways: float) -> Values:
        """The diagonal of `covariance` with themselves, shape (n,)."""
        strays = kinship**2 * (self.known**2).sum(axis=1) + imagination**2 * (self.imagined**2).sum(axis=1)
        return np.asarray(_LEVEL**2 + (_MEAN * self.mean) ** 2 + strays + own_ways**2)


@dataclass(frozen=True)
class _Explanation:
    """One way to explain the latencies.

    Attributes:
        way: Which of the descriptions holds.
        how: How far the device may stray as the known ones do, be one that only could be, and go ways of its own.
        noise: Scale of the errors, log.
        coefficients: What each latency adds, shape (m,).
        inverse: Of the covariance of the latencies, noise included, shape (m, m).
        evidence: Log of how probable the latencies are, up to a constant.
    """

    way: int
    how: tuple[float, float, float]
    noise: float
    coefficients: Values
    inverse: Values
    evidence: float


@dataclass(frozen=True)
class UnseenPrediction:
    """Latencies of n rows on a device that was measured a little.

    Attributes:
        p50_ms: Median, shape (n,).
        low_ms: Lower end of the interval that 90 % of measured latencies are expected in.
        high_ms: Its upper end.
    """

    p50_ms: Values
    low_ms: Values
    high_ms: Values


@dataclass(frozen=True)
class UnseenDevice:
    """A device that was learned from a few latencies; made by `fit`.

    Attributes:
        kin: What is known of devices, for each way to describe a model.
        measured: The measured models as it sees them, for each way.
        level: Median log latency.
        explanations: See `_Explanation`.
    """

    kin: Sequence[Kin]
    measured: Sequence[View]
    level: float
    explanations: Sequence[_Explanation]

    @classmethod
    def fit(cls, kin: Sequence[Kin], features: Sequence[Values], latency_ms: Values) -> Self:
        """Learn a device.

        Args:
            kin: What is known of devices, for each way to describe a model.
            features: The measured models, for each way rows of `features.rows`, shape (m, len(FEATURES)).
            latency_ms: Their latencies, shape (m,).

        Raises:
            LatencyError: Fewer than `LEAST` latencies, or one that is no positive number.
        """
        if len(latency_ms) < LEAST:
            raise LatencyError(f"{len(latency_ms)} latencies to learn a device from; at least {LEAST} are needed")
        if not np.all(np.isfinite(latency_ms) & (latency_ms > 0)):
            raise LatencyError("latency: must be a number above 0 in every row; drop the others")
        level = float(np.median(np.log(latency_ms)))
        explanations = []
        measured = [known.view(rows) for known, rows in zip(kin, features, strict=True)]
        for way, view in enumerate(measured):
            rest = np.log(latency_ms) - level - view.mean
            for how in itertools.product(_KINSHIP, _IMAGINATION, _OWN_WAYS):
                covariance = view.covariance(view, *how)
                for noise in _NOISE:
                    found = _posterior(covariance, rest, noise)
                    explanations.append(_Explanation(way, how, noise, *found))
        return cls(kin, measured, level, explanations)

    @cached_property
    def weights(self) -> Values:
        """How probable each explanation is, shape (len(explanations),)."""
        evidence = np.array([explanation.evidence for explanation in self.explanations])
        weights = np.exp(evidence - evidence.max())
        return np.asarray(weights / weights.sum())

    def ways(self) -> Values:
        """How probable each way to describe a model is, shape (ways,)."""
        way = np.array([explanation.way for explanation in self.explanations])
        return np.asarray(np.bincount(way, self.weights, len(self.kin)), float)

    def predict(self, features: Sequence[Values]) -> UnseenPrediction:
        """Predict how long models take, for each way to describe them rows of shape (n, len(FEATURES))."""
        views = [kin.view(rows) for kin, rows in zip(self.kin, features, strict=True)]
        means, variances, weights = [], [], []
        for weight, explained in zip(self.weights, self.explanations, strict=True):
            if weight < _NEGLIGIBLE:
                continue
            view, measured = views[explained.way], self.measured[explained.way]
            shared = view.covariance(measured, *explained.how)
            told = np.einsum("ij,jk,ik->i", shared, explained.inverse, shared)
            means.append(self.level + view.mean + shared @ explained.coefficients)
            noise = explained.noise**2 * _FREEDOM / (_FREEDOM - 2)
            variances.append(np.maximum(view.variance(*explained.how) - told, 0) + noise)
            weights.append(weight)
        mean = np.average(means, axis=0, weights=weights)
        variance = np.average(np.square(means) + variances, axis=0, weights=weights) - mean**2
        wide = _NINETY * np.sqrt(np.maximum(variance, 0))
        return UnseenPrediction(*(np.asarray(np.exp(log)) for log in (mean, mean - wide, mean + wide)))


def _posterior(covariance: Values, rest: Values, noise: float) -> tuple[Values, Values, float]:
    """Coefficients, inverse covariance and log evidence of latencies, the outliers among them weighted down."""
    weight = np.ones(len(rest))
    for _ in range(_ITERATIONS):
        whole = covariance + np.diag(noise**2 / weight)
        coefficients = np.linalg.solve(whole, rest)
        error = rest - covariance @ coefficients
        weight = (_FREEDOM + 1) / (_FREEDOM + (error / noise) ** 2)
    _, log_size = np.linalg.slogdet(whole)
    return (
        np.asarray(coefficients, float),
        np.asarray(np.linalg.inv(whole), float),
        float(-(rest @ coefficients + log_size) / 2),
    )


def _log_characteristics(features: Values) -> Values:
    return np.log1p(features[:, : len(characteristics.FEATURES)])
