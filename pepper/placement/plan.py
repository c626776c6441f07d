"""The plan: what a placement decided, as a file that is enough to run it.

A plan names its model, its devices and its links, and speaks of borders between parts by operator position and
by tensor, so it can be read and run without the problem that it came from. Its file is these classes as JSON; its
schema is made from them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from annotated_types import Ge, Le, MinLen

from pepper.config.placing import PlanGraph, Precision
from pepper.documents import first_fault, parse_json, read_json
from pepper.errors import ConfigError, PlacementError
from pepper.fleet import Fleet
from pepper.placement.accuracy import Accuracy
from pepper.placement.chain import Solution
from pepper.placement.evaluate import CostedParts, Stages, evaluate, instances, unit
from pepper.placement.objectives import OBJECTIVES, Objective
from pepper.placement.plan_fleet import planned_fleet
from pepper.placement.plan_values import MOST_WHOLE, Amount, Rounded, Text, Whole
from pepper.placement.problem import ChainProblem

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "pepper.plan"
VERSION = 5
_BEFORE = (3, 4)
"""Versions that are read, too: all parts are in the model's own precision, and 3 has empty objects where there is
nothing."""


@dataclass(frozen=True)
class PlannedModel:
    """The model of a plan.

    Attributes:
        name: How runs and tables call it.
        path: The file, or where a package has it.
        sha256: Of the file and its external weights.
        input_shapes: By the input's name.
        inner_shapes: Shapes that were given for tensors inside, by name.
        inputs: Values that were given for inputs, by name, as ``model.inputs`` takes them.

    Raises:
        ValueError: The path is none.
    """

    name: Text
    path: Text
    sha256: Text
    input_shapes: Mapping[Text, tuple[Whole, ...]]
    inner_shapes: Mapping[Text, tuple[Whole, ...]] = field(default_factory=dict)
    inputs: Mapping[Text, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "\0" in self.path:
            raise ValueError("path holds a NUL")


@dataclass(frozen=True)
class PlanRules:
    """What the next plan must keep to, too, when a device is lost or loads change.

    Attributes:
        pinned: By device, the positions of the first operator that must stay there and of the one behind the last.
        excluded: Devices that get no part.
        max_parts: Most parts; None is one a device.
    """

    pinned: Mapping[str, tuple[Whole, Whole]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    max_parts: Annotated[int, Ge(1), Le(MOST_WHOLE)] | None = None


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
        energy_j: Predicted energy of a request above idle; None where its device's power is not known.
        moved_ms: Of `time_ms`, what its inputs take into an accelerator's memory, and its outputs back.
        precision: What it computes in; its inputs and outputs are those of the model in any.
        receive_ms: Predicted time of the transfer before it (0: none).
        receive_bytes: Bytes of that transfer.
        inputs: Names of the tensors that cross its first border, when known.
        outputs: Names of the tensors that cross its last border, when known.
        begin_ms: When its inference begins in one request, where parts run side by side; None in a chain.
    """

    start: Whole
    stop: Whole
    device: str
    time_ms: Amount
    pickup_ms: Amount
    memory_bytes: Amount
    receive_ms: Amount
    receive_bytes: Amount
    inputs: tuple[Text, ...] = ()
    outputs: tuple[Text, ...] = ()
    begin_ms: Amount | None = None
    energy_j: Amount | None = None
    moved_ms: Amount = 0.0
    precision: Precision = Precision.fp32


