"""What splitting costs: the sum of the parts' median latencies over the whole's, on one thread.

Every model is cut into 2, 4 and 8 parts of nearly equal MACs, once at the borders that pepper prefers (those
that break no fusion) and once at the best balanced ones whatever they break. Whole and parts take turns, so
that drift hits both alike. A ratio of 1.00 means that parts cost nothing; transfers are not included.

    python -m benchmarks.split_overhead --models resnet50 squeezenet
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime as ort

from pepper.graph import balance
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import Cut, find_cuts
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.split import split
from pepper.graph.verify import random_inputs

LIGHT = "pkg://onnx/backend/test/data/light/light_{}.onnx"
MODELS = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"]
MODELS += ["shufflenet", "squeezenet", "vgg19", "zfnet512"]


def session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def chain(files: list[Path], feeds: dict[str, Any]) -> list[Callable[[], object]]:
    """One call a part, each on the inputs that the parts before it give."""
    values = dict(feeds)
    calls: list[Callable[[], object]] = []
    for file in files:
        part = session(file)
        fed = {value.name: values[value.name] for value in part.get_inputs()}
        names = [value.name for value in part.get_outputs()]
        values.update(zip(names, part.run(names, fed), strict=True))
        calls.append(partial(part.run, names, fed))
    return calls


def ratio(whole: list[Callable[[], object]], parts: list[Callable[[], object]], seconds: float) -> float:
    """Sum of the parts' medians over the whole's, from interleaved rounds."""
    times: list[list[float]] = [[] for _ in (*whole, *parts)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for taken, call in zip(times, (*whole, *parts), strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in times]
    return sum(medians[1:]) / medians[0]


def choices(graph: Graph, parts: int) -> dict[str, list[Cut]]:
    macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
    cuts = find_cuts(graph)
    preferred = balance.balanced_cuts(graph, cuts, parts, macs)
    with mock.patch.object(balance, "breaks_fusion", return_value=False):
        return {"preferred": preferred, "any": balance.balanced_cuts(graph, cuts, parts, macs, slack=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seconds", type=float, default=3.0, help="timing per model, parts and choice of borders")
    arguments = parser.parse_args()
    columns = [f"{kind} {count}" for count in arguments.parts for kind in ("preferred", "any")]
    print(f"{'model':<14}" + "".join(f"{column:>14}" for column in columns) + "   fusions broken")
    for name in arguments.models:
        graph = load_graph(LIGHT.format(name))
        feeds = random_inputs(graph)
        whole = chain([graph.file], feeds)
        row, broken = "", []
        for count in arguments.parts:
            for cuts in choices(graph, count).values():
                with tempfile.TemporaryDirectory() as folder:
                    manifest = split(graph, cuts, Path(folder) / "parts")
                    parts = chain([Path(folder) / "parts" / part.file for part in manifest.parts], feeds)
                row += f"{ratio(whole, parts, arguments.seconds):>14.3f}"
                broken.append(str(sum(balance.breaks_fusion(graph, cut) for cut in cuts)))
        print(f"{name:<14}{row}   {' '.join(broken)}", flush=True)


if __name__ == "__main__":
    main()
