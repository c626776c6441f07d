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
from pepper.graph.running import random_inputs
from pepper.graph.split import split

LIGHT = "pkg://onnx/backend/test/data/light/light_{}.onnx"
MODELS = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"]
MODELS += ["shufflenet", "squeezenet", "vgg19", "zfnet512"]


LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def session(file: Path, optimization: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[optimization]
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def chain(files: list[Path], feeds: dict[str, Any], optimization: str) -> list[Callable[[], object]]:
    """One call a part, each on the inputs that the parts before it give, outputs in memory kept for them."""
    values = dict(feeds)
    calls: list[Callable[[], object]] = []
    for file in files:
        part = session(file, optimization)
        fed = {value.name: values[value.name] for value in part.get_inputs()}
        names = [value.name for value in part.get_outputs()]
        values.update(zip(names, part.run(names, fed), strict=True))
        binding = part.io_binding()
        for name, array in fed.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name in names:
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(values[name]))
        calls.append(partial(part.run_with_iobinding, binding))
    return calls


def medians(
    whole: list[Callable[[], object]], parts: list[Callable[[], object]], seconds: float
) -> tuple[float, float]:
    """Median seconds of the whole, and the sum of the parts' medians, from interleaved rounds."""
    times: list[list[float]] = [[] for _ in (*whole, *parts)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for taken, call in zip(times, (*whole, *parts), strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    first, *others = [statistics.median(taken) for taken in times]
    return first, sum(others)


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
    parser.add_argument(
        "--optimization", choices=LEVELS, default="all", help="extended: without the blocked layout of convolutions"
    )
    arguments = parser.parse_args()
    columns = [f"{kind} {count}" for count in arguments.parts for kind in ("preferred", "any")]
    print(
        f"{'model':<14}" + "".join(f"{column:>14}" for column in columns) + "  whole ms  us per border   fusions broken"
    )
    for name in arguments.models:
        graph = load_graph(LIGHT.format(name))
        feeds = random_inputs(graph)
        whole = chain([graph.file], feeds, arguments.optimization)
        row, broken, border_us = "", [], []
        for count in arguments.parts:
            for cuts in choices(graph, count).values():
                with tempfile.TemporaryDirectory() as folder:
                    manifest = split(graph, cuts, Path(folder) / "parts")
                    parts = chain(
                        [Path(folder) / "parts" / part.file for part in manifest.parts], feeds, arguments.optimization
                    )
                alone, together = medians(whole, parts, arguments.seconds)
                row += f"{together / alone:>14.3f}"
                if len(parts) > 1:
                    border_us.append(1e6 * (together - alone) / (len(parts) - 1))
                broken.append(str(sum(balance.breaks_fusion(graph, cut) for cut in cuts)))
        print(
            f"{name:<14}{row}{1e3 * alone:>10.1f}{statistics.median(border_us):>14.0f}   {' '.join(broken)}", flush=True
        )


if __name__ == "__main__":
    main()
