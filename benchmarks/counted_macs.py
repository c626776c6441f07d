"""Multiply-accumulates of a model as it really runs, counted from the shapes that onnxruntime's profiler saw.

Nothing of pepper's graph analysis is used: the profiler says which operators ran, those of the branches taken and of
every trip of a loop included, and the shapes of what each read and wrote. Counted are what `pepper.graph.cost_rules`
promises to count, products of matrices, by the operators' definitions.
"""

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

Shapes = Sequence[Sequence[int]]
Count = Callable[[Shapes, Shapes], int]


def _into(weight: int) -> Count:
    """Each element written is a sum over one filter; quantised convolutions hold it after scale and zero point."""
    return lambda read, written: math.prod(written[0]) * math.prod(read[weight][1:])


def _out_of(read: Shapes, _: Shapes) -> int:
    return math.prod(read[0]) * math.prod(read[1][1:])


def _rows(read: Shapes, written: Shapes) -> int:
    """Each element written is a sum over the last axis of the first operand."""
    return math.prod(written[0]) * read[0][-1]


def _gemm(read: Shapes, written: Shapes) -> int:
    """The first operand may be transposed: it holds as many elements either way."""
    return math.prod(read[0]) * written[0][1]


def _recurrent(read: Shapes, _: Shapes) -> int:
    """Every step of every sequence meets both weights once."""
    return math.prod(read[0][:2]) * (math.prod(read[1]) + math.prod(read[2]))


COUNTS: Mapping[str, Count] = {
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), _into(1)),
    "QLinearConv": _into(3),
    "ConvTranspose": _out_of,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul"), _rows),
    **dict.fromkeys(("MatMulIntegerToFloat", "MatMulNBits"), _rows),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _gemm),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
}
"""MACs of an operator from the shapes of what it read and wrote, by type."""

UNCOUNTED = ("Einsum", "Attention", "MultiHeadAttention", "GroupQueryAttention", "FusedMatMul", "DFT", "STFT")
"""Operators that multiply, too, but by more than their shapes: a model with one is not counted."""


def counted_macs(file: Path, feeds: Mapping[str, Any]) -> tuple[int, Counter[str]]:
    """Run a model once, unoptimised, and count.

    Args:
        file: The model.
        feeds: Its inputs, by name.

    Returns:
        MACs, and how often an operator of each type ran.

    Raises:
        LookupError: An operator that multiplies is not counted here.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_profiling = True
    options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights have no shape to see
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "run")
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    ran: Counter[str] = Counter()
    macs = 0
    for event in events:
        if not event["name"].endswith("_kernel_time"):
            continue
        kind, said = event["args"]["op_name"], event["args"]
        ran[kind] += 1
        if kind in UNCOUNTED:
            raise LookupError(f"{kind} is not counted")
        if kind in COUNTS:
            macs += COUNTS[kind](_shapes(said["input_type_shape"]), _shapes(said["output_type_shape"]))
    return macs, ran


def _shapes(said: Sequence[Mapping[str, Sequence[int]]]) -> list[Sequence[int]]:
    """The profiler writes each tensor as ``{type: shape}``."""
    return [next(iter(tensor.values())) for tensor in said]
