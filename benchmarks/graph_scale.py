"""How analysis grows with the model: load, cuts and characteristics of graphs of 1,000 to 100,000 operators.

Two kinds of graph: a deep residual network, and a transformer whose mask every layer reads. The reference is
what ONNX itself needs: reading the file and inferring its shapes. A last line gives the peak memory of
analysing a model with 4 GB of external weights (a sparse file).

    python -m benchmarks.graph_scale
"""

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pepper.graph.characteristics import Characteristics, every_part
from pepper.graph.cuts import find_cuts
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph

WIDTH = 8


def residual(operators: int) -> onnx.ModelProto:
    """Blocks of Conv, BatchNormalization, Relu, Conv, BatchNormalization, Add, Relu; own weights each."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    x = "x"

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    def weight(*shape: int) -> str:
        weights.append(numpy_helper.from_array(np.ones(shape, np.float32), f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    while len(nodes) < operators:
        skip = x
        for last in (False, True):
            x = add("Conv", [x, weight(WIDTH, WIDTH, 3, 3)], pads=[1, 1, 1, 1])
            x = add("BatchNormalization", [x, *(weight(WIDTH) for _ in range(4))])
            x = add("Relu", [add("Add", [x, skip]) if last else x])
    return _model(nodes, weights, [("x", [1, WIDTH, 16, 16])], x)


def transformer(operators: int) -> onnx.ModelProto:
    """Layers of attention and feed-forward, shapes computed at run time as exporters write them."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    def weight(array: object, dtype: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array, dtype), f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    def dense(x: str, into: int, out: int) -> str:
        return add("Add", [add("MatMul", [x, weight(np.ones((into, out)))]), weight(np.ones(out))])

    def heads(x: str) -> str:
        length = add("Gather", [add("Shape", [x]), weight([1], np.int64)])
        shape = add("Concat", [weight([1], np.int64), length, weight([2, WIDTH // 2], np.int64)], axis=0)
        return add("Transpose", [add("Reshape", [x, shape])], perm=[0, 2, 1, 3])

    mask = add("Mul", ["mask", weight(-1e4)])
    x = "x"
    while len(nodes) < operators:
        q, k, v = (heads(dense(x, WIDTH, WIDTH)) for _ in range(3))
        scores = add("Add", [add("MatMul", [q, add("Transpose", [k], perm=[0, 1, 3, 2])]), mask])
        joined = add("Transpose", [add("MatMul", [add("Softmax", [scores]), v])], perm=[0, 2, 1, 3])
        joined = add("Reshape", [joined, weight([0, 0, WIDTH], np.int64)])
        x = add("LayerNormalization", [add("Add", [x, dense(joined, WIDTH, WIDTH)]), weight(np.ones(WIDTH))])
        x = add("Add", [x, dense(add("Relu", [dense(x, WIDTH, 4 * WIDTH)]), 4 * WIDTH, WIDTH)])
    return _model(nodes, weights, [("x", [1, 16, WIDTH]), ("mask", [1, 1, 1, 16])], x)


def external(file: Path, total_bytes: int) -> None:
    """A model whose external weights take ``total_bytes``, on a sparse file."""
    size, nodes, x = 16384, [], "x"
    model = _model([], [], [("x", [1, size])], f"t{total_bytes // (4 * size * size) - 1}")
    for number in range(total_bytes // (4 * size * size)):
        nodes.append(helper.make_node("MatMul", [x, f"w{number}"], [f"t{number}"]))
        tensor = model.graph.initializer.add(name=f"w{number}", dims=[size, size], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        offset = number * 4 * size * size
        for key, text in (("location", "weights.bin"), ("offset", offset), ("length", 4 * size * size)):
            tensor.external_data.add(key=key, value=str(text))
        x = f"t{number}"
    model.graph.node.extend(nodes)
    onnx.save(model, str(file))
    with file.with_name("weights.bin").open("wb") as stream:
        stream.truncate(total_bytes)


def _model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], inputs: list[tuple[str, list[int]]], output: str
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_alone(file: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(str(file)), data_prop=True)


def describe(graph: Graph) -> int:
    """Characteristics of every part between neighbouring cuts, and of all parts between 64 of them."""
    cuts = [cut.position for cut in find_cuts(graph, "frontiers") if cut.in_order]
    borders = [0, *cuts, len(graph.operators)]
    characteristics = Characteristics(graph)
    characteristics.table(borders[:-1], borders[1:])
    few = sorted({borders[int(place)] for place in np.linspace(0, len(borders) - 1, 64)})
    characteristics.table(*every_part(few))
    return len(cuts)


def timed(repeats: int, action: Callable[[], object]) -> float:
    """Least seconds of several runs."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def measure(kind: str, make: Callable[[int], onnx.ModelProto], sizes: list[int], repeats: int) -> None:
    header = ("graph", "operators", "onnx s", "load s", "cuts s", "parts s", "total s", "us/operator", "x onnx")
    print(("{:<12}" + "{:>11}" * (len(header) - 1)).format(*header))
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            file = Path(folder) / "model.onnx"
            onnx.save(make(size), str(file))
            graph = load_graph(file)
            count = len(graph.proto.graph.node)
            reference = timed(repeats, partial(onnx_alone, file))
            seconds = [
                timed(repeats, partial(load_graph, file)),
                timed(repeats, partial(find_cuts, graph)),
                timed(repeats, partial(describe, graph)),
            ]
            totals.append((count, sum(seconds)))
            row = (*seconds, sum(seconds), 1e6 * sum(seconds) / count, sum(seconds) / reference)
            print(f"{kind:<12}{count:>11,}{reference:>11.3f}" + "".join(f"{value:>11.3f}" for value in row))
    if len(totals) > 1:
        counts, seconds = np.log(np.array(totals)).T
        print(f"{kind}: time grows with operators to the power {np.polyfit(counts, seconds, 1)[0]:.2f}\n")


def peak_memory(total_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        external(file, total_bytes)
        command = [sys.executable, "-m", "benchmarks.graph_scale", "--analyse", str(file)]
        peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{total_bytes / 2**30:.0f} GiB of external weights: peak memory {peak / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000, 100_000])
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; the fastest counts")
    parser.add_argument("--analyse", type=Path, help="analyse one model and print the peak memory in KiB")
    arguments = parser.parse_args()
    if arguments.analyse:
        describe(load_graph(arguments.analyse))
        status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        return
    for kind, make in (("residual", residual), ("transformer", transformer)):
        measure(kind, make, arguments.sizes, arguments.repeats)
    peak_memory(4 * 2**30)


if __name__ == "__main__":
    main()
