"""Models in other precisions than their own, with their inputs and outputs as they were.

8 bits: onnxruntime's own quantiser, with a scale for each channel of a weight, and a range for each activation that it
had on samples; QuantizeLinear and DequantizeLinear stand around each operator (QDQ), and all of them lie within the
model. Weights have a sign and activations have none: for this pair onnxruntime has kernels on every processor. Half
precision: onnxruntime's converter, with a Cast behind each input and before each output.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter

from pepper.config.placing import Precision
from pepper.errors import ModelError
from pepper.graph import source
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.manifest import Manifest, write_manifest
from pepper.graph.rounding import Values
from pepper.graph.running import run_parts
from pepper.graph.topology import sorted_nodes

_LEAST_OPSET = 13
"""From here on QuantizeLinear has a scale for each channel."""

_LEAST_IR = 4
"""From here on an initializer need not be an input, too."""

_IN_8_BITS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("Add", "Mul", "Relu", "Clip", "LeakyRelu"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Pad", "Resize"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
)
"""Products, and what can hand their 8 bits on. Probabilities and other functions of them stay as they are."""

_QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}

_SAID = 300
"""Most characters of a converter's reason."""


def whole_as(graph: Graph, precision: Precision, samples: Sequence[Values], folder: Path) -> Graph:
    """Return a whole model in another precision.

    Args:
        graph: The model, at the shapes to run.
        precision: Which.
        samples: Inputs by name: what activations are like.
        folder: Where its file goes.

    Raises:
        ModelError: It cannot be made, or nothing in it would differ.
    """
    if precision == Precision.int8 and any(operator.kind in _QUANTISERS for operator in graph.operators):
        raise _refused(graph.file, precision, "it holds QuantizeLinear or DequantizeLinear, so it is in 8 bits already")
    file = folder / f"{precision}.onnx"
    write_as(precision, graph.file, file, samples)
    shapes = {graph.tensors[t].name: graph.tensors[t].shape or () for t in graph.inputs}
    made = load_graph(file, shapes, inputs=graph.given)
    kinds = {operator.kind for operator in made.operators}
    if precision == Precision.int8 and kinds.isdisjoint(_QUANTISERS):
        raise _refused(graph.file, precision, f"it has none of the operators {', '.join(_IN_8_BITS[:4])}")
    return made


def parts_as(manifest: Manifest, folder: Path, precisions: Sequence[Precision], samples: Sequence[Values]) -> Manifest:
    """Replace parts of a split by the same parts in other precisions.

    Tensors between parts stay as they were, so a part of any precision reads what one of any other gives.

    Args:
        manifest: The split.
        folder: Where its files are.
        precisions: One for each part.
        samples: Inputs of the whole model by name: what activations are like.

    Returns:
        The manifest, which is written anew.

    Raises:
        ModelError: A part cannot be made.
    """
    if set(precisions) == {Precision.fp32}:
        return manifest
    runs = [run_parts(manifest, folder, feeds) for feeds in samples]
    parts = []
    for part, precision in zip(manifest.parts, precisions, strict=True):
        if precision != Precision.fp32:
            file, draft = folder / part.file, folder / f".{part.file}"
            fed = [{spec.name: run[spec.name] for spec in part.inputs} for run in runs]
            write_as(precision, file, draft, fed)
            draft.replace(file)
            if part.weights_file:
                (folder / part.weights_file).unlink()
            part = replace(part, sha256=source.content_hash([file]), weights_file=None, precision=precision)
        parts.append(part)
    manifest = replace(manifest, parts=tuple(parts))
    write_manifest(manifest, folder)
    return manifest


def write_as(precision: Precision, file: Path, out: Path, samples: Sequence[Values]) -> None:
    """Write a model in another precision.

    Args:
        precision: Which.
        file: The model's.
        out: Where to; all of its weights go into it.
        samples: Its inputs by name: what activations are like.

    Raises:
        ModelError: It cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="pepper-precision-") as scratch, _hushed():
        try:
            model = _WRITERS[precision](_readable(file), Path(scratch), samples)
            onnx.save_model(_tidied(model), str(out))
        except Exception as error:  # converters raise whatever comes
            raise _refused(file, precision, " ".join(str(error).split())[:_SAID]) from error


def _readable(file: Path) -> onnx.ModelProto:
    """Return a model as the converters take it: its weights are no inputs, its operator set is no old one."""
    model = onnx.load(str(file))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _LEAST_IR)
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), _LEAST_OPSET)
    return onnx.version_converter.convert_version(model, _LEAST_OPSET) if opset < _LEAST_OPSET else model


def _in_8_bits(model: onnx.ModelProto, scratch: Path, samples: Sequence[Values]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives one sample after the other, then None."""

        def __init__(self) -> None:
            self._left: Iterator[Values] = iter(samples)

        def get_next(self) -> Values | None:
            return next(self._left, None)

    for node in model.graph.node:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"  # the same, and there is one in 8 bits
    given, prepared, made = (scratch / name for name in ("given.onnx", "prepared.onnx", "made.onnx"))
    onnx.save_model(model, str(given))
    quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)  # folds normalizations into products
    model = onnx.load(str(prepared))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    onnx.save_model(model, str(prepared))
    quantize_static(
        str(prepared),
        str(made),
        Reader(),
        op_types_to_quantize=list(_IN_8_BITS),
        nodes_to_exclude=_kept(model),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(str(made))


def _kept(model: onnx.ModelProto) -> list[str]:
    """Return the names of convolutions that stay as they are: all in groups, where some groups have several channels.

    onnxruntime is slow at these in 8 bits, and turns what is left between 8-bit depthwise ones into 8 bits by itself.
    """
    per_group = {tensor.name: tensor.dims[1] for tensor in model.graph.initializer if len(tensor.dims) > 1}
    grouped = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and any(each.name == "group" and each.i > 1 for each in node.attribute)
    ]
    several = any(per_group.get(node.input[1], 1) > 1 for node in grouped)
    return [node.name for node in grouped] if several else []


def _in_halves(model: onnx.ModelProto, scratch: Path, samples: Sequence[Values]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return made


_WRITERS: dict[Precision, Callable[[onnx.ModelProto, Path, Sequence[Values]], onnx.ModelProto]] = {
    Precision.int8: _in_8_bits,
    Precision.fp16: _in_halves,
}


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the operators into an order in which they can run, and drop operator sets that none of them is of."""
    nodes = [node for node, _ in sorted_nodes(model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {node.domain for node in nodes} | {"", "ai.onnx"}
    kept = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what the converters log, and what onnxruntime does meanwhile, from the terminal: failures are raised."""
    import onnxruntime as ort

    logger = logging.getLogger()
    level: Any = logger.level
    logger.setLevel(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        logger.setLevel(level)
        ort.set_default_logger_severity(2)


def _refused(file: Path, precision: Precision, reason: str) -> ModelError:
    return ModelError(f"place.variants: {file} cannot be made {precision}: {reason}; leave {precision} out")
