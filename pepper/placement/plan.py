"""The plan: what a placement decided, as a file that is enough to run it.

A plan names its model, its devices and its links, and speaks of borders between parts by operator position and
by tensor, so it can be read and run without the problem that it came from.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pepper.documents import first_fault, read_json
from pepper.errors import PlacementError
from pepper.placement.chain import Solution
from pepper.placement.evaluate import evaluate, instances, unit
from pepper.placement.problem import ChainProblem

SCHEMA = "pepper.plan"
VERSION = 3


@dataclass(frozen=True)
class PlannedPart:
    """One part and where it runs.

    Attributes:
        start: Operators of the model that lie before it.
        stop: Operators that lie before its end.
        device: Name of the device, one of the plan's fleet.
        time_ms: Predicted mean time of the inference.
        pickup_ms: Predicted time before that: the wait for the device, and the handling of messages.
        memory_bytes: Memory.
        receive_ms: Predicted time of the transfer before it (0: none).
        receive_bytes: Bytes of that transfer.
        inputs: Names of the tensors that cross its first border, when known.
        outputs: Names of the tensors that cross its last border, when known.
    """

    start: int
    stop: int
    device: str
    time_ms: float
    pickup_ms: float
    memory_bytes: float
    receive_ms: float
    receive_bytes: float
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """What a problem of numbers stands for: the model and the devices behind it, all of it JSON values.

    Attributes:
        model: ``name``, ``path``, ``sha256`` (of the file and its external weights) and ``input_shapes`` (by
            name); empty where the problem came from no model.
        devices: What each device (or kind) of the problem is, by name: its ``device`` and ``load``
            configuration.
        positions: (n + 1) operators before each boundary; the boundary's own number where not given.
        tensors: (n + 1) names of the tensors that cross each boundary.
        provenance: Where the numbers come from (latency model, profiles); free-form.
        rules: As of the plan.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    positions: Sequence[int] = ()
    tensors: Sequence[tuple[str, ...]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Parts on devices, and what that is predicted to cost.

    Attributes:
        model: ``name``, ``path``, ``sha256`` and ``input_shapes``; empty where it came from no model.
        fleet: ``devices`` (by name: ``device`` and ``load``, their configurations), ``links`` (each ``from``,
            ``to``, ``bandwidth_mbit_s`` (of the slower side of a hub; None: unlimited), ``latency_ms`` and
            ``forwarded_mbit_s`` (of the other side; None: no hub)), ``source`` and ``sink`` (names of the devices at
            which the input arises and the output is wanted, or None). Of a kind of several equal devices it lists
            those at work, as ``name#0``, ``name#1``, ...
        objective: What was minimised.
        parts: The parts in order.
        return_ms: Predicted time of the transfer to the sink.
        latency_ms: Predicted mean time of one request.
        period_ms: Predicted time between two results of the pipeline.
        sent_bytes: Bytes of one request over all links.
        bound_ms: No plan is below this in the objective.
        gap: Relative distance to the bound; 0 when proven optimal.
        solver: Which solver found it.
        provenance: Where the numbers come from (latency model, profiles); free-form, JSON values.
        rules: What the next plan must keep to, too, when a device is lost or loads change: ``pinned`` (by device, the
            first and the last operator's position, exclusive), ``excluded`` (names), ``max_parts``.
    """

    model: dict[str, Any]
    fleet: dict[str, Any]
    objective: str
    parts: tuple[PlannedPart, ...]
    return_ms: float
    latency_ms: float
    period_ms: float
    sent_bytes: float
    bound_ms: float
    gap: float
    solver: str
    provenance: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: ChainProblem, solution: Solution, objective: str, origin: Origin | None = None) -> "Plan":
        """Write down a solution.

        Args:
            problem: What was solved.
            solution: Its answer.
            objective: What was minimised.
            origin: What the problem's numbers stand for.
        """
        about = origin or Origin()
        cost = evaluate(problem, solution.stages)
        numbers = instances(problem, solution.stages)
        positions = about.positions or range(problem.n_steps + 1)
        parts = []
        for k, (stage, number) in enumerate(zip(solution.stages, numbers, strict=True)):
            hop = cost.hops[k]
            parts.append(
                PlannedPart(
                    start=positions[stage.start],
                    stop=positions[stage.stop],
                    device=unit(problem, stage.device, number),
                    time_ms=cost.stage_ms[k],
                    pickup_ms=cost.pickup_ms[k],
                    memory_bytes=cost.stage_bytes[k],
                    receive_ms=hop.time_ms if hop else 0.0,
                    receive_bytes=hop.sent_bytes if hop else 0.0,
                    inputs=about.tensors[stage.start] if about.tensors else (),
                    outputs=about.tensors[stage.stop] if about.tensors else (),
                )
            )
        last = cost.hops[-1]
        return cls(
            model=dict(about.model),
            fleet=_fleet(problem, solution, about.devices),
            objective=objective,
            parts=tuple(parts),
            return_ms=last.time_ms if last else 0.0,
            latency_ms=cost.latency_ms,
            period_ms=cost.period_ms,
            sent_bytes=cost.sent_bytes,
            bound_ms=solution.bound,
            gap=solution.gap,
            solver=solution.solver,
            provenance=dict(about.provenance),
            rules=dict(about.rules),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a plan's file holds."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan.

        Raises:
            PlacementError: If the file is missing, is no plan, or has a version or content that is not known.
        """
        from pydantic import ValidationError  # tenths of a second

        from pepper.placement.plan_schema import PlanSchema

        try:
            content = read_json(path)
        except OSError as error:
            raise PlacementError(f"{path}: cannot be read ({error.strerror}); give a plan.json") from error
        except ValueError as error:
            raise PlacementError(f"{path}: not JSON that pepper reads ({error}); give a plan.json") from error
        if content.pop("schema", None) != SCHEMA:
            raise PlacementError(f"{path}: not a plan (schema is not {SCHEMA!r}); give a plan.json")
        version = content.pop("version", None)
        if version != VERSION:
            raise PlacementError(f"{path}: plan version {version!r:.40}; this pepper reads version {VERSION}")
        try:
            PlanSchema.model_validate(content)
        except ValidationError as error:
            raise PlacementError(f"{path}: {first_fault(error)}; place the model again") from error
        parts = tuple(
            PlannedPart(**{**part, "inputs": tuple(part["inputs"]), "outputs": tuple(part["outputs"])})
            for part in content.pop("parts")
        )
        return cls(parts=parts, **content)


def is_plan(file: Path) -> bool:
    """Whether a file is a plan of this or an earlier pepper."""
    try:
        return file.is_file() and read_json(file).get("schema") == SCHEMA
    except (OSError, ValueError):
        return False


def _mbit_s(ms_per_byte: float) -> float | None:
    return 0.008 / ms_per_byte if ms_per_byte > 0 else None


def _fleet(problem: ChainProblem, solution: Solution, devices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """List the devices, of kinds those at work, and the links between them."""
    work = dict.fromkeys(
        (stage.device, number)
        for stage, number in zip(solution.stages, instances(problem, solution.stages), strict=True)
    )
    single = ((d, 0) for d, kind in enumerate(problem.devices) if kind.count == 1)
    units = sorted({*work, *single})
    links = problem.links
    listed = [
        {
            "from": unit(problem, *a),
            "to": unit(problem, *b),
            "bandwidth_mbit_s": _mbit_s(occupied := float(links.occupied_ms_per_byte[a[0], b[0]])),
            "latency_ms": float(links.latency_ms[a[0], b[0]]),
            "forwarded_mbit_s": _mbit_s(float(links.ms_per_byte[a[0], b[0]]) - occupied),
        }
        for a in units
        for b in units
        if a != b and math.isfinite(links.latency_ms[a[0], b[0]]) and math.isfinite(links.ms_per_byte[a[0], b[0]])
    ]
    return {
        "devices": {unit(problem, *pair): dict(devices.get(problem.devices[pair[0]].name, {})) for pair in units},
        "links": listed,
        "source": problem.source,
        "sink": problem.sink,
    }
