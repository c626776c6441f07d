"""The plan: what a placement decided, as a file that is enough to run it.

A plan speaks of devices by name and of boundaries by number and, when the model's cuts are known, by tensors,
so it can be read and run without the problem that it came from.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pepper.errors import PlacementError
from pepper.placement.chain import Solution
from pepper.placement.evaluate import evaluate, instances
from pepper.placement.problem import ChainProblem

SCHEMA = "pepper.plan"
VERSION = 1


@dataclass(frozen=True)
class PlannedPart:
    """One part and where it runs.

    Attributes:
        start: Boundary at which it begins.
        stop: Boundary at which it ends.
        device: Name of the device (or kind).
        instance: Which of the kind's devices, from 0.
        time_ms: Predicted time.
        memory_bytes: Memory.
        receive_ms: Predicted time of the transfer before it (0: none).
        receive_bytes: Bytes of that transfer.
        inputs: Names of the tensors that cross its first boundary, when known.
        outputs: Names of the tensors that cross its last boundary, when known.
    """

    start: int
    stop: int
    device: str
    instance: int
    time_ms: float
    memory_bytes: float
    receive_ms: float
    receive_bytes: float
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Parts on devices, and what that is predicted to cost.

    Attributes:
        model: Name or path of the model.
        objective: What was minimised.
        parts: The parts in order.
        source: Device at which the input arises, or None.
        sink: Device at which the output is wanted, or None.
        return_ms: Predicted time of the transfer to the sink.
        latency_ms: Predicted time of one request.
        period_ms: Predicted time between two results of the pipeline.
        sent_bytes: Bytes of one request over all links.
        bound_ms: No plan is below this in the objective.
        gap: Relative distance to the bound; 0 when proven optimal.
        solver: Which solver found it.
        provenance: Where the numbers come from (latency model, profiles); free-form, JSON values.
    """

    model: str
    objective: str
    parts: tuple[PlannedPart, ...]
    source: str | None
    sink: str | None
    return_ms: float
    latency_ms: float
    period_ms: float
    sent_bytes: float
    bound_ms: float
    gap: float
    solver: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        problem: ChainProblem,
        solution: Solution,
        objective: str,
        model: str = "",
        tensors: tuple[tuple[str, ...], ...] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> "Plan":
        """Write down a solution.

        Args:
            problem: What was solved.
            solution: Its answer.
            objective: What was minimised.
            model: Name or path of the model.
            tensors: (n + 1) names of the tensors that cross each boundary.
            provenance: Where the numbers come from.
        """
        cost = evaluate(problem, solution.stages)
        numbers = instances(problem, solution.stages)
        parts = []
        for k, (stage, number) in enumerate(zip(solution.stages, numbers, strict=True)):
            hop = cost.hops[k]
            parts.append(
                PlannedPart(
                    start=stage.start,
                    stop=stage.stop,
                    device=problem.devices[stage.device].name,
                    instance=number,
                    time_ms=cost.stage_ms[k],
                    memory_bytes=cost.stage_bytes[k],
                    receive_ms=hop.time_ms if hop else 0.0,
                    receive_bytes=hop.sent_bytes if hop else 0.0,
                    inputs=tensors[stage.start] if tensors else (),
                    outputs=tensors[stage.stop] if tensors else (),
                )
            )
        last = cost.hops[-1]
        return cls(
            model=model,
            objective=objective,
            parts=tuple(parts),
            source=problem.source,
            sink=problem.sink,
            return_ms=last.time_ms if last else 0.0,
            latency_ms=cost.latency_ms,
            period_ms=cost.period_ms,
            sent_bytes=cost.sent_bytes,
            bound_ms=solution.bound,
            gap=solution.gap,
            solver=solution.solver,
            provenance=provenance or {},
        )

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = {"schema": SCHEMA, "version": VERSION, **asdict(self)}
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan.

        Raises:
            PlacementError: If the file is missing, is no plan, or has a version or content that is not known.
        """
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise PlacementError(f"{path}: cannot be read ({error.strerror}); give a plan.json") from error
        except json.JSONDecodeError as error:
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
        except (KeyError, TypeError) as error:
            raise PlacementError(f"{path}: incomplete plan ({error}); place the model again") from error
        ends = [0, *(part.stop for part in plan.parts)]
        if not plan.parts or [part.start for part in plan.parts] != ends[:-1]:
            raise PlacementError(f"{path}: the parts do not follow one another; place the model again")
        if any(not math.isfinite(part.time_ms) or part.time_ms < 0 for part in plan.parts):
            raise PlacementError(f"{path}: a part's time_ms is negative or missing; place the model again")
        return plan
