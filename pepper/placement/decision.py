"""Whether a plan's win over not splitting is more than the noise of the predictions behind it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np

from pepper.placement.baselines import single_device
from pepper.placement.chain import Solution, solve
from pepper.placement.evaluate import Stage, Stages, evaluate, instances
from pepper.placement.objectives import Objective
from pepper.placement.problem import ChainProblem, Floats

_LEAST_MS = 1e-9
NOT_SPLIT = "best single device"
"""The solver of a solution that was chosen because splitting wins by no more than noise."""


@dataclass(frozen=True)
class Spread:
    """How far true times lie from predicted ones, as standard deviations of the logarithm of their ratio.

    The three add up, each error being drawn independently of the others.

    Attributes:
        model: Of the error that all parts of one model share, on every device.
        device: Of the error that its parts on one device share besides.
        part: Of each part's own error, which two parts on one device share as far as they are the same work.
    """

    model: float = 0.0
    device: float = 0.0
    part: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What is chosen, and why.

    Attributes:
        chosen: The plan to run: `best`, or the best one that does not split.
        best: The plan of the best predicted value.
        single: The best plan that does not split; None where none keeps to the rules.
        probability: That `best` is truly better than `single`; None where there is nothing to compare.
        low: The 5th percentile of the chosen plan's value (ms) under the predictions' error.
        high: The 95th.
    """

    chosen: Solution
    best: Solution
    single: Stages | None
    probability: float | None
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether splitting is predicted to be better, but not surely enough."""
        return self.chosen is not self.best

    def above(self, bound: float) -> "Decision":
        """Return the same where no plan is below another bound, which may be lower."""
        best = replace(self.best, bound=min(bound, self.best.bound))
        return replace(self, best=best, chosen=replace(self.chosen, bound=best.bound) if self.within_noise else best)


def decide(
    problem: ChainProblem,
    objective: Objective,
    spread: Spread,
    confidence: float = 0.6,
    samples: int = 2000,
    seed: int = 0,
    time_limit_s: float = 60.0,
) -> Decision:
    """Solve, and take a plan that splits only where it is better than not splitting with some confidence.

    Both plans are scored on the same samples of the predictions' error: what one model's parts share, moves both.

    Args:
        problem: The problem, its times as predicted.
        objective: What is minimised.
        spread: How far the predictions are off.
        confidence: Least probability of being better.
        samples: Number of samples.
        seed: Their seed.
        time_limit_s: When to stop with the best plan found.

    Raises:
        PlacementError: No plan keeps to the rules.
    """
    best = solve(problem, objective, time_limit_s)
    sample = _sampler(problem, objective, spread, samples, seed)
    single = single_device(problem, objective)
    if single is not None and evaluate(problem, single).violations:
        single = None
    chosen, probability = best, None
    if single is not None and len(best.stages) > 1:
        probability = float(np.mean(sample(best.stages) < sample(single)))
        if probability < confidence:
            chosen = Solution(single, objective.value(evaluate(problem, single)), best.bound, NOT_SPLIT)
    low, high = np.quantile(sample(chosen.stages), [0.05, 0.95]).tolist()
    return Decision(chosen, best, single, probability, low, high)


def error_factors(problem: ChainProblem, spread: Spread, samples: int, seed: int) -> Callable[[Stage], Floats]:
    """Return what gives samples of a part's true time over its predicted one, (samples,), always the same errors."""

    def draw(deviation: float, *key: int) -> Floats:
        return np.random.default_rng([seed, *key]).normal(0.0, deviation, samples)

    @cache
    def steps(device: int) -> tuple[Floats, Floats]:
        """Return the weight of each step on the device, shape (n,), and its share in errors, shape (n, samples)."""
        times = [problem.part_time_ms(step, step + 1, device) for step in range(problem.n_steps)]
        weights = np.nan_to_num(np.maximum(times, _LEAST_MS), posinf=_LEAST_MS)
        errors = np.random.default_rng([seed, 2, device]).normal(size=(problem.n_steps, samples))
        return weights, np.sqrt(weights)[:, None] * errors

    def own(stage: Stage) -> Floats:
        """Draw a part's error: of unit deviation, and correlated with that of a part within it as the root of
        their ratio, as sums of independent errors of the steps are."""
        weights, errors = (of[stage.start : stage.stop] for of in steps(stage.device))
        return np.asarray(errors.sum(axis=0) / np.sqrt(weights.sum()))

    def factor(stage: Stage) -> Floats:
        shared = draw(spread.model, 0) + draw(spread.device, 1, stage.device)
        return np.asarray(np.exp(shared + spread.part * own(stage)))

    return factor


def _sampler(
    problem: ChainProblem, objective: Objective, spread: Spread, samples: int, seed: int
) -> Callable[[Stages], Floats]:
    """Return what gives samples of a plan's value, shape (samples,), always under the same errors."""
    factor = error_factors(problem, spread, samples, seed)

    def values(stages: Stages) -> Floats:
        cost = evaluate(problem, stages)
        times = [ms * factor(stage) for ms, stage in zip(cost.stage_ms, stages, strict=True)]
        if not objective.bottleneck:
            fixed_ms = sum(cost.pickup_ms) + sum(hop.time_ms for hop in cost.hops if hop is not None)
            latency_ms = np.sum(times, axis=0) + fixed_ms
            value = np.asarray(objective.per_ms * latency_ms + objective.per_part * len(stages))
            if objective.per_joule:
                works = [(problem.devices[s.device], s, time_ms) for s, time_ms in zip(stages, times, strict=True)]
                busy_j = [d.power_w / 1000 * (ms + problem.handling_ms[s.start, s.device]) for d, s, ms in works]
                value = value + objective.per_joule * (np.sum(busy_j, axis=0) + cost.links_j)
            return value
        units = list(zip((stage.device for stage in stages), instances(problem, stages), strict=True))
        load: dict[object, Floats] = defaultdict(lambda: np.zeros(samples))
        for unit, time_ms, stage in zip(units, times, stages, strict=True):
            load[unit] += time_ms + problem.handling_ms[stage.start, stage.device]
        for hop, ends in zip(cost.hops, pairwise(["source", *units, "sink"]), strict=True):
            load[ends] += hop.occupied_ms if hop is not None else 0.0
        return np.asarray(np.max(list(load.values()), axis=0))

    return values
