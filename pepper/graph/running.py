"""Models and parts in onnxruntime: what goes in by name, and what comes out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from pepper.errors import ModelError
from pepper.graph.external import external_files, named_from_root
from pepper.graph.given import input_specs
from pepper.graph.inputs import InputSpec, draw_inputs, drawn_hint
from pepper.graph.ir import Graph
from pepper.graph.manifest import Manifest
from pepper.graph.rounding import Level, Opened, Values

_LEVELS: dict[Level, Any] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def run_whole(graph: Graph, feeds: Mapping[str, Any], threads: int = 0) -> Values:
    """Run the whole model once; returns its outputs by name."""
    return open_whole(graph, threads)(feeds)


def run_parts(manifest: Manifest, folder: Path, feeds: Mapping[str, Any], threads: int = 0) -> Values:
    """Run the parts one after the other; returns every tensor fed or given, by name."""
    values = dict(feeds)
    for part in manifest.parts:
        run = Session(folder / part.file, folder / part.file, [spec.name for spec in part.outputs], threads)
        values.update(run({spec.name: values[spec.name] for spec in part.inputs}))
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


def open_whole(graph: Graph, threads: int, level: Level = "all", outputs: Sequence[str] = ()) -> Opened:
    """Load the whole model; where inner tensors are wanted, those in place of its outputs."""
    model: onnx.ModelProto | Path = graph.file
    if outputs or external_files(graph.proto, graph.file):
        model = graph.proto
    if outputs:
        model = showing(graph.proto, outputs)
    names = outputs or [graph.tensors[t].name for t in graph.outputs]
    session = Session(model, graph.file, names, threads, level)

    def run(feeds: Mapping[str, Any]) -> Values:
        try:
            return session(feeds)
        except ModelError as error:
            raise ModelError(f"{error}{drawn_hint(specs_of(graph))}") from error

    return run


def showing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of the model whose outputs are these tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


class Session:
    """A model in onnxruntime; its external weights lie beside ``file``."""

    def __init__(
        self,
        model: Path | onnx.ModelProto,
        file: Path,
        outputs: Sequence[str],
        threads: int,
        level: Level = "all",
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong comes as an exception
        options.intra_op_num_threads = threads
        options.graph_optimization_level = _LEVELS[level]
        content: bytes | str = str(model)
        if isinstance(model, onnx.ModelProto):
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/")
            content = named_from_root(model, file).SerializeToString()
        self._file, self._outputs = file, list(outputs)
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise self._refused(error) from error

    def __call__(self, feeds: Mapping[str, Any]) -> Values:
        """Run it; returns its outputs by name."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> ModelError:
        return ModelError(f"{self._file}: onnxruntime cannot run it: {' '.join(str(error).split())[:300]}")
