"""Proof that parts compute what the whole does: both run on the same inputs, and are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from pepper.errors import ModelError
from pepper.graph import source
from pepper.graph.external import external_files, named_from_root
from pepper.graph.given import input_specs
from pepper.graph.inputs import InputSpec, draw_inputs, drawn_hint
from pepper.graph.ir import Graph
from pepper.graph.split import Manifest

Values = dict[str, Any]
"""Arrays by tensor name (lists of arrays for sequences)."""


_COARSE = {"float16", "bfloat16", "int8", "uint8"}


@dataclass(frozen=True)
class Verification:
    """How far the parts' outputs are from the whole's.

    Attributes:
        difference: Largest absolute difference over all outputs, each divided by the largest magnitude in
            the whole's output (at least 1e-6); infinite if shapes, types or the places of NaN differ.
        output: The model output where it is largest.
        boundary: If it is beyond the tolerance: the first crossing tensor, in the order in which the parts
            write them, that diverges; the output itself if none does.
        tolerance: The largest difference accepted.
    """

    difference: float
    output: str
    boundary: str | None
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the parts compute what the whole does."""
        return self.difference <= self.tolerance


def verify(
    graph: Graph, manifest: Manifest, folder: Path, tolerance: float | None = None, seed: int = 0, threads: int = 0
) -> Verification:
    """Run the whole model and its parts on the same random inputs and compare their outputs.

    Args:
        graph: The whole model, at the shapes to run.
        manifest: What `pepper.graph.split.split` returned.
        folder: Where the parts are.
        tolerance: The largest relative difference accepted, see `Verification.difference`; None means
            1e-4, or 2e-2 where half-precision or 8-bit tensors flow: fusion across a border decides where
            these are rounded.
        seed: Seed of the inputs.
        threads: Threads of each session; 0 means one a core.

    Raises:
        ModelError: onnxruntime cannot run the whole or a part.
    """
    if tolerance is None:
        tolerance = default_tolerance(graph)
    feeds = random_inputs(graph, seed)
    outputs = [graph.tensors[t].name for t in graph.outputs]
    expected = run_whole(graph, feeds, threads)
    values = run_parts(manifest, folder, feeds, threads)
    differences = {name: difference(expected[name], values[name]) for name in outputs}
    worst = max(outputs, key=differences.__getitem__)
    boundary = None
    if differences[worst] > tolerance:
        crossing = [spec.name for part in manifest.parts for spec in part.outputs if spec.name not in outputs]
        whole = _with_outputs(graph.proto, [spec for part in manifest.parts for spec in part.outputs])
        inner = _run(whole, graph.file, feeds, crossing, threads)
        far = (name for name in crossing if difference(inner[name], values[name]) > tolerance)
        boundary = next(far, worst)
    return Verification(differences[worst], worst, boundary, tolerance)


def default_tolerance(graph: Graph) -> float:
    """Return the largest relative difference that is accepted where none is given, see `verify`."""
    flowing = {tensor.dtype for tensor in graph.tensors if not tensor.is_weight}
    return 2e-2 if flowing & _COARSE else 1e-4


def run_whole(graph: Graph, feeds: Mapping[str, Any], threads: int = 0) -> Values:
    """Run the whole model once; returns its outputs by name."""
    model = graph.proto if external_files(graph.proto, graph.file) else graph.file
    try:
        return _run(model, graph.file, feeds, [graph.tensors[t].name for t in graph.outputs], threads)
    except ModelError as error:
        raise ModelError(f"{error}{drawn_hint(specs_of(graph))}") from error


def run_parts(manifest: Manifest, folder: Path, feeds: Mapping[str, Any], threads: int = 0) -> Values:
    """Run the parts one after the other; returns every tensor fed or given, by name."""
    values = dict(feeds)
    for part in manifest.parts:
        wanted = [spec.name for spec in part.outputs]
        fed = {spec.name: values[spec.name] for spec in part.inputs}
        values.update(_run(folder / part.file, folder / part.file, fed, wanted, threads))
    return values


def random_inputs(graph: Graph, seed: int = 0) -> Values:
    """Return a value for each input: the given ones, the others drawn as the timed worker does.

    Raises:
        ModelError: A given value does not fit, or an input is of a type or shape that cannot be drawn.
    """
    return dict(draw_inputs(specs_of(graph), seed))


def specs_of(graph: Graph) -> tuple[InputSpec, ...]:
    """Say how each input of a graph is fed.

    Raises:
        ModelError: As above.
    """
    inputs = (graph.tensors[t] for t in graph.inputs)
    shapes = {tensor.name: tensor.shape for tensor in inputs if tensor.shape is not None}
    return input_specs(graph.proto.graph, shapes, graph.given)


def difference(expected: Any, got: Any) -> float:
    """Largest difference relative to the largest magnitude expected; see `Verification.difference`."""
    if isinstance(expected, list):
        if not isinstance(got, list) or len(expected) != len(got):
            return float("inf")
        return max((difference(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    expected, got = np.asarray(expected), np.asarray(got)
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return float("inf")
    if expected.dtype.kind not in "fiubc":
        return 0.0 if np.array_equal(expected, got) else float("inf")
    wide = np.result_type(expected.dtype, np.float64)
    a, b = expected.astype(wide), got.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
        return float("inf")
    scale = np.abs(a[np.isfinite(a)]).max(initial=1e-6)
    return float(np.abs(a - b)[~same].max() / scale)


def _with_outputs(proto: onnx.ModelProto, specs: Sequence[source.TensorSpec]) -> onnx.ModelProto:
    """Return the model with inner tensors among its outputs; it shares no state with the original."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    known = {value.name for value in model.graph.output}
    for spec in specs:
        if spec.name not in known:
            model.graph.output.add(name=spec.name)
    return model


def _run(
    model: Path | onnx.ModelProto, file: Path, feeds: Mapping[str, Any], outputs: Sequence[str], threads: int
) -> Values:
    """Run a model once; its external weights lie beside ``file``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    options.intra_op_num_threads = threads
    content: bytes | str = str(model)
    if isinstance(model, onnx.ModelProto):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/")
        content = named_from_root(model, file).SerializeToString()
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return dict(zip(outputs, session.run(list(outputs), dict(feeds)), strict=True))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{file}: onnxruntime cannot run it: {reason}") from error
