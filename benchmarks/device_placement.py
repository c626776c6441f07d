"""Place the operators of DNN graphs on accelerators and CPUs, beside published optima and times.

Workloads and reference programs: Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph
Operators", NeurIPS 2020. Any file of their format is solved; those with a published reference get a ratio.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.dag.latency import solve_latency
from pepper.placement.dag.problem import DagProblem, DagSolution, Kind, Output, evaluate_dag
from pepper.placement.dag.throughput import solve_throughput


@dataclass(frozen=True)
class Reference:
    """What the authors' program reaches, and its time on a 2-core machine (None: not known)."""

    value: float
    seconds: float | None


SOLVERS: dict[str, Callable[[DagProblem, float], DagSolution]] = {
    "throughput": solve_throughput,
    "latency": solve_latency,
}

REFERENCES = {
    "throughput_layers_bert24": Reference(17.7899, 0.04),
    "throughput_layers_resnet50": Reference(33.7747, 0.14),
    "throughput_operators_bert_l-3": Reference(27.9186, 0.86),
    "latency_layers_bert24": Reference(100.219, None),
    "latency_layers_resnet50": Reference(4197.06, None),
}


def load_workload(path: Path) -> DagProblem:
    """Read a workload; see the README beside the files for the format.

    Contiguity holds for the forward part: a backward node shares its colour class, and so its device, with
    forward nodes. A colour class of backward nodes alone mirrors the backward edges, reversed.

    Raises:
        PlacementError: If a field is missing, or one source's edges differ in cost.
    """
    try:
        data = json.loads(path.read_text())
        nodes, edges = data["nodes"], data["edges"]
        index = {node["id"]: k for k, node in enumerate(nodes)}
        ends = [(index[edge["sourceId"]], index[edge["destId"]], float(edge["cost"])) for edge in edges]
        cpu_ms = np.array([float(node["cpuLatency"]) for node in nodes])
        accelerator_ms = np.array(
            [float(node["fpgaLatency"]) if node["supportedOnFpga"] else math.inf for node in nodes]
        )
        memory_bytes, accelerators = float(data["maxSizePerFPGA"]), int(data["maxFPGAs"])
        cpus = int(data["maxCPUs"])
    except (KeyError, json.JSONDecodeError) as error:
        raise PlacementError(f"{path}: not a placement workload ({error!r}); see the format's README") from error
    cost: dict[int, float] = {}
    readers: dict[int, set[int]] = {}
    for source, target, cost_ms in ends:
        if not math.isclose(cost.setdefault(source, cost_ms), cost_ms, abs_tol=1e-6):
            raise PlacementError(f"{path}: edges of node {nodes[source]['id']} differ in cost; make them equal")
        readers.setdefault(source, set()).add(target)
    group = np.array(_colours(nodes), dtype=np.int64)
    return DagProblem(
        kinds=(
            Kind("accelerator", accelerators, accelerator_ms, memory_bytes),
            Kind("cpu", cpus, cpu_ms, host=True),
        ),
        item_bytes=np.array([float(node.get("size", 0.0)) for node in nodes]),
        outputs=tuple(Output(w, tuple(sorted(r - {w})), cost[w]) for w, r in readers.items()),
        precedence=_precedence(nodes, [(a, b) for a, b, _ in ends], group.tolist()),
        group=group,
    )


def _colours(nodes: list[dict[str, Any]]) -> list[int]:
    """Number the colour classes; a node without one is alone."""
    numbers: dict[object, int] = {}
    keys = [("class", n["colorClass"]) if n.get("colorClass") is not None else ("node", n["id"]) for n in nodes]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _precedence(
    nodes: list[dict[str, Any]], edges: list[tuple[int, int]], group: list[int]
) -> tuple[tuple[int, int], ...]:
    backward = [bool(node.get("isBackwardNode", False)) for node in nodes]
    if all(backward):
        return tuple(edges)
    forward_groups = {g for g, back in zip(group, backward, strict=True) if not back}
    found = [(a, b) for a, b in edges if not backward[a] and not backward[b]]
    found += [(b, a) for a, b in edges if backward[a] and backward[b] and not {group[a], group[b]} <= forward_groups]
    return tuple(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=Path, required=True, help="directory of workloads, or one file")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds a problem (default: 60)")
    parser.add_argument(
        "--objective",
        choices=SOLVERS,
        help="default: latency for files whose name says so, else throughput",
    )
    args = parser.parse_args()
    files = sorted(args.workloads.glob("*.json")) if args.workloads.is_dir() else [args.workloads]
    if not files:
        parser.error(f"--workloads: no *.json in {args.workloads}")
    print(
        f"{'workload':<34}{'nodes':>6}{'devices':>9}{'value':>12}{'gap':>9}"
        f"{'reference':>11}{'ratio':>8}{'time s':>9}{'C++ s':>7}{'speed':>7}"
    )
    failed = False
    for path in files:
        objective = args.objective or ("latency" if "latency" in path.name else "throughput")
        try:
            print(row(path, objective, args.time_limit), flush=True)
        except PlacementError as error:
            failed = True
            print(f"{path.stem:<34}{error}", flush=True)
    print("value: largest load (throughput) or time of one request (latency); gap: proven distance to the")
    print("optimum; ratio: value over reference; time: reading, solving and checking; speed: C++ over pepper")
    raise SystemExit(failed)


def row(path: Path, objective: str, time_limit_s: float) -> str:
    begin = time.perf_counter()
    problem = load_workload(path)
    solution = SOLVERS[objective](problem, time_limit_s)
    cost = evaluate_dag(problem, solution.places)
    seconds = time.perf_counter() - begin
    checked = cost.latency_ms if objective == "latency" else cost.period_ms
    assert not cost.violations, cost.violations
    assert math.isclose(checked, solution.value), (checked, solution.value)
    counts = "+".join(str(kind.count) for kind in problem.kinds)
    gap = "proven" if solution.proven else f"{solution.gap:.2%}"
    line = f"{path.stem:<34}{problem.n_items:>6}{counts:>9}{solution.value:>12.6g}{gap:>9}"
    reference = REFERENCES.get(path.stem)
    if reference is None:
        return f"{line}{'':>11}{'':>8}{seconds:>9.3f}"
    line += f"{reference.value:>11.6g}{solution.value / reference.value:>8.4f}{seconds:>9.3f}"
    if reference.seconds is None:
        return line
    return f"{line}{reference.seconds:>7.2f}{reference.seconds / seconds:>6.1f}x"


if __name__ == "__main__":
    main()
