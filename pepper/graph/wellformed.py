"""What a file says of its operators, held against the operator sets: the attributes that all that follows relies on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import onnx

from pepper.errors import ModelError

_FIELDS = {
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
}
_RUNS = {"If": {"then_branch", "else_branch"}, "Loop": {"body"}, "Scan": {"body"}}
_LEAST_INPUTS = {"If": 1, "Loop": 2, "Scan": 1}
_MOST_VERSION = 2**31 - 1
_TYPE_NUMBERS = dict(onnx.AttributeProto.AttributeType.items())
_TYPES = set(onnx.TensorProto.DataType.values())


def check_operators(proto: onnx.ModelProto, file: Path) -> None:
    """Make sure that attributes hold what their type says, and are of the type that the operator set gives them.

    Raises:
        ModelError: One does not, or an input or output is of an unknown element type.
    """
    for opset in proto.opset_import:
        if opset.version > _MOST_VERSION:
            raise ModelError(
                f"{file}: asks for version {opset.version} of the operator set {opset.domain[:80]!r}; export it again"
            )
    versions = {opset.domain: opset.version for opset in proto.opset_import}
    for node in _nodes([proto.graph.node]):
        _check(node, versions, file)
        if parameter := next((attribute for attribute in node.attribute if attribute.ref_attr_name), None):
            raise ModelError(
                f"{file}: attribute {parameter.name[:80]!r} of operator {node.name[:80]!r} ({node.op_type[:80]}) is a"
                " function's parameter, but the operator is in no function; export the model again"
            )
    for node in _nodes(function.node for function in proto.functions):
        _check(node, versions, file)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type not in _TYPES:
            raise ModelError(
                f"{file}: tensor {value.name[:80]!r} is of the unknown element type"
                f" {value.type.tensor_type.elem_type}; export the model again"
            )


def check_text(proto: onnx.ModelProto, file: Path) -> None:
    """Make sure that all names are text, and that no two inputs have one name.

    Raises:
        ModelError: One is not: protobuf then gives bytes; or two have.
    """
    names = [name for opset in proto.opset_import for name in (opset.domain,)]
    for function in proto.functions:
        names += [function.domain, function.name, *function.input, *function.output, *function.attribute]
    for node in _nodes((proto.graph.node, *(function.node for function in proto.functions))):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        for attribute in node.attribute:
            names += [attribute.name, attribute.ref_attr_name]
            if attribute.HasField("g"):
                names += _names(attribute.g)
    if not all(isinstance(name, str) for name in (*names, *_names(proto.graph))):
        raise ModelError(f"{file}: a name in it is no UTF-8 text (corrupt); export it again")
    inputs = Counter(value.name for value in proto.graph.input)
    if twice := [name for name, count in inputs.items() if count > 1]:
        raise ModelError(f"{file}: two inputs have the name {twice[0][:80]!r}; export it again")


def _names(graph: onnx.GraphProto) -> list[str]:
    """Names of a graph's tensors that stand apart from its operators, and of their symbolic sizes."""
    values = (*graph.input, *graph.output, *graph.value_info)
    names = [value.name for value in (*values, *graph.initializer)]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    return names + [dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim]


def _check(node: onnx.NodeProto, versions: Mapping[str, int], file: Path) -> None:
    wanted = _attribute_types(node.op_type, node.domain, versions.get(node.domain, 0))
    if missing := _RUNS.get(node.op_type, set()) & wanted.keys() - {attribute.name for attribute in node.attribute}:
        raise ModelError(
            f"{file}: operator {node.name[:80]!r} ({node.op_type}) has no {min(missing)}; export the model again"
        )
    if wanted and len(node.input) < _LEAST_INPUTS.get(node.op_type, 0):
        raise ModelError(f"{file}: operator {node.name[:80]!r} ({node.op_type}) has too few inputs; export it again")
    for attribute in node.attribute:
        if attribute.ref_attr_name:  # a function's parameter
            continue
        field = _FIELDS.get(attribute.type)
        if attribute.type != wanted.get(attribute.name, attribute.type) or (field and not attribute.HasField(field)):
            raise ModelError(
                f"{file}: attribute {attribute.name[:80]!r} of operator {node.name[:80]!r} ({node.op_type[:80]}) is"
                " not of the type that the operator takes; export the model again"
            )


def _nodes(groups: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    for nodes in groups:
        for node in nodes:
            yield node
            for attribute in node.attribute:
                bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                yield from _nodes(body.node for body in bodies)


@lru_cache(maxsize=4096)
def _attribute_types(kind: str, domain: str, version: int) -> dict[str, int]:
    """Types by attribute; empty where the operator set is not known here."""
    if version < 1:
        return {}
    try:
        schema = onnx.defs.get_schema(kind, version, domain)
    except onnx.defs.SchemaError:
        return {}
    # onnx's stubs know no names of its types
    return {name: _TYPE_NUMBERS[attribute.type.name] for name, attribute in schema.attributes.items()}  # type: ignore[attr-defined]
