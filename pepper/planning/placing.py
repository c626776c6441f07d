"""From a fleet and the champion to the plan: predict, solve, and see how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import pepper
from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import Told, untold
from pepper.console.tables import figure
from pepper.graph.model import find_model
from pepper.graph.source import PACKAGE_SCHEME
from pepper.placement.baselines import compare
from pepper.placement.chain import Solution, pareto
from pepper.placement.decision import Decision, decide
from pepper.placement.evaluate import Evaluation, Stage, Stages, evaluate
from pepper.placement.objectives import Objective
from pepper.placement.plan import Origin, Plan, PlannedModel, PlanRules
from pepper.placement.problem import ChainProblem
from pepper.placement.sensitivity import FlipPoint, flip_points, scale_bandwidth
from pepper.planning.fleets import assemble
from pepper.planning.forecast import Forecast
from pepper.planning.latency_models import chosen_version, load_spread, load_version, open_registry
from pepper.planning.posing import chain_problem, named_by_key, objective_of

BANDWIDTHS = np.geomspace(0.05, 20.0, 31)
"""Over that of the fleet's links."""
LOADS = (1.0, 95.0)
"""Least and most percent of a device's load."""
MOST_S = 2.0
"""Most time of one solution along a bandwidth or a load."""


@dataclass(frozen=True)
class Placed:
    """A problem and its answer.

    Attributes:
        forecast: What was predicted.
        problem: The problem.
        objective: What was minimised.
        decision: What was chosen, and why.
        plan: The same as a plan to run.
        front: Every trade-off of latency and throughput, from the lowest latency on.
        baselines: What people do without a solver; None where that gives no plan.
        lineage: Which latency model's version predicted, and the training and data behind it.
    """

    forecast: Forecast
    problem: ChainProblem
    objective: Objective
    decision: Decision
    plan: Plan
    front: tuple[Solution, ...]
    baselines: Mapping[str, tuple[Stages, Evaluation] | None]
    lineage: Mapping[str, Any]


def find_plan(composition: Composition, told: Told = untold) -> Placed:
    """Predict the model's parts on the fleet and solve for the plan; says and logs nothing.

    Args:
        composition: The configuration, and what its fleet's options are composed from.
        told: Told of what `Forecast` tells, and of two steps more.

    Raises:
        ConfigError: The fleet, a limit or a pin is not what it must be.
        LatencyError: There is no champion.
        PlacementError: No plan keeps to the rules.
    """
    config = composition.config
    registry = open_registry(config)
    version = chosen_version(registry, config.latency.version)
    fleet, model = assemble(composition), find_model(config.model)
    forecast = Forecast(config, model, model.graph(), fleet, load_version(registry, version), told)
    problem = chain_problem(config, forecast)
    objective = objective_of(config.objective)
    options = config.place
    with named_by_key(config):
        decision = decide(
            problem,
            objective,
            load_spread(registry, version),
            options.confidence,
            options.samples,
            options.seed,
            options.time_limit_seconds,
        )
    told("solve", f"{figure(decision.best.value)} ms")
    front = pareto(problem, options.time_limit_seconds)
    told("trade off", f"{len(front)} plans")
    lineage = registry.lineage(version)
    return Placed(
        forecast,
        problem,
        objective,
        decision,
        plan=Plan.of(problem, decision.chosen, objective, origin_of(config, forecast, lineage)),
        front=front,
        baselines=compare(problem, objective),
        lineage=lineage,
    )


def origin_of(config: PepperConfig, forecast: Forecast, lineage: Mapping[str, Any]) -> Origin:
    """Say what the problem's numbers stand for."""
    model, path = forecast.model, config.model.path
    whole = path.startswith(PACKAGE_SCHEME) and config.model.part is None  # then it is found on any machine
    return Origin(
        model=PlannedModel(
            model.name,
            path if whole else str(model.file),
            model.content_hash,
            {name: tuple(shape) for name, shape in model.shapes.items()},
            {name: tuple(shape) for name, shape in model.inner_shapes.items()},
            model.given_values(),
        ),
        fleet=forecast.fleet,
        positions=forecast.borders.positions,
        tensors=forecast.borders.tensors,
        provenance={"pepper_version": pepper.__version__, **lineage},
        rules=PlanRules(
            {name: (start, end) for name, (start, end) in config.place.pinned.items()},
            tuple(config.place.excluded),
            config.place.max_parts,
        ),
    )


def flips(placed: Placed, told: Told) -> dict[str, tuple[FlipPoint, ...]]:
    """Return where another plan would be best: by ``bandwidth`` (as a factor), and by each device's load (%)."""
    find = partial(flip_points, placed.problem, objective=placed.objective, time_limit_s=MOST_S)
    found: dict[str, tuple[FlipPoint, ...]] = {}

    def keep(name: str, points: tuple[FlipPoint, ...]) -> None:
        found[name] = points
        told("look for flip points", f"{len(points)} by {name}")

    keep("bandwidth", find(scaling=scale_bandwidth, low=BANDWIDTHS[0], high=BANDWIDTHS[-1], tolerance=0.02))
    for name in placed.forecast.fleet.devices:
        scaling = placed.forecast.loaded(name)
        keep(f"load on {name}", find(scaling=scaling, low=LOADS[0], high=LOADS[1], tolerance=0.05))
    return found


def alone(problem: ChainProblem) -> dict[str, Evaluation]:
    """Return what is predicted of the whole model on each device, by its name."""
    whole = range(len(problem.devices))
    return {problem.devices[k].name: evaluate(problem, (Stage(0, problem.n_steps, k),)) for k in whole}
