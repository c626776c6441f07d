"""What a placement of several models says of itself: its lines, its tables and its verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.filesize import decimal
from rich.table import Table

from pepper.config import PepperConfig
from pepper.console.tables import figure, plain_table
from pepper.graph.characteristics import in_kinds
from pepper.measure.statistics import summarise
from pepper.placement.plan import Plan
from pepper.planning.joint_measuring import MeasuredModels
from pepper.planning.joint_placing import PlacedModels


@dataclass(frozen=True)
class JointLine:
    """A model among several, as predicted.

    Attributes:
        model: Its name.
        parts: Its parts and their devices.
        per_second: Its requests a second.
        alone_ms: Time of a request while no other is there.
        together_ms: Mean time of a request at all models' rates, by the formulas whose mean is minimised.
        simulated_ms: The same, simulated: the formulas are too high where devices are busy.
        p95_ms: 95th percentile of that.
        separate_ms: The mean, if each model had the plan that would be best for it alone; infinite where these cannot
            carry the rates.
    """

    model: str
    parts: str
    per_second: float
    alone_ms: float
    together_ms: float
    simulated_ms: float
    p95_ms: float
    separate_ms: float


@dataclass(frozen=True)
class UseLine:
    """What all models take of a device or link.

    Attributes:
        where: The device, or ``from->to`` of the link.
        busy: Part of the time for which it is busy.
        memory_bytes: What their parts take; None of a link.
    """

    where: str
    busy: float
    memory_bytes: float | None


@dataclass(frozen=True)
class JointRunLine:
    """A model among several, predicted and measured.

    Attributes:
        model: Its name.
        per_second: Its requests a second.
        alone_ms: Predicted time of a request while no other is there.
        measured_alone_ms: Mean of the same.
        simulated_ms: Predicted mean time at all models' rates.
        measured_ms: Mean of the same.
        p95_ms: Its 95th percentile, predicted.
        measured_p95_ms: Its 95th percentile; None where there were too few requests to tell.
        requests: How many were answered at these rates.
    """

    model: str
    per_second: float
    alone_ms: float
    measured_alone_ms: float
    simulated_ms: float
    measured_ms: float
    p95_ms: float
    measured_p95_ms: float | None
    requests: int


def joint_lines(placed: PlacedModels) -> list[JointLine]:
    """Return a line for each model."""
    cost = placed.solution.cost
    return [
        JointLine(
            model.name,
            placed_parts(model.plan),
            stream.rate_per_s,
            alone_ms,
            together_ms,
            model.foretold.mean_ms,
            model.foretold.p95_ms,
            separate_ms if carries(placed) else math.inf,
        )
        for model, stream, alone_ms, together_ms, separate_ms in zip(
            placed.models,
            placed.problem.streams,
            cost.alone_ms,
            cost.latency_ms,
            placed.separate.latency_ms,
            strict=True,
        )
    ]


def placed_parts(plan: Plan) -> str:
    """Write a plan in a line: which operators where."""
    return " ".join(f"{part.device}[{part.start}:{part.stop}]" for part in plan.parts)


def carries(placed: PlacedModels) -> bool:
    """Whether the models' own best plans keep to the rules together."""
    return not placed.separate.violations


def use_lines(placed: PlacedModels) -> list[UseLine]:
    """Return a line for each device and link that is used."""
    cost = placed.solution.cost
    return [UseLine(where, busy, cost.memory_bytes.get(where)) for where, busy in sorted(cost.busy.items())]


def joint_run_lines(placed: PlacedModels, measured: MeasuredModels) -> list[JointRunLine]:
    """Return a line for each model that was run."""
    return [
        JointRunLine(
            line.model,
            line.per_second,
            line.alone_ms,
            float(np.mean(measured.alone[line.model].latency_ms)),
            line.simulated_ms,
            float(np.mean(latency_ms := measured.together[line.model].latency_ms)),
            line.p95_ms,
            summarise(latency_ms).get("latency_p95_ms"),
            len(latency_ms),
        )
        for line in joint_lines(placed)
    ]


def joint_table(lines: Sequence[JointLine]) -> Table:
    """Return one line a model: its parts, and what its requests take."""
    columns = ("requests/s", "alone ms", "together ms", "each placed alone", "simulated ms", "p95 ms")
    table = plain_table(("model", "parts"), columns)
    for line in lines:
        times = (
            line.per_second,
            line.alone_ms,
            line.together_ms,
            line.separate_ms,
            line.simulated_ms,
            line.p95_ms,
        )
        table.add_row(line.model, line.parts, *map(figure, times))
    return table


