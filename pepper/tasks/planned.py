"""From a plan to what is run: its model, its fleet, its parts; and from a lost device to the next plan."""

import json
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pepper.config import DeviceConfig, LoadConfig, ModelConfig, PepperConfig
from pepper.config.placing import MEASURED
from pepper.devices.device import resolve
from pepper.documents import first_fault
from pepper.errors import ConfigError, ExecutionError, LatencyError, PlacementError
from pepper.execution.layout import Fleet, Layout, Link
from pepper.graph.borders import Borders
from pepper.graph.cuts import Cut
from pepper.graph.ir import Graph
from pepper.graph.model import find_model
from pepper.graph.split import read_manifest, split
from pepper.measure.load import check_load
from pepper.placement.chain import Solution, solve
from pepper.placement.plan import Origin, Plan
from pepper.placement.problem import ChainProblem, Links
from pepper.placement.problem import Link as PlacementLink
from pepper.tasks import fleet as placed
from pepper.tasks.latency_models import chosen_version, load_version, open_registry
from pepper.tasks.placement_problem import Forecast, chain_problem
from pepper.tasks.split import planned_cuts

_Option = TypeVar("_Option", DeviceConfig, LoadConfig)


def planned_model(plan: Plan, name: str) -> Graph:
    """Return the graph of the model that was placed.

    Args:
        plan: The plan.
        name: How an error calls it.

    Raises:
        ExecutionError: The plan names no model, or the file's content has changed.
        ModelError: The model cannot be read.
    """
    if not plan.model:
        raise ExecutionError(f"{name}: the plan names no model; make one with task=place")
    model = find_model(_model_config(plan))
    if model.content_hash != plan.model["sha256"]:
        raise ExecutionError(
            f"{name}: was made for another {plan.model['path']} (sha256 {plan.model['sha256'][:12]}, the file has"
            f" {model.content_hash[:12]}); place this model again"
        )
    graph = model.graph()
    if plan.parts[-1].stop != len(graph.operators):
        raise ExecutionError(
            f"{name}: its parts end after {plan.parts[-1].stop} of the model's {len(graph.operators)} operators;"
            " place the model again"
        )
    return graph


def planned_fleet(plan: Plan, name: str) -> Fleet:
    """Return the fleet of a plan, on this machine.

    Raises:
        ConfigError: This machine cannot give a device or its load.
        ExecutionError: The plan does not say what a device is.
    """
    devices, loads = {}, {}
    for device, entry in plan.fleet["devices"].items():
        try:
            devices[device] = replace(resolve(_checked(DeviceConfig, entry.get("device"))), name=device)
            load = _checked(LoadConfig, entry.get("load"))
            check_load(load, devices[device])
        except ConfigError as error:
            raise ConfigError(f"{name}: fleet.devices.{device}: {error}") from error
        except ValueError as error:
            raise ExecutionError(
                f"{name}: does not say what device {device!r} is ({error}); make a plan with task=place"
            ) from error
        if load.name != MEASURED:  # what was measured is there already
            loads[device] = load
    links = {
        (link["from"], link["to"]): Link(link["bandwidth_mbit_s"], link["latency_ms"], link["forwarded_mbit_s"])
        for link in plan.fleet["links"]
    }
    return Fleet(devices, links, plan.fleet["source"], plan.fleet["sink"], loads)


