"""What a file says of its operators, held against the operator sets: the attributes that all that follows relies on."""

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


def _check(node: onnx.NodeProto, versions: Mapping[str, int], file: Path) -> None:
    wanted = _attribute_types(node.op_type, node.domain, versions.get(node.domain, 0))
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
