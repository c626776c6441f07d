"""Weights as the file stores them: what a part of the model must carry, each counted once."""

from collections.abc import Sequence
from dataclasses import replace

import onnx

from pepper.graph.ir import Graph, Tensor, size_bytes
from pepper.graph.onnx_types import weight_type

_SHAPE_READERS = {"Shape", "Size"}


def stored_weights(graph: Graph) -> list[Tensor]:
    """Trace the weights that operators read to where they are stored.

    A weight that constants compute, such as a dequantised or transposed initializer, is stored as what it is
    computed from; one that ConstantOfShape or Constant makes counts as made. Shapes that were fixed at load
    are not weights.

    Returns:
        One tensor for each stored weight, its readers being all operators that read anything made of it.
    """
    sources = _sources(graph)
    found: dict[str, Tensor] = {}
    readers: dict[str, set[int]] = {}
    for tensor in graph.tensors:
        if tensor.is_weight and tensor.readers:
            stored = sources.get(tensor.name)
            for source in (tensor,) if stored is None else stored:
                found[source.name] = source
                readers.setdefault(source.name, set()).update(tensor.readers)
    merged = {name: tuple(sorted(numbers)) for name, numbers in readers.items()}
    return [t if t.readers == merged[name] else replace(t, readers=merged[name]) for name, t in found.items()]


def _sources(graph: Graph) -> dict[str, Sequence[Tensor] | None]:
    """The stored weights behind each computed one; None where one of unknown size stands for itself."""
    if not graph.makers:
        return {}
    initializers = {tensor.name: tensor for tensor in graph.proto.graph.initializer}
    sources: dict[str, Sequence[Tensor] | None] = {
        name: (_stored(name, *weight_type(tensor)),) for name, tensor in initializers.items()
    }
    for name, maker in graph.makers.items():
        known = graph.by_name.get(name)
        if maker.op_type in _SHAPE_READERS:
            sources[name] = ()
        elif maker.op_type == "Constant":
            sources[name] = (known or _constant(name, maker),)
        elif maker.op_type == "ConstantOfShape":
            made = known or _filled(name, maker, initializers.get(maker.input[0]))
            sources[name] = None if made is None else (made,)
        else:
            behind = [sources.get(given) for given in maker.input if given]
            if None in behind:
                sources[name] = None
            else:
                merged = {source.name: source for group in behind if group for source in group}
                sources[name] = tuple(merged.values())
    return sources


def _constant(name: str, node: onnx.NodeProto) -> Tensor:
    for attribute in node.attribute:
        if attribute.name == "value":
            return _stored(name, *weight_type(attribute.t))
    value = onnx.helper.get_attribute_value(node.attribute[0])
    dtype = "int64" if node.attribute[0].name.startswith("value_int") else "float"
    return _stored(name, dtype, (len(value),) if isinstance(value, list) else ())


def _filled(name: str, node: onnx.NodeProto, shape: onnx.TensorProto | None) -> Tensor | None:
    if shape is None or shape.data_location == onnx.TensorProto.EXTERNAL:
        return None
    dtype = "float"
    for attribute in node.attribute:
        dtype = weight_type(attribute.t)[0] or dtype
    return _stored(name, dtype, tuple(onnx.numpy_helper.to_array(shape).reshape(-1).tolist()))


def _stored(name: str, dtype: str | None, shape: tuple[int, ...] | None) -> Tensor:
    return Tensor(-1, name, dtype, shape, size_bytes(dtype, shape), True, None, ())
