"""Inputs that are indices, such as token ids: how many places there are in what they index."""

from collections.abc import Iterator, Mapping, Sequence

import onnx

_KEEP_VALUES = {
    "Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Operators whose outputs hold values of their first inputs only (of all, where they join them)."""

_KEEP_SHAPES = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"}

_READ_BY_INDEX = {
    "Gather": ((1, 0),),
    "GatherElements": ((1, 0),),
    "ScatterElements": ((1, 0),),
    "GatherBlockQuantized": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4)),
}
"""By operator, which of its inputs are indices, and into which other input."""


def index_sizes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return, for each input whose values are seen to index an axis of known size, that size (the least, of several).

    Values are followed from an input through operators that keep them to those that read by index.

    Args:
        graph: The model's graph.
        shapes: The shapes of its inputs.
    """
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    known: dict[str, Sequence[int]] | None = None
    sizes: dict[str, int] = {}
    for name in shapes:
        for node, table, axis in _read_by(name, readers):
            known = _known_shapes(graph, shapes) if known is None else known
            shape = known.get(node.input[table])
            if shape is not None and -len(shape) <= axis < len(shape):
                size = shape[axis]
                sizes[name] = min(size, sizes.get(name, size))
    return sizes


def _read_by(
    name: str, readers: Mapping[str, Sequence[tuple[onnx.NodeProto, int]]]
) -> Iterator[tuple[onnx.NodeProto, int, int]]:
    """Yield operators that take a tensor's values for indices, with the place of what is indexed and the axis."""
    seen, waiting = {name}, [name]
    while waiting:
        for node, place in readers.get(waiting.pop(), ()):
            for index, table in _READ_BY_INDEX.get(node.op_type, ()):
                if place == index and table < len(node.input):
                    axes = (a.i for a in node.attribute if a.name in ("axis", "gather_axis"))
                    yield node, table, next(axes, 0)
            if node.op_type in _KEEP_VALUES and (place == 0 or node.op_type == "Concat"):
                fresh = [output for output in node.output if output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)


def _known_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return the shapes of inputs and weights, and of weights that are only converted."""
    known: dict[str, Sequence[int]] = dict(shapes)
    known.update((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer)
    known.update((sparse.values.name, tuple(sparse.dims)) for sparse in graph.sparse_initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            known.update((node.output[0], tuple(a.t.dims)) for a in node.attribute if a.name == "value")
        elif node.op_type in _KEEP_SHAPES and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    return known
