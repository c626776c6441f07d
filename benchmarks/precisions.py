"""What do 8 bits gain, and is it foretold?

Whole models of the onnx package, with random weights in place of constant ones, in single precision and in 8 bits as
task=place place.variants=[int8] makes them, each in onnxruntime on one thread, in turns. Reference: the same model in
single precision; `gain` is its time over that of 8 bits (the best of all turns: beside other work both are longer), and
beside it stands the gain that the latency model which pepper ships predicts for a core of this machine. `error` is that
of place.max_error, on four random inputs.

    python -m benchmarks.precisions
    python -m benchmarks.precisions --models squeezenet --rounds 5
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.common import composed, print_table
from pepper.config.placing import Precision
from pepper.graph.characteristics import Characteristics
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.precisions import whole_as
from pepper.graph.rounding import Values, difference
from pepper.graph.running import open_whole, random_inputs
from pepper.hosts.local import here
from pepper.latency.features import Setting, rows
from pepper.latency.model import LatencyModel
from pepper.planning.settings import setting
from pepper.planning.shipped import FOLDER
from pepper.sweep.cells import Cell
from pepper.tracking.registry import MODEL_FOLDER

MODELS = ("squeezenet", "googlenet", "inception_v2", "resnet50", "densenet121", "shufflenet")
SAMPLES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="of the onnx package, by their options' names")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each model and precision (15)")
    given = parser.parse_args()
    latency_model = LatencyModel.load(FOLDER / MODEL_FOLDER)
    table = []
    for name in given.models:
        with tempfile.TemporaryDirectory() as folder:
            table.append([name, *line(name, latency_model, given.rounds, Path(folder))])
    print_table("8 bits against single precision", ("model", "fp32 ms", "int8 ms", "gain", "predicted", "error"), table)


def line(name: str, latency_model: LatencyModel, rounds: int, folder: Path) -> list[str]:
    """Measure and predict one model."""
    config = composed(f"model={name}", "device=share100", "load=idle")
    own = randomised(find_model(config.model).graph(), folder / "own.onnx")
    samples = [random_inputs(own, seed) for seed in range(SAMPLES)]
    whole = {Precision.fp32: own, Precision.int8: whole_as(own, Precision.int8, samples, folder)}
    best_ms = dict.fromkeys(whole, np.inf)
    runs = {precision: opened(graph.file) for precision, graph in whole.items()}
    for _ in range(rounds):
        for precision, run in runs.items():
            start = time.perf_counter()
            run(samples[0])
            best_ms[precision] = min(best_ms[precision], 1000 * (time.perf_counter() - start))
    spec = here().resolve(config.device)
    there = setting(Cell(config.model, None, spec, config.load, config.measure), here().calibrate(spec))
    predicted_ms = {precision: predicted(latency_model, graph, there) for precision, graph in whole.items()}
    gains = [times[Precision.fp32] / times[Precision.int8] for times in (best_ms, predicted_ms)]
    expected, got = open_whole(own, 1), open_whole(whole[Precision.int8], 1)
    error = max(
        difference(value, answer)
        for feeds in samples
        for value, answer in zip(expected(feeds).values(), got(feeds).values(), strict=True)
    )
    return [*(f"{value:.2f}" for value in (*best_ms.values(), *gains)), f"{error:.3f}"]


def randomised(graph: Graph, file: Path) -> Graph:
    """Write a model whose constant weights are random ones, of a size that keeps activations in bounds."""
    model, rng = onnx.ModelProto(), np.random.default_rng(0)
    model.CopyFrom(graph.proto)
    nodes = []
    for node in model.graph.node:
        tensor = graph.by_name.get(node.output[0]) if node.op_type == "ConstantOfShape" else None
        if tensor is None or tensor.shape is None or len(tensor.shape) < 2:
            nodes.append(node)
            continue
        values = rng.standard_normal(tensor.shape) / np.sqrt(np.prod(tensor.shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = max(model.ir_version, 4)
    onnx.save(model, str(file))
    return load_graph(file, {graph.tensors[t].name: graph.tensors[t].shape or () for t in graph.inputs})


def opened(file: Path) -> Callable[[Values], object]:
    """Open a model as a stage does: one thread, which does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    session.run(None, random_inputs(load_graph(file)))
    return lambda feeds: session.run(None, feeds)


def predicted(latency_model: LatencyModel, graph: Graph, there: Setting) -> float:
    """Return the predicted mean time of a whole model (ms)."""
    part = Characteristics(graph).table([0], [len(graph.operators)])
    return float(latency_model.mean_ms(rows(part, there))[0])


if __name__ == "__main__":
    main()
