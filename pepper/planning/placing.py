"""From a fleet and the champion to the plan: predict, solve, and see how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.config.placing import PARETO_ENERGY, PlanGraph, Precision
from pepper.console.progress import Told, untold
from pepper.console.tables import figure
from pepper.errors import ConfigError, PlacementError
from pepper.graph.model import find_model
from pepper.placement.baselines import compare
from pepper.placement.chain import Solution, pareto
from pepper.placement.decision import Decision, Spread, decide
from pepper.placement.evaluate import Evaluation, Stage, Stages, evaluate
from pepper.placement.front import chain_front, unbeaten
from pepper.placement.objectives import Objective
from pepper.placement.plan import Origin, Plan
from pepper.placement.problem import ChainProblem, Limits
from pepper.placement.queueing import UnderLoad, Visit, branched_works, chain_works, under_load
from pepper.placement.sensitivity import FlipPoint, flip_points, scale_bandwidth
from pepper.placement.shortage import LimitError
from pepper.planning.branching import Branched, find_branched
from pepper.planning.drift import disagreements, measured_names
from pepper.planning.fleets import assemble, check_readable
from pepper.planning.forecast import Forecast
from pepper.planning.forms import Forms
from pepper.planning.keeping import Keeper
from pepper.planning.latency_models import chosen_version, load_spread, load_version, open_registry
from pepper.planning.posing import chain_problem, check_had, named_by_key, objective_of, origin_of
from pepper.planning.shipped import called, caution
from pepper.units import per_second

BANDWIDTHS = np.geomspace(0.05, 20.0, 31)
"""Over that of the fleet's links."""
LOADS = (1.0, 95.0)
"""Least and most percent of a device's load."""
UTILISATIONS = (0.5, 0.8, 0.95)
"""Of what a plan can give, at which its latencies are foretold."""
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
        origin: What the problem's numbers stand for.
        front: Every trade-off of latency and throughput, and of energy where that was asked for, from the lowest
            latency on.
        baselines: What people do without a solver; None where that gives no plan.
        lineage: Which latency model's version predicted, and the training and data behind it.
        branched: What came of parts that run side by side, where that was asked for.
        refused: Why no chain keeps to the limits, where only parts that run side by side do; the decision is then the
            best one without limits.
        counts_energy: Whether plans are judged by their energy.
        by_energy: Whether the front trades off energy, too.
        front_complete: Whether that front has all plans: the time was not short.
        cautions: What to know of the latency model, one line each.
        disagreements: On which devices newer measurements disagree with the latency model, one line each.
        forms: The model in the precisions that parts may run in, where that is not its own alone.
        narrowed: Whether a plan broke the limit on the error, so that precisions were denied to some parts.
    """

    forecast: Forecast
    problem: ChainProblem
    objective: Objective
    decision: Decision
    plan: Plan
    origin: Origin
    front: tuple[Solution, ...]
    baselines: Mapping[str, tuple[Stages, Evaluation] | None]
    lineage: Mapping[str, Any]
    branched: Branched | None = None
    refused: PlacementError | None = None
    counts_energy: bool = False
    by_energy: bool = False
    front_complete: bool = True
    cautions: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    forms: Forms | None = None
    narrowed: bool = False

    @property
    def predicted_by(self) -> str:
        """What the latency model is called."""
        return called(self.lineage["latency_model"], self.lineage["latency_model_version"])

    @property
    def works(self) -> list[Visit]:
        """What a request asks of devices and links by the plan."""
        if self.branched and self.branched.taken and self.branched.solution:
            return branched_works(self.branched.problem, self.branched.solution.stages)
        return chain_works(self.problem, self.decision.chosen.stages)

    @property
    def front_plans(self) -> list[Plan]:
        """The front as plans, those among them that run side by side in place of what they beat."""
        chains = [Plan.of(self.problem, found, self.objective, self.origin) for found in self.front]
        plans = [*chains, *(self.branched.front if self.branched else ())]
        if self.by_energy:
            return unbeaten(plans)
        plans.sort(key=lambda plan: (plan.latency_ms, plan.period_ms))
        kept: list[Plan] = []
        for plan in plans:
            if not kept or plan.period_ms < kept[-1].period_ms * (1 - 1e-9):
                kept.append(plan)
        return kept


def refuse_several(config: PepperConfig) -> None:
    """Check that one model is to be placed.

    Raises:
        ConfigError: Several are.
    """
    if config.place.models:
        raise ConfigError(
            f"place.models=[{','.join(config.place.models)}]: several models are for task=place; leave it out"
        )


def find_plan(composition: Composition, told: Told = untold) -> Placed:
    """Predict the model's parts on the fleet and solve for the plan; says and logs nothing.

    Args:
        composition: The configuration, and what its fleet's options are composed from.
        told: Told of what `Forecast` tells, and of two steps more.

    Raises:
        ConfigError: The fleet, a limit or a pin is not what it must be.
        LatencyError: The champion cannot be used by this pepper.
        ModelError: The model cannot be made in a precision that is allowed.
        PlacementError: No plan keeps to the rules.
    """
    config = composition.config
    refuse_several(config)
    registry = open_registry(config)
    version = chosen_version(registry, config.latency.version)
    fleet, model = assemble(composition), find_model(config.model)
    check_readable(fleet, model.file, config.place.excluded)
    graph, latency_model = model.graph(), load_version(registry, version)
    options = config.place
    forms = Forms(config, graph) if set(options.variants) != {Precision.fp32} else None
    whole_in = forms.graphs if forms else None
    forecast = Forecast(config, model, graph, fleet, latency_model, told, whole_in=whole_in)
    check_had(config, forecast)
    objective, spread = objective_of(config.objective), load_spread(registry, version)
    keeper = Keeper(forms, forecast) if forms else None
    answer = _answered(config, forecast, objective, spread)
    bound = answer.decision.best.bound  # that of all plans, whatever their error
    while keeper is not None and keeper.narrows(answer.problem, answer.plans):
        answer = _answered(config, forecast, objective, spread)
    problem, decision, refused = answer.problem, answer.decision.above(bound), answer.refused
    front, complete = answer.front, answer.complete
    told("solve", f"{figure(decision.best.value)} ms")
    against = disagreements(config, registry, version, latency_model, measured_names(fleet))
    told("trade off", f"{len(front)} plans")
    lineage = registry.lineage(version)
    origin = replace(origin_of(config, forecast, lineage), accuracies=keeper.found if keeper else {})
    plan, branched = Plan.of(problem, decision.chosen, objective, origin), None
    if options.graph == PlanGraph.dag:
        regions = Forecast(config, model, graph, fleet, latency_model, regions=True, whole_in=whole_in)
        chain = problem, decision.chosen, forecast
        branched = find_branched(config, regions, chain, objective, spread, lineage, forms, chain_keeps=refused is None)
        if refused and not branched.taken:
            raise refused
        plan = branched.plan if branched.taken and branched.plan else plan
    return Placed(
        forecast,
        problem,
        objective,
        decision,
        plan=plan,
        origin=origin,
        front=front,
        baselines=compare(problem, objective),
        lineage=lineage,
        branched=branched,
        refused=refused,
        counts_energy=config.objective.counts_energy,
        by_energy=config.objective.name == PARETO_ENERGY,
        cautions=tuple(caution(registry, version)),
        disagreements=tuple(against),
        front_complete=complete and (branched is None or branched.front_complete),
        forms=forms,
        narrowed=bool((keeper and keeper.narrowed) or (branched and branched.narrowed)),
    )


@dataclass(frozen=True)
class _Answer:
    """A problem, its decision, and its trade-offs.

    Attributes:
        problem: What was posed.
        decision: What is chosen.
        refused: As of `Placed`.
        front: Likewise.
        complete: Whether that front has all plans.
        plans: Those that may be run, whose answers must be near enough.
    """

    problem: ChainProblem
    decision: Decision
    refused: PlacementError | None
    front: tuple[Solution, ...]
    complete: bool
    plans: tuple[Stages, ...]


def _answered(config: PepperConfig, forecast: Forecast, objective: Objective, spread: Spread) -> _Answer:
    """Pose the problem, and solve it."""
    problem, time_limit_s = chain_problem(config, forecast), config.place.time_limit_seconds
    decision, refused = _decided(config, problem, objective, spread)
    front, complete = tuple[Solution, ...](), True
    if config.objective.name == PARETO_ENERGY:
        trade_offs = chain_front(problem, time_limit_s)
        front, complete = trade_offs.plans, trade_offs.complete
    elif not refused:
        front = pareto(problem, time_limit_s)
    plans = [decision.chosen, *(front if config.objective.wants_front else ())]
    return _Answer(problem, decision, refused, front, complete, tuple(each.stages for each in plans))


def _decided(
    config: PepperConfig, problem: ChainProblem, objective: Objective, spread: Spread
) -> tuple[Decision, PlacementError | None]:
    """Choose the best chain; where none keeps to the limits but other plans might, one without, and the refusal.

    Raises:
        PlacementError: No plan keeps to the rules.
    """
    options = config.place
    how = options.confidence, options.samples, options.seed, options.time_limit_seconds
    try:
        with named_by_key(config):
            return decide(problem, objective, spread, *how), None
    except PlacementError as refused:
        if options.graph != PlanGraph.dag or not isinstance(refused.__cause__, LimitError):
            raise
        return decide(replace(problem, limits=Limits()), objective, spread, *how), refused


def flips(placed: Placed, told: Told) -> dict[str, tuple[FlipPoint, ...]]:
    """Return where another chain would be best: by ``bandwidth`` (as a factor), and by each device's load (%)."""
    if placed.refused:
        return {}
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


def busy_latencies(placed: Placed) -> tuple[UnderLoad, ...]:
    """Return what requests that arise at random take, the more there are the longer."""
    if not placed.plan.period_ms:
        return ()
    most = per_second(placed.plan.period_ms)
    return tuple(under_load(placed.works, most * share) for share in UTILISATIONS)


def alone(problem: ChainProblem) -> dict[str, Evaluation]:
    """Return what is predicted of the whole model on each device, by its name."""
    whole = range(len(problem.devices))
    return {problem.devices[k].name: evaluate(problem, (Stage(0, problem.n_steps, k),)) for k in whole}
