"""Is a throttled device as slow as a slow processor with a fair scheduler, whatever runs beside the model on it?

Reference: the same model on the whole, idle core, measured before and after. A share s of it, beside a neighbour that
wants p % of the device, is to take 1/s / max(0.5, 1 - p/100) times as long on average: with a fair scheduler the
neighbour has what it wants, up to half.

The models are chains of convolutions as long as it takes here to last what is asked for.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import composed, print_table
from pepper.config import LoadConfig
from pepper.devices.cores import resolve
from pepper.errors import PepperError
from pepper.graph.model import find_model
from pepper.measure.launcher import Bench
from pepper.measure.profile import Profile

CHANNELS, SIZE = 32, 28
METHODS = ("suspend", "cgroup")


def chain(layers: int) -> onnx.ModelProto:
    """Return a model of as many 3x3 convolutions, one after the other."""
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, SIZE, SIZE]
    nodes, weights, name = [], [], "input"
    for layer in range(layers):
        weight = 0.06 * rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"weight{layer}"], [f"conv{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [name := f"relu{layer}"]))
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ("input", name)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer_ms(layers: int = 16, runs: int = 50) -> float:
    """Return what a layer takes on one core here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(chain(layers).SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"input": np.zeros((1, CHANNELS, SIZE, SIZE), np.float32)}
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return 1000 * median(times) / layers


def profiles(file: Path, share: float, method: str, percents: Sequence[float], seconds: float) -> list[Profile]:
    """Measure a model on a share of a core under each load."""
    config = composed(
        "model=onnx",
        f"model.path={file}",
        "device=share100",
        f"device.share={share}",
        f"device.throttle={method}",
        f"measure.min_seconds={seconds}",
        f"measure.max_seconds={2 * seconds}",
    )
    with Bench(find_model(config.model), resolve(config.device), config.measure, "pepper") as bench:
        return [bench.profile(LoadConfig(name=f"cpu{percent:g}", percent=percent)) for percent in percents]


def row(measured: Sequence[Profile], free_ms: float, share: float, percents: Sequence[float]) -> list[str]:
    """Return what each load did to the mean, against fair sharing, and whether it never fell."""
    cells, means_ms = [], []
    for percent, profile in zip(percents, measured, strict=True):
        mean_ms = profile.metrics["latency_mean_ms"]
        fair_ms = free_ms / share / max(0.5, 1 - percent / 100)
        cells.append(f"{mean_ms / fair_ms:.2f}{'' if profile.trusted else ' INVALID'}")
        if profile.trusted:
            half = (profile.metrics["latency_p50_high_ms"] - profile.metrics["latency_p50_low_ms"]) / 2
            means_ms.append((mean_ms, half))
    falls = [max(0.0, (last - e0) - (now + e1)) / last for (last, e0), (now, e1) in pairwise(means_ms)]
    return [*cells, f"{100 * max(falls, default=0.0):.1f} %"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths-ms", nargs="+", type=float, default=[1, 5, 30, 150], help="on the whole core")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75])
    parser.add_argument("--loads", nargs="+", type=float, default=[0, 25, 50, 75, 90], help="percent")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["suspend"])
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a cell")
    options = parser.parse_args()

    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        each_ms = layer_ms()
        for length_ms in options.lengths_ms:
            file = Path(folder) / f"chain{length_ms:g}.onnx"
            onnx.save(chain(max(1, round(length_ms / each_ms))), file)
            for method in options.methods:
                for share in options.shares:
                    try:
                        before = profiles(file, 1.0, "auto", [0.0], options.seconds)
                        measured = profiles(file, share, method, options.loads, options.seconds)
                        after = profiles(file, 1.0, "auto", [0.0], options.seconds)
                    except PepperError as error:
                        rows.append([f"{length_ms:g}", method, f"{share:g}", str(error)])
                        continue
                    free_ms = median(each.metrics["latency_mean_ms"] for each in (*before, *after))
                    cells = row(measured, free_ms, share, options.loads)
                    rows.append([f"{length_ms:g}", method, f"{share:g}", f"{free_ms:.3g}", *cells])
                    print(*rows[-1], file=sys.stderr)
    print_table(
        "mean slow-down over that of fair sharing, by what the neighbour wants of the device",
        ["asked ms", "method", "share", "whole core ms", *(f"{percent:g} %" for percent in options.loads), "fell by"],
        rows,
    )


if __name__ == "__main__":
    main()
