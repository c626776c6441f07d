"""The placement problem that a configuration poses with a forecast, and its limits under the user's keys."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np

import pepper
from pepper.config import ObjectiveConfig, PepperConfig
from pepper.errors import ConfigError, PlacementError, argument
from pepper.fleet import Fleet
from pepper.graph.source import PACKAGE_SCHEME
from pepper.placement.objectives import LATENCY, Objective, objective_named
from pepper.placement.plan import Origin, PlannedModel, PlanRules
from pepper.placement.problem import ChainProblem, DeviceKind, Limits, Links
from pepper.placement.shortage import LimitError, TimeLimitError
from pepper.planning.fleets import check_devices
from pepper.planning.forecast import Forecast
from pepper.units import period_of_ms

_KEYS = {
    "latency_ms": "objective.max_latency_ms",
    "period_ms": "objective.min_per_second",
    "energy_j": "objective.max_energy_j",
    "sent_bytes": "objective.max_sent_bytes",
    "parts": "place.max_parts",
}
_TIME_KEY = "place.time_limit_seconds"


def objective_of(config: ObjectiveConfig) -> Objective:
    """Return what the configuration wants to be minimised; of all trade-offs it is the latency.

    Raises:
        ConfigError: There is no such objective, or its weights are none.
    """
    if config.weights:
        try:
            weights = config.weights
            return Objective(
                config.name,
                config.name,
                per_ms=weights.get("ms", 1.0),
                per_part=weights.get("part", 0.0),
                per_joule=weights.get("joule", 0.0),
            )
        except ValueError as error:
            raise ConfigError(f"objective.weights={config.weights}: {error}") from error
    if config.wants_front:
        return LATENCY
    try:
        return objective_named(config.name)
    except PlacementError as error:
        raise ConfigError(f"objective.name={config.name}: {str(error).partition(': ')[2]}") from error


def chain_problem(config: PepperConfig, forecast: Forecast) -> ChainProblem:
    """Return the problem that the configuration poses.

    Raises:
        ConfigError: A pin or an excluded device contradicts the fleet, the model or another one, or energy counts and
            no device's power is known.
    """
    place, objective, fleet = config.place, config.objective, forecast.fleet
    names = list(fleet.devices)
    check_devices("place.excluded", place.excluded, names)
    if objective.counts_energy:
        _check_powers(config, fleet)
    limits = {
        "latency_ms": objective.max_latency_ms,
        "period_ms": objective.min_per_second and period_of_ms(objective.min_per_second),
        "energy_j": objective.max_energy_j,
        "sent_bytes": objective.max_sent_bytes,
        "parts": place.max_parts,
    }
    most = objective.max_memory_bytes if objective.max_memory_bytes is not None else np.inf
    return ChainProblem.of(
        [
            DeviceKind(
                name,
                min(forecast.memory_bytes(name), most),
                device.count,
                forecast.wait_ms[name],
                np.inf if device.power_w is None else device.power_w,
            )
            for name, device in fleet.devices.items()
        ],
        forecast.part_ms,
        np.array(forecast.borders.bytes, float),
        Links.pairs(names, fleet.between),
        forecast.part_bytes,
        forecast.handling_ms,
        moved_ms=forecast.moved_ms,
        forms=forecast.forms,
        excluded=place.excluded,
        source=fleet.source,
        sink=fleet.sink,
        pinned=_pins(place.pinned, names, place.excluded, forecast.borders.positions),
        labels=[f"operators {start} to {end}" for start, end in pairwise(forecast.borders.positions)],
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
    )


def check_had(config: PepperConfig, forecast: Forecast) -> None:
    """Check that some device can run parts in some precision that is allowed.

    Raises:
        ConfigError: None can.
    """
    devices = [name for name in forecast.fleet.devices if name not in config.place.excluded]
    if devices and all(set(devices) <= set(forecast.without(precision)) for precision in forecast.precisions):
        raise ConfigError(
            f"place.variants=[{','.join(forecast.precisions)}]: not on {', '.join(devices)}: the execution providers"
            " there have no such arithmetic; allow fp32, too"
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
        precisions=forecast.precisions,
    )


def _check_powers(config: PepperConfig, fleet: Fleet) -> None:
    """Check that some plan's energy can be known."""
    unknown = fleet.unmeasured
    key = "objective.max_energy_j" if config.objective.max_energy_j is not None else "objective.name"
    what = f"{key}={attrgetter(key)(config)}"
    if all(name in unknown or name in config.place.excluded for name in fleet.devices):
        raise ConfigError(
            f"{what}: no device's power is known; give {argument(f'fleet.devices.{unknown[0]}.power_w', 'WATTS')},"
            " what it takes above idle while it works (0 where that does not matter)"
        )
    for name in config.place.pinned:
        if name in unknown:
            raise ConfigError(
                f"{what}: the power of {name!r}, which operators are pinned to, is not known; give"
                f" {argument(f'fleet.devices.{name}.power_w', 'WATTS')}"
            )


def _pins(
    pinned: Mapping[str, list[int]], names: list[str], excluded: list[str], positions: tuple[int, ...]
) -> dict[int, str]:
    """Turn pinned operators into pinned steps: a step goes with any of its operators."""
    check_devices("place.pinned", pinned, names)
    steps: dict[int, str] = {}
    for name, (start, end) in pinned.items():
        if name in excluded:
            raise ConfigError(f"place.pinned.{name}: the device is in place.excluded too; drop one of them")
        if end > positions[-1]:
            raise ConfigError(f"place.pinned.{name}=[{start},{end}]: the model has {positions[-1]} operators")
        for step in range(len(positions) - 1):
            if positions[step] < end and start < positions[step + 1]:
                other = steps.setdefault(step, name)
                if other != name:
                    raise ConfigError(
                        f"place.pinned.{name}=[{start},{end}]: no cut parts it from what is pinned to {other!r}"
                        f" (operators {positions[step]} to {positions[step + 1]} go together)"
                    )
    return steps


@contextmanager
def named_by_key(config: PepperConfig) -> Iterator[None]:
    """Say which keys a solver's limits come from, and what could be had in their place.

    Raises:
        PlacementError: In place of an error of limits or of time.
    """
    try:
        yield
    except LimitError as error:
        keys = [_KEYS[limit] for limit in error.limits]
        given = ", ".join(f"{key}={attrgetter(key)(config):.10g}" for key in keys)
        if error.best is None:
            raise PlacementError(
                f"{given}: no plan keeps to them, nor with any one of them lifted; relax several"
            ) from error
        if error.limits == ("period_ms",):
            reach, change = _rounded(1000 / error.best, math.floor), "lower"
        else:
            reach, change = _rounded(error.best, math.ceil), "raise"
        raise PlacementError(f"{given}: no plan keeps to it; {reach} can be reached: {change} it") from error
    except TimeLimitError as error:
        seconds = attrgetter(_TIME_KEY)(config)
        raise PlacementError(f"{_TIME_KEY}={seconds:g}: no plan found in time, and none ruled out; raise it") from error


def _rounded(value: float, way: Callable[[float], int]) -> str:
    """Write a number to four digits, rounded so that it can be reached, too."""
    digits = max(0, 3 - math.floor(math.log10(value)))
    text = f"{way(value * 10**digits) / 10**digits:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
