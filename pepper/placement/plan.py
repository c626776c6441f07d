"""The plan: what a placement decided, as a file that is enough to run it.

A plan names its model, its devices and its links, and speaks of borders between parts by operator position and
by tensor, so it can be read and run without the problem that it came from.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pepper.errors import PlacementError
from pepper.placement.chain import Solution
from pepper.placement.evaluate import evaluate, instances, unit
from pepper.placement.problem import ChainProblem

SCHEMA = "pepper.plan"
VERSION = 3

_MODEL_KEYS = {"name", "path", "sha256", "input_shapes"}
_FLEET_KEYS = {"devices", "links", "source", "sink"}
_LINK_KEYS = {"from", "to", "bandwidth_mbit_s", "latency_ms", "forwarded_mbit_s"}


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
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise PlacementError(f"{path}: cannot be read ({error.strerror}); give a plan.json") from error
        except ValueError as error:
            raise PlacementError(f"{path}: not JSON ({error}); give a plan.json") from error
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise PlacementError(f"{path}: not a plan (schema is not {SCHEMA!r}); give a plan.json")
        version = content.pop("version", None)
        if version != VERSION:
            raise PlacementError(f"{path}: plan version {version!r}; this pepper reads version {VERSION}")
        try:
            parts = tuple(
                PlannedPart(**{**part, "inputs": tuple(part["inputs"]), "outputs": tuple(part["outputs"])})
                for part in content.pop("parts")
            )
            plan = cls(parts=parts, **content)
            fault = next(plan._faults(), None)
        except (AttributeError, KeyError, TypeError) as error:
            raise PlacementError(f"{path}: incomplete plan ({error}); place the model again") from error
        if fault is not None:
            raise PlacementError(f"{path}: {fault}; place the model again")
        return plan

    def _faults(self) -> Iterator[str]:
        """Say what a file that was edited, or cut off, got wrong; what comes later relies on what comes first."""
        for name in ("model", "fleet", "provenance", "rules"):
            if not isinstance(getattr(self, name), Mapping):
                yield f"{name} is no object"
        most = self.rules.get("max_parts")
        if not (most is None or (isinstance(most, int) and most > 0)):
            yield f"its rules' max_parts is {most!r}, no such number"
        pinned, excluded = self.rules.get("pinned", {}), self.rules.get("excluded", [])
        if not isinstance(pinned, Mapping) or not isinstance(excluded, list):
            yield "its rules' pinned is no object, or excluded no list"
        for device, span in pinned.items():
            if not (isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span)):
                yield f"its rules pin {span!r} to {device}, no first operator and the one behind the last"
        if self.model:
            yield from _lacking("model", self.model, _MODEL_KEYS)
            for key in ("name", "path", "sha256"):
                if not isinstance(self.model[key], str):
                    yield f"the model's {key} is {self.model[key]!r}, no text"
            shapes = self.model["input_shapes"]
            if not isinstance(shapes, Mapping) or not all(isinstance(shape, list) for shape in shapes.values()):
                yield f"the model's input_shapes are {shapes!r}, not a list of sizes by name"
        yield from _lacking("fleet", self.fleet, _FLEET_KEYS)
        devices, links = self.fleet["devices"], self.fleet["links"]
        if not isinstance(devices, Mapping) or not isinstance(links, list):
            yield "the fleet's devices are no object, or its links no list"
        for name in devices:
            if not _NAME.fullmatch(name):
                yield f"device {name!r} has a name with other than letters, digits, spaces and _.-"
        for link in links:
            yield from _lacking("a link", link, _LINK_KEYS)
            if not (isinstance(link["from"], str) and isinstance(link["to"], str)):
                yield f"a link leads from {link['from']!r} to {link['to']!r}, which are no names"
            for key, least in (("bandwidth_mbit_s", 1e-9), ("forwarded_mbit_s", 1e-9), ("latency_ms", 0.0)):
                if not (_is_number(link[key], least) or (link[key] is None and key != "latency_ms")):
                    yield f"the link from {link['from']} to {link['to']} has {key} {link[key]!r}"
        if self.objective not in ("latency", "throughput"):
            yield f"its objective is {self.objective!r}, neither latency nor throughput"
        for name in ("latency_ms", "period_ms", "return_ms", "sent_bytes", "bound_ms", "gap"):
            if not _is_number(getattr(self, name), -_ROUNDING if name == "gap" else 0.0):
                yield f"its {name} is {getattr(self, name)!r}, no such number"
        ends = [0, *(part.stop for part in self.parts)]
        if not self.parts or [part.start for part in self.parts] != ends[:-1]:
            yield "the parts do not follow one another"
        for part in self.parts:
            for name in ("time_ms", "pickup_ms", "receive_ms", "memory_bytes", "receive_bytes"):
                if not _is_number(getattr(part, name)):
                    yield f"a part's {name} is {getattr(part, name)!r}, no such number"
            if part.device not in devices:
                yield f"a part runs on {part.device!r}, which is not among the fleet's devices"


def is_plan(file: Path) -> bool:
    """Whether a file is a plan of this or an earlier pepper."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("schema") == SCHEMA


_ROUNDING = 1e-6
_NAME = re.compile(r"[\w. -]+(#\d+)?")
"""What MLflow takes as a part of a metric's name, and the number of a device of several equal ones."""


def _lacking(what: str, found: Mapping[str, Any], wanted: Collection[str]) -> Iterator[str]:
    missing = sorted(set(wanted) - set(found))
    if missing:
        yield f"{what} lacks {', '.join(missing)}"


def _is_number(value: Any, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf


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
