"""From several models, a fleet and the champion to plans that count what the models cost each other."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from pepper.config import ModelConfig, PepperConfig, typed
from pepper.config.composing import Composition
from pepper.config.placing import PlanGraph
from pepper.console.progress import Told, untold
from pepper.console.tables import figure
from pepper.errors import ConfigError, PlacementError, argument
from pepper.fleet import Fleet
from pepper.graph.model import ModelFile, find_model
from pepper.latency.model import LatencyModel
from pepper.placement.chain import Solution, solve
from pepper.placement.evaluate import evaluate
from pepper.placement.joint import MOST_BUSY, JointCost, JointProblem, ModelStream
from pepper.placement.joint_search import JointSolution, Unsolved, memory_missing, solve_joint
from pepper.placement.objectives import LATENCY, THROUGHPUT
from pepper.placement.plan import Plan
from pepper.placement.problem import ChainProblem
from pepper.placement.queueing import chain_works
from pepper.placement.shared_queueing import StreamLatency, stream_latencies
from pepper.planning.drift import disagreements, measured_names
from pepper.planning.fleets import assemble, check_readable
from pepper.planning.forecast import Forecast
from pepper.planning.latency_models import chosen_version, load_version, open_registry
from pepper.planning.posing import chain_problem, named_by_key, origin_of
from pepper.planning.shipped import called, caution

_LIMITS = ("max_latency_ms", "min_per_second", "max_energy_j")
_OF_ONE = ("moves.allowed", "others.compare", "others.exhaustive", "parts", "inputs", "trials.rate_per_s")
"""Keys of ``execute`` that say how one model's plan is run."""


@dataclass(frozen=True)
class PlacedModel:
    """One of several models.

    Attributes:
        name: Its option.
        config: The configuration with this model.
        forecast: What was predicted of it.
        plan: Its plan; latency and bound are those of a request that has the fleet to itself.
        own_plan: The plan that would be best if it had.
        foretold: Latencies of its requests beside the others', simulated.
    """

    name: str
    config: PepperConfig
    forecast: Forecast
    plan: Plan
    own_plan: Plan
    foretold: StreamLatency


@dataclass(frozen=True)
class PlacedModels:
    """Several models on one fleet.

    Attributes:
        problem: What was solved.
        solution: Its answer.
        models: The models, in the problem's order.
        separate: What the models' own best plans would cost together.
        lineage: Which latency model's version predicted, and the training and data behind it.
        disagreements: On which devices newer measurements disagree with the latency model, one line each.
        cautions: What to know of the latency model, one line each.
    """

    problem: JointProblem
    solution: JointSolution
    models: tuple[PlacedModel, ...]
    separate: JointCost
    lineage: Mapping[str, Any]
    disagreements: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def predicted_by(self) -> str:
        """What the latency model is called."""
        return called(self.lineage["latency_model"], self.lineage["latency_model_version"])


def find_joint_plan(composition: Composition, told: Told = untold) -> PlacedModels:
    """Predict the models' parts on the fleet and solve for their plans; says and logs nothing.

    Args:
        composition: The configuration, and what its fleet's and models' options are composed from.
        told: Told of what `Forecast` tells of each model, and of one step more.

    Raises:
        ConfigError: The fleet, a model, a limit or a pin is not what it must be.
        LatencyError: The champion cannot be used by this pepper.
        PlacementError: No plans keep to the rules, or carry the rates.
    """
    config = composition.config
    _check(config)
    models = _models(composition)
    registry = open_registry(config)
    version = chosen_version(registry, config.latency.version)
    fleet = assemble(composition)
    for model, file in models.values():
        check_readable(fleet, file.file, model.place.excluded)
    latency_model, lineage = load_version(registry, version), registry.lineage(version)
    forecasts = _forecasts(models, fleet, latency_model, told)
    streams, own = [], []
    for name, forecast in forecasts.items():
        problem = chain_problem(models[name][0], forecast)
        own.append(_own(name, models[name][0], problem))
        rate, priority = (given.get(name, 1.0) for given in (config.place.rates, config.place.priorities))
        streams.append(ModelStream(name, problem, rate, priority))
    joint = JointProblem(tuple(streams))
    solution = solve_joint(joint, config.place.time_limit_seconds, config.place.seed)
    if isinstance(solution, Unsolved):
        raise _refusal(joint, solution, config)
    told("solve", f"{figure(solution.cost.mean_ms)} ms")
    works = [
        (chain_works(stream.problem, stages), stream.rate_per_s)
        for stream, stages in zip(streams, solution.plans, strict=True)
    ]
    placed = []
    for stream, stages, alone, foretold in zip(
        streams, solution.plans, own, stream_latencies(works, config.place.seed), strict=True
    ):
        mine, forecast = models[stream.name][0], forecasts[stream.name]
        origin = origin_of(mine, forecast, lineage)
        alone_ms = evaluate(stream.problem, stages).latency_ms
        answer = Solution(stages, alone_ms, min(alone.bound, alone_ms), solution.solver)
        plan, own_plan = (Plan.of(stream.problem, each, LATENCY, origin) for each in (answer, alone))
        placed.append(PlacedModel(stream.name, mine, forecast, plan, own_plan, foretold))
    return PlacedModels(
        joint,
        solution,
        tuple(placed),
        joint.evaluate({who: alone.stages for who, alone in enumerate(own)}),
        lineage,
        tuple(disagreements(config, registry, version, latency_model, measured_names(fleet))),
        tuple(caution(registry, version)),
    )


