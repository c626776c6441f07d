"""The reader of published workloads: colour classes, backward nodes, and files that are none."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pepper.errors import PlacementError
from pepper.placement.dag.throughput import solve_throughput

PATH = Path(__file__).parents[2] / "benchmarks" / "device_placement.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("device_placement", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def training_graph() -> dict[str, Any]:
    """Forward 1 -> 2, backward 12 -> 13 -> 11; node 13 has no forward node."""
    colours = {1: 1, 2: 2, 12: 2, 13: 3, 11: 1}
    nodes = [
        {
            "id": k,
            "supportedOnFpga": k != 13,
            "cpuLatency": 10,
            "fpgaLatency": 1,
            "isBackwardNode": k > 10,
            "colorClass": colours[k],
            "size": 1,
        }
        for k in colours
    ]
    pairs = [(1, 2), (2, 12), (12, 13), (13, 11), (1, 11)]
    edges = [{"sourceId": a, "destId": b, "cost": 0.1 * a} for a, b in pairs]
    return {"maxSizePerFPGA": 10, "maxFPGAs": 2, "maxCPUs": 1, "nodes": nodes, "edges": edges}


def test_backward_nodes_follow_their_colour(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text(json.dumps(training_graph()))
    problem = benchmark.load_workload(path)
    # Items 0..4 are nodes 1, 2, 12, 13, 11; the orphan's edges are mirrored into the forward part.
    assert set(problem.precedence) == {(0, 1), (3, 2), (4, 3)}
    assert problem.group[0] == problem.group[4]
    assert problem.group[1] == problem.group[2]
    solution = solve_throughput(problem)
    assert solution.proven
    assert problem.kinds[solution.places[3][0]].name == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"nodes": [{"id": 1}]}, "not a placement workload"), ({"uneven": True}, "differ in cost")],
)
def test_bad_workload_is_one_clear_line(benchmark: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = training_graph() | change
    if "uneven" in change:
        content["edges"][0]["cost"] = 5.0
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PlacementError, match=message):
        benchmark.load_workload(path)