def _checked(kind: type[_Option], entry: object) -> _Option:
    """Return a device or a load as a plan's file describes it, with the types and within the bounds of the option.

    Raises:
        ValueError: It is described as something else; the message is one line.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.dataclasses import dataclass

    strict = dataclass(kind, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
    try:
        TypeAdapter(strict).validate_json(json.dumps(entry))
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error
    assert isinstance(entry, dict)
    return kind(**entry)


class Splitter:
    """Writes the parts of one model's plans.

    Args:
        graph: The model.
        folder: Where the parts go.
    """

    def __init__(self, graph: Graph, folder: Path) -> None:
        self.graph = graph
        self._folder = folder
        self._written = 0

    def planned(self, plan: Plan, name: str) -> Layout:
        """Return the layout of a plan.

        Raises:
            ConfigError: The plan is of another model.
        """
        return self.layout(planned_cuts(self.graph, plan, name), [part.device for part in plan.parts])

    def layout(self, cuts: Collection[Cut], devices: Collection[str]) -> Layout:
        """Split at these cuts, and place the parts."""
        self._written += 1
        folder = self._folder / f"{self._written}"
        return Layout.of(split(self.graph, list(cuts), folder), folder, list(devices))


def written_layout(plan: Plan, folder: Path, name: str) -> Layout:
    """Return the layout of a plan whose parts were written before.

    Raises:
        ModelError: There is no split in the folder.
        ExecutionError: It is another split, or a part is missing or has changed.
    """
    manifest = read_manifest(folder)
    cuts = [set(names) for names in manifest.cuts]
    planned = [set(part.inputs) for part in plan.parts[1:]]
    if cuts != planned:
        raise ExecutionError(
            f"execute.parts={folder}: holds parts cut at {cuts or 'no tensor'}, {name} cuts at {planned or 'none'};"
            " split the plan's model again, or leave execute.parts out"
        )
    layout = Layout.of(manifest, folder, [part.device for part in plan.parts])
    for part in manifest.parts:
        if not part.is_intact(folder):
            raise ExecutionError(f"execute.parts={folder}: {part.file} is not as it was split; split again")
    return layout


def replanner(config: PepperConfig, plan: Plan, splitter: Splitter) -> Callable[[frozenset[str]], Layout | None]:
    """Return what solves a plan's problem again without the devices that were lost.

    The champion predicts; where there is none, or no plan keeps to the rules (operators pinned to a lost device are
    pinned still), there is no other plan.
    """
    forecasts: list[Forecast] = []
    ruled = under_rules(config, plan)

    def replan(lost: frozenset[str]) -> Layout | None:
        try:
            if not forecasts:
                forecasts.append(planned_forecast(config, plan))
            problem = chain_problem(ruled, forecasts[0])
            problem = replace(problem, excluded=problem.excluded | lost)
            solution = solve(problem, plan.objective, config.place.time_limit_seconds)
        except (LatencyError, PlacementError):
            return None
        return next_layout(splitter, forecasts[0].borders, problem, solution, plan.objective)

    return replan


def under_rules(config: PepperConfig, plan: Plan) -> PepperConfig:
    """Return the configuration with the plan's own pins, exclusions and most parts, where it says nothing else."""
    place, rules = config.place, plan.rules
    return replace(
        config,
        place=replace(
            place,
            pinned={**rules.get("pinned", {}), **place.pinned},
            excluded=sorted({*rules.get("excluded", []), *place.excluded}),
            max_parts=place.max_parts if place.max_parts is not None else rules.get("max_parts"),
        ),
    )


def next_layout(
    splitter: Splitter, borders: Borders, problem: ChainProblem, solution: Solution, objective: str
) -> Layout:
    """Write the parts of a solution, and return its layout."""
    origin = Origin(positions=borders.positions, tensors=borders.tensors)
    return splitter.planned(Plan.of(problem, solution, objective, origin), "the next plan")


def _model_config(plan: Plan) -> ModelConfig:
    known = {**plan.model["input_shapes"], **plan.model.get("inner_shapes", {})}
    return ModelConfig(
        path=plan.model["path"],
        name=plan.model["name"],
        shapes={name: list(shape) for name, shape in known.items()},
        inputs=dict(plan.model.get("inputs", {})),
    )


def planned_forecast(config: PepperConfig, plan: Plan) -> Forecast:
    """Return what the champion predicts of a plan's model on its fleet.

    Raises:
        LatencyError: There is no champion.
    """
    devices = []
    for name, entry in plan.fleet["devices"].items():
        device = DeviceConfig(**entry["device"])
        devices.append(placed.FleetDevice(name, device, resolve(device), LoadConfig(**entry["load"]), 1))
    links = {
        (link["from"], link["to"]): PlacementLink(link["bandwidth_mbit_s"] or math.inf, link["latency_ms"])
        for link in plan.fleet["links"]
    }
    names = list(plan.fleet["devices"])
    known = Links.pairs(names, links, both_ways=False)
    through = known.ms_per_byte.copy()
    for link in plan.fleet["links"]:
        if link["forwarded_mbit_s"]:
            through[names.index(link["from"]), names.index(link["to"])] += 0.008 / link["forwarded_mbit_s"]
    known = replace(known, ms_per_byte=through)
    fleet = placed.Fleet(tuple(devices), known, plan.fleet["source"], plan.fleet["sink"])
    registry = open_registry(config)
    version = load_version(registry, chosen_version(registry, config.latency.version))
    return Forecast(replace(config, model=_model_config(plan)), fleet, version)
