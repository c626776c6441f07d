"""What a model needs of an onnxruntime that is to read it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from pepper.graph.source import read_proto
from pepper.graph.topology import bodies


@dataclass(frozen=True)
class Needs:
    """What a model is written in.

    Attributes:
        ir_version: Of the format.
        opsets: Versions of operator sets, by their domains; ONNX's own is the empty one.
        operators: Which are used, as ``DOMAIN:NAME``, but for those that the model brings itself (its functions).
    """

    ir_version: int
    opsets: dict[str, int]
    operators: tuple[str, ...]


def needs_of(file: Path) -> Needs:
    """Return what a model needs.

    Raises:
        ModelError: The file is no valid model.
    """
    proto = read_proto(file)
    given = {(function.domain, function.name) for function in proto.functions}
    used = {
        (node.domain, node.op_type) for node in _nodes([proto.graph.node, *(each.node for each in proto.functions)])
    }
    return Needs(
        proto.ir_version,
        {_domain(opset.domain): opset.version for opset in proto.opset_import},
        tuple(sorted(f"{_domain(domain)}:{name}" for domain, name in used - given)),
    )


def _nodes(lists: Iterable[Iterable[onnx.NodeProto]]) -> Iterable[onnx.NodeProto]:
    """Return nodes, with those in their bodies."""
    for nodes in lists:
        for node in nodes:
            yield node
            yield from _nodes(body.node for body in bodies(node))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