@dataclass(frozen=True)
class Origin:
    """What a problem of numbers stands for: the model and the devices behind it.

    Attributes:
        model: The model; None where the problem came from no model.
        fleet: What each device (or kind) of the problem is, by name; None likewise.
        positions: (n + 1) operators before each boundary; the boundary's own number where not given.
        tensors: (n + 1) names of the tensors that cross each boundary.
        provenance: As of the plan.
        rules: As of the plan.
        precisions: What the forms of the problem's parts are.
        accuracies: As of the plan, by solution, of those with parts in other precisions than the model's own.
    """

    model: PlannedModel | None = None
    fleet: Fleet | None = None
    positions: Sequence[int] = ()
    tensors: Sequence[tuple[str, ...]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rules: PlanRules = field(default_factory=PlanRules)
    precisions: Sequence[Precision] = (Precision.fp32,)
    accuracies: Mapping[Stages, Accuracy] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Parts on devices, and what that is predicted to cost.

    Attributes:
        model: The model; None where the plan came from numbers alone.
        fleet: The devices. Of a kind of several equal ones it lists those at work, as ``name#0``, ``name#1``, ...
        objective: Name of what was minimised.
        parts: The parts in order.
        return_ms: Predicted time of the transfer to the sink.
        latency_ms: Predicted mean time of one request.
        period_ms: Predicted time between two results of the pipeline.
        sent_bytes: Bytes of one request over all links.
        bound_ms: No plan is below this in the objective; in joules where energy is minimised.
        gap: Relative distance to the bound; 0 when proven optimal.
        solver: Which solver found it.
        provenance: Where the numbers come from (latency model, profiles), by what it is.
        rules: What later plans must keep to, too.
        goal: What was minimised, where its name alone does not say it.
        graph: ``chain``: each part hands on to the next one. ``dag``: each hands what it gives straight to those that
            read it, and starts as soon as what it reads is there; its received transfers are several then.
        links_j: Energy of one request over all links, as far as they state one.
        accuracy: How far its answers may lie from the model's own; None where that is what rounding explains.

    Raises:
        ValueError: The parts do not follow one another, or their devices or the objective are not known.
    """

    model: PlannedModel | None
    fleet: Fleet
    objective: str
    parts: Annotated[tuple[PlannedPart, ...], MinLen(1)]
    return_ms: Amount
    latency_ms: Amount
    period_ms: Amount
    sent_bytes: Amount
    bound_ms: Amount
    gap: Rounded
    solver: Text
    provenance: Mapping[Text, Any] = field(default_factory=dict)
    rules: PlanRules = field(default_factory=PlanRules)
    goal: Objective | None = None
    graph: PlanGraph = PlanGraph.chain
    links_j: Amount = 0.0
    accuracy: Accuracy | None = None

    def __post_init__(self) -> None:
        if self.goal is None and self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r:.60}; use one of {', '.join(OBJECTIVES)}")
        if self.parts[0].start != 0 or any(after.start != before.stop for before, after in pairwise(self.parts)):
            raise ValueError("the parts do not follow one another")
        for part in self.parts:
            if part.device not in self.fleet.devices:
                raise ValueError(f"a part runs on {part.device!r:.60}, which is not among the fleet's devices")
            if part.stop <= part.start:
                raise ValueError("a part has no operators")

    @property
    def minimised(self) -> Objective:
        """What was minimised."""
        return self.goal or OBJECTIVES[self.objective]

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the parts' devices, in order."""
        return tuple(part.device for part in self.parts)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of the parts, in order."""
        return tuple(part.precision for part in self.parts)

    @property
    def part_count(self) -> int:
        """How many parts it has."""
        return len(self.parts)

    @property
    def energy_j(self) -> float:
        """Predicted energy of one request above idle; infinite where a device's power is not known."""
        return self.known_j if not self.unmeasured else math.inf

    @property
    def known_j(self) -> float:
        """The same of the links and those devices whose power is known."""
        return self.links_j + sum(part.energy_j for part in self.parts if part.energy_j is not None)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Devices with parts whose power is not known."""
        return tuple(dict.fromkeys(part.device for part in self.parts if part.energy_j is None))

    @property
    def title(self) -> str:
        """What runs where, in a line."""
        return f"{self.model.name if self.model else 'numbers'} on {' - '.join(self.devices)}"

    @classmethod
    def of(cls, problem: ChainProblem, solution: Solution, objective: Objective, origin: Origin | None = None) -> Self:
        """Write down a solution.

        Args:
            problem: What was solved.
            solution: Its answer.
            objective: What was minimised.
            origin: What the problem's numbers stand for.
        """
        cost = evaluate(problem, solution.stages)
        received = [(hop.time_ms, hop.sent_bytes) if hop else (0.0, 0.0) for hop in cost.hops]
        return cls.costed(problem, solution, objective, origin or Origin(), cost, received)

    @classmethod
    def costed(
        cls,
        problem: ChainProblem,
        solution: Solution,
        objective: Objective,
        origin: Origin,
        cost: CostedParts,
        received: Sequence[tuple[float, float]],
        begin_ms: Sequence[float] | None = None,
    ) -> Self:
        """Write down a solution whose cost is known.

        Args:
            problem: The steps and devices.
            solution: Its answer.
            objective: What was minimised.
            origin: What the problem's numbers stand for.
            cost: What its parts cost.
            received: Time and bytes of the transfers before each part, and last of those to the sink.
            begin_ms: When each part's inference begins, where parts run side by side; None in a chain.
        """
        numbers = instances(problem, solution.stages)
        positions = origin.positions or range(problem.n_steps + 1)
        parts = tuple(
            PlannedPart(
                start=positions[stage.start],
                stop=positions[stage.stop],
                device=unit(problem, stage.device, number),
                time_ms=cost.stage_ms[k],
                pickup_ms=cost.pickup_ms[k],
                memory_bytes=cost.stage_bytes[k],
                receive_ms=received[k][0],
                receive_bytes=received[k][1],
                inputs=origin.tensors[stage.start] if origin.tensors else (),
                outputs=origin.tensors[stage.stop] if origin.tensors else (),
                begin_ms=None if begin_ms is None else begin_ms[k],
                energy_j=cost.stage_j[k] if math.isfinite(cost.stage_j[k]) else None,
                moved_ms=problem.part_moved_ms(stage.start, stage.stop, stage.device),
                precision=origin.precisions[problem.part_form(stage.start, stage.stop, stage.device)],
            )
            for k, (stage, number) in enumerate(zip(solution.stages, numbers, strict=True))
        )
        return cls(
            model=origin.model,
            fleet=planned_fleet(problem, solution.stages, origin.fleet),
            objective=objective.name,
            parts=parts,
            return_ms=received[-1][0],
            latency_ms=cost.latency_ms,
            period_ms=cost.period_ms,
            sent_bytes=cost.sent_bytes,
            bound_ms=solution.bound,
            gap=solution.gap,
            solver=solution.solver,
            provenance=dict(origin.provenance),
            rules=origin.rules,
            goal=None if OBJECTIVES.get(objective.name) == objective else objective,
            graph=PlanGraph.chain if begin_ms is None else PlanGraph.dag,
            links_j=cost.links_j,
            accuracy=origin.accuracies.get(solution.stages),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a plan's file holds."""
        return {"schema": SCHEMA, "version": VERSION, **_adapter().dump_python(self, mode="json", by_alias=True)}

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
            content = read_json(path)
        except OSError as error:
            raise PlacementError(f"{path}: cannot be read ({error.strerror}); give a plan.json") from error
        except ValueError as error:
            raise PlacementError(f"{path}: not JSON that pepper reads ({error}); give a plan.json") from error
        return cls._checked(content, str(path))

    @classmethod
    def parse(cls, text: bytes, name: str) -> "Plan":
        """Read the content of a plan's file.

        Args:
            text: The content.
            name: How an error calls it.

        Raises:
            PlacementError: As of `load`.
        """
        try:
            content = parse_json(text)
        except ValueError as error:
            raise PlacementError(f"{name}: not JSON that pepper reads ({error}); give a plan.json") from error
        return cls._checked(content, name)

    @classmethod
    def _checked(cls, content: dict[str, Any], path: str) -> "Plan":
        from pydantic import ValidationError  # tenths of a second

        if content.pop("schema", None) != SCHEMA:
            raise PlacementError(f"{path}: not a plan (schema is not {SCHEMA!r}); give a plan.json")
        version = content.pop("version", None)
        if version in _BEFORE:
            content["model"] = content.get("model") or None
        elif version != VERSION:
            known = f"{', '.join(map(str, _BEFORE))} and {VERSION}"
            raise PlacementError(f"{path}: plan version {version!r:.40}; this pepper reads {known}")
        try:
            return _adapter().validate_json(json.dumps(content), strict=True, extra="forbid")
        except ValidationError as error:
            raise PlacementError(f"{path}: {first_fault(error)}; place the model again") from error
        except ConfigError as error:  # of a device or a load
            raise PlacementError(f"{path}: {error}") from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan's file."""
    made = _adapter().json_schema(by_alias=True)
    made["properties"] = {"schema": {"const": SCHEMA}, "version": {"const": VERSION}, **made["properties"]}
    made["required"] = ["schema", "version", *made["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


@cache
def _adapter() -> "TypeAdapter[Plan]":
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)


def is_plan(file: Path) -> bool:
    """Whether a file is a plan of this or an earlier pepper."""
    try:
        return file.is_file() and read_json(file).get("schema") == SCHEMA
    except (OSError, ValueError):
        return False
