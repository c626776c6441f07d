"""A model as the configuration names it: its file, its identity and what to feed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.external import external_files
from pepper.graph.given import given_shapes, given_values, input_specs
from pepper.graph.inputs import InputSpec
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.parts import cut_part
from pepper.graph.sizes import concrete_shapes
from pepper.graph.source import content_hash, model_hash, read_proto, real_inputs, resolve_path


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file that is ready to be measured.

    Attributes:
        name: How runs and tables call it.
        file: Where it is.
        content_hash: SHA-256 (hex) of the file and its external weights.
        shapes: A fixed shape for every input.
        inputs: How every input is fed.
        given: The values that the user gives, by input name.
        inner_shapes: The shapes that the user gives of tensors that no rule can infer, by name.
        part_of: The model that it is a part of; None for a whole one.
        weight_files: Its external weights' files.
    """

    name: str
    file: Path
    content_hash: str
    shapes: dict[str, list[int]]
    inputs: tuple[InputSpec, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)
    inner_shapes: Mapping[str, list[int]] = field(default_factory=dict)
    part_of: "ModelFile | None" = None
    weight_files: tuple[Path, ...] = ()

    def graph(self) -> Graph:
        """Load it as a graph, at these shapes and values.

        Raises:
            ModelError: The file is no valid model.
        """
        return load_graph(self.file, {**self.shapes, **self.inner_shapes}, inputs=self.given)

    def described_inputs(self) -> dict[str, Any]:
        """Return what decides the inputs' values besides type, shape and seed, JSON-able."""
        found = {spec.name: spec.described() for spec in self.inputs}
        return {name: value for name, value in found.items() if value is not None}

    def given_values(self) -> dict[str, Any]:
        """Return the given values, JSON-able."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in self.given.items()}


def find_model(config: ModelConfig) -> ModelFile:
    """Check that the model can be read, give each of its inputs a fixed shape, and check the values given for them.

    Raises:
        ModelError: The file is missing or corrupt, a dynamic dimension has no value, a given value does not fit, or
            it has no such part.
    """
    file = resolve_path(config.path)
    proto = read_proto(file)
    given = given_values(config)
    written = {name for node in proto.graph.node for name in node.output}
    inner = {name: shape for name, shape in config.shapes.items() if name in written}
    outer = {name: shape for name, shape in config.shapes.items() if name not in written}
    inputs = real_inputs(proto.graph)
    shapes = concrete_shapes(inputs, {**given_shapes(inputs, given), **outer}, config.dims, config.batch)
    fed = input_specs(proto.graph, shapes, given)
    weight_files = external_files(proto, file)
    digest = content_hash([file, *weight_files])
    if config.part is None and config.grid is not None:
        raise ModelError(f"model.grid={config.grid}: does not say which of its parts; give model.part=N, from 0")
    whole = ModelFile(
        str(config.name), file.absolute(), digest, shapes, fed, given, inner, weight_files=_absolute(weight_files)
    )
    if config.part is None:
        return whole
    part = cut_part(whole.file, {**shapes, **inner}, digest, config.part, config.part_seed, config.grid)
    proto = read_proto(part.file)
    inputs = real_inputs(proto.graph)
    shapes = concrete_shapes(inputs, {}, {}, None)
    given = {spec.name: given[spec.name] for spec in inputs if spec.name in given}
    weight_files = external_files(proto, part.file)
    return ModelFile(
        name=f"{config.name}[{part.start}:{part.end}]",
        file=part.file.absolute(),
        content_hash=content_hash([part.file, *weight_files]),
        shapes=shapes,
        inputs=input_specs(proto.graph, shapes, given),
        given=given,
        part_of=whole,
        weight_files=_absolute(weight_files),
    )


def _absolute(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(file.absolute() for file in files)


def changed(model: ModelFile) -> str | None:
    """Return how a model's file is no more what it was when it was found; None if it is."""
    try:
        found = model_hash(model.file)
    except ModelError as error:
        return str(error)
    if found == model.content_hash:
        return None
    return (
        f"{model.file}: was changed meanwhile (sha256 {found[:12]}, before {model.content_hash[:12]}); measure it again"
    )


def load_configured(config: ModelConfig) -> Graph:
    """Load the configured model, whole, as a graph.

    Raises:
        ModelError: The file is no valid model, a dynamic dimension has no value, or a given value does not fit.
    """
    return load_graph(config.path, config.shapes, config.dims, config.batch, given_values(config))