def use_table(lines: Sequence[UseLine]) -> Table:
    """Return one line a device or link: how busy it is, and what memory is taken."""
    table = plain_table(("device or link",), ("busy", "memory"))
    for line in lines:
        memory = "" if line.memory_bytes is None else decimal(round(line.memory_bytes))
        table.add_row(line.where, f"{line.busy:.0%}", memory)
    return table


def joint_runs_table(lines: Sequence[JointRunLine]) -> Table:
    """Return one line a model: predicted and measured, alone and together."""
    columns = ("alone ms", "measured", "together ms", "measured", "p95 ms", "measured")
    table = plain_table(("model",), ("requests/s", *columns, "requests"))
    for line in lines:
        times = (
            line.alone_ms,
            line.measured_alone_ms,
            line.simulated_ms,
            line.measured_ms,
            line.p95_ms,
        )
        p95 = "" if line.measured_p95_ms is None else figure(line.measured_p95_ms)
        table.add_row(line.model, figure(line.per_second), *map(figure, times), p95, f"{line.requests}")
    return table


def joint_verdict(placed: PlacedModels) -> str:
    """Say how good the plans are together, and what it gains to place the models together."""
    solution, separate = placed.solution, placed.separate
    proof = "proven optimal" if not solution.gap else f"at most {solution.gap:.1%} above the optimum"
    weighed = " (weighted by priority)" if len({stream.priority for stream in placed.problem.streams}) > 1 else ""
    line = f"mean latency of all requests {figure(solution.cost.mean_ms)} ms{weighed}, {proof} for the predicted times"
    if separate.violations:
        return f"{line}; each placed alone, they do not go together: {separate.violations[0]}"
    if all(model.plan.parts == model.own_plan.parts for model in placed.models):
        return f"{line}; each placed alone, the plans are the same"
    gain = 1 - solution.cost.mean_ms / separate.mean_ms
    return f"{line}; {gain:.1%} below that of each placed alone, {figure(separate.mean_ms)} ms"


def joint_name(placed: PlacedModels) -> str:
    """List the models."""
    return ", ".join(model.name for model in placed.models)


def joint_params(config: PepperConfig, placed: PlacedModels) -> dict[str, str | float]:
    """Return the parameters of the runs about a placement."""
    found: dict[str, str | float] = {
        "models": joint_name(placed),
        "fleet": config.fleet.name,
        "cuts": config.cuts.kind,
        "solver": placed.solution.solver,
    }
    for model, stream in zip(placed.models, placed.problem.streams, strict=True):
        found |= {
            f"{model.name}_per_s": stream.rate_per_s,
            f"{model.name}_priority": stream.priority,
            f"{model.name}_placement": placed_parts(model.plan),
            f"{model.name}_sha256": model.forecast.model.content_hash,
        }
    return found


def joint_warnings(placed: PlacedModels) -> list[str]:
    """Say what the predictions cannot be trusted in."""
    said = [*placed.cautions, *placed.disagreements]
    for model in placed.models:
        said += [f"{model.name}: {gap}; the predictions count it as nothing" for gap in in_kinds(model.forecast.gaps)]
        if model.forecast.borders.left_out:
            count = model.forecast.borders.left_out
            said.append(f"{model.name}: {count} cuts were left out; raise place.max_cuts to choose from more")
    return said


def joint_metrics(placed: PlacedModels) -> dict[str, float]:
    """Return the figures of the placement's run."""
    found = {"mean_latency_ms": placed.solution.cost.mean_ms, "bound_ms": placed.solution.bound_ms}
    found |= {"gap": placed.solution.gap, "separate_mean_latency_ms": placed.separate.mean_ms}
    for line in joint_lines(placed):
        found |= {f"{line.model}_alone_ms": line.alone_ms, f"{line.model}_together_ms": line.together_ms}
        found |= {f"{line.model}_simulated_ms": line.simulated_ms, f"{line.model}_p95_ms": line.p95_ms}
    found |= {f"busy_{use.where.replace('->', '_to_')}": use.busy for use in use_lines(placed)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def joint_run_metrics(lines: Sequence[JointRunLine]) -> Mapping[str, float]:
    """Return the figures of a run of all models."""
    total = sum(line.per_second for line in lines)
    found = {"mean_latency_ms": sum(line.per_second * line.measured_ms for line in lines) / total}
    for line in lines:
        found |= {
            f"{line.model}_alone_ms": line.measured_alone_ms,
            f"{line.model}_together_ms": line.measured_ms,
        }
        if line.measured_p95_ms is not None:
            found[f"{line.model}_p95_ms"] = line.measured_p95_ms
    return found
