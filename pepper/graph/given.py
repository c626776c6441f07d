"""From configured values to a model's inputs: which values are given, what shapes they have, and what they index."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pepper.config import ModelConfig
from pepper.errors import ModelError, key_of, nearest
from pepper.graph.indices import index_sizes
from pepper.graph.inputs import InputSpec, input_spec, read_arrays
from pepper.graph.source import TensorSpec, real_inputs


def given_values(config: ModelConfig) -> dict[str, Any]:
    """Return the values that a configuration gives, by input name: those of its file, then its own.

    Raises:
        ModelError: The file cannot be read.
    """
    if config.inputs_file is None:
        return dict(config.inputs)
    try:
        arrays = read_arrays(Path(config.inputs_file).expanduser())
    except ValueError as error:
        raise ModelError(
            f"model.inputs_file={config.inputs_file}: cannot be read ({error}); give an .npz file of arrays by input"
            " name"
        ) from error
    return {**arrays, **config.inputs}


def given_shapes(inputs: Iterable[TensorSpec], given: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of given lists and arrays, where the model leaves an input's rank or dimensions open."""
    shapes = {}
    for spec in inputs:
        value = given.get(spec.name)
        fixed = spec.shape is not None and all(isinstance(size, int) for size in spec.shape)
        if isinstance(value, list | tuple | np.ndarray) and not fixed:
            try:
                shape = np.shape(value)
            except ValueError:  # lists of different lengths: refused where the value is looked at
                continue
            if spec.shape is None or len(shape) == len(spec.shape):
                shapes[spec.name] = list(shape)
    return shapes


def input_specs(
    graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]], given: Mapping[str, Any]
) -> tuple[InputSpec, ...]:
    """Say how each input of a model is fed.

    Args:
        graph: The model's graph.
        shapes: A fixed shape for every input that is a tensor.
        given: Values by input name, see `pepper.graph.inputs.input_spec`.

    Raises:
        ModelError: There is no such input, or a value does not fit it.
    """
    inputs = real_inputs(graph)
    check_names(inputs, given)
    sizes = index_sizes(graph, shapes)
    return tuple(
        input_spec(spec.name, spec.dtype, shapes.get(spec.name, ()), given.get(spec.name), sizes.get(spec.name))
        for spec in inputs
    )


def check_names(inputs: Sequence[TensorSpec], given: Mapping[str, Any]) -> None:
    """Make sure that values are given for inputs only.

    Raises:
        ModelError: There is no such input.
    """
    known = [spec.name for spec in inputs]
    for name in given:
        if name not in known:
            raise ModelError(
                f"{key_of('model.inputs', name)}: the model has no such input{nearest(str(name), known)}"
                f" (inputs: {', '.join(known) or 'none'})"
            )