def _check(config: PepperConfig) -> None:
    """Refuse what is asked of several models and cannot be had."""
    objective, place = config.objective, config.place
    if objective.name != LATENCY.name:
        raise ConfigError(
            f"objective.name={objective.name}: several models are placed for the least mean latency at their rates;"
            " give objective=latency, and place.rates what they must carry"
        )
    for limit in _LIMITS:
        if (value := getattr(objective, limit)) is not None:
            raise ConfigError(
                f"objective.{limit}={value:g}: does not hold for several models; give objective.{limit}=null"
                " (place.rates and place.priorities say what matters of each)"
            )
    if place.split:
        raise ConfigError(
            "place.split=true: writes the parts of one model; give place.split=false, and each plan to task=split"
            " as split.plan=FILE"
        )
    if place.graph == PlanGraph.dag:
        raise ConfigError("place.graph=dag: several models are placed as chains; give place.graph=chain")
    for key in _OF_ONE if place.execute else ():
        if value := attrgetter(key)(config.execute):
            raise ConfigError(
                f"execute.{key}={value}: says how one model's plan is run; leave it out, or run one with task=execute"
            )
    for name, device in config.fleet.devices.items():
        if device.count > 1:
            raise ConfigError(
                f"fleet.devices.{name}.count={device.count}: several models share single devices; list its"
                f" {device.count} one by one, and give {argument(f'fleet.devices.{name}.count', 1)}"
            )


def _models(composition: Composition) -> dict[str, tuple[PepperConfig, ModelFile]]:
    """Return each model's configuration and file.

    Raises:
        ConfigError: There is no such option, it names no file, or two are the same model.
    """
    from omegaconf import OmegaConf

    config = composition.config
    kept = [each for each in composition.overrides if each.lstrip("+~").partition("=")[0].partition(".")[0] != "model"]
    found: dict[str, tuple[PepperConfig, ModelFile]] = {}
    for name in config.place.models:
        try:
            composed = composition.compose([*kept, f"model={name}"])
        except ConfigError as error:
            raise ConfigError(f"place.models: {error}") from error
        if OmegaConf.is_missing(composed.model, "path"):
            raise ConfigError(
                f"place.models: {name!r} names no file; write an option of model that does, such as my/model/mine.yaml,"
                " and give --config-dir my"
            )
        model: ModelConfig = typed(composed).model
        file = find_model(model)
        for other, (_, known) in found.items():
            if known.content_hash == file.content_hash:
                raise ConfigError(f"place.models: {name!r} and {other!r} are one model; give one, at both rates' sum")
        found[name] = replace(config, model=model), file
    return found


def _forecasts(
    models: Mapping[str, tuple[PepperConfig, ModelFile]], fleet: Fleet, latency_model: LatencyModel, told: Told
) -> dict[str, Forecast]:
    return {
        name: Forecast(config, file, file.graph(), fleet, latency_model, told)
        for name, (config, file) in models.items()
    }


def _own(name: str, config: PepperConfig, problem: ChainProblem) -> Solution:
    """Return the best plan of a model that has the fleet to itself."""
    try:
        with named_by_key(config):
            return solve(problem, LATENCY, config.place.time_limit_seconds)
    except PlacementError as error:
        raise PlacementError(f"{name}: {error}") from error


def _refusal(problem: JointProblem, found: Unsolved, config: PepperConfig) -> PlacementError:
    """Say what the fleet lacks, and by how much."""
    if found.carried == 0:
        more = memory_missing(problem)
        return PlacementError(
            f"place.models=[{','.join(config.place.models)}]: the fleet's memory does not hold all of them;"
            f" {more:.0f} bytes more on each device would do: leave one out, or let devices have more"
        )
    for stream in problem.streams:
        with suppress(PlacementError):
            best = solve(stream.problem, THROUGHPUT, config.place.time_limit_seconds)
            most = MOST_BUSY * 1000 / best.value if best.value else math.inf
            if stream.rate_per_s > most:
                key = f"place.rates.{stream.name}"
                return PlacementError(
                    f"{key}={stream.rate_per_s:g}: no plan carries it, even without the other models; give at most"
                    f" {_floor(most)}"
                )
    rates = " ".join(
        argument(f"place.rates.{stream.name}", _floor(stream.rate_per_s * found.carried)) for stream in problem.streams
    )
    proof = "no plans carry" if found.proven else "no plans were found that carry"
    return PlacementError(
        f"place.rates: {proof} these together (at most {found.carried:.0%} of each was); lower them, as with {rates}"
    )


def _floor(value: float) -> str:
    """Write a number to three digits, not above it."""
    digits = 2 - math.floor(math.log10(value))
    return f"{math.floor(value * 10**digits) / 10**digits:.{max(0, digits)}f}"
