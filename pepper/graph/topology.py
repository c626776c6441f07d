"""Nodes in an order in which each comes behind all that it reads."""

from collections.abc import Sequence

import onnx

from pepper.errors import ModelError

Nodes = Sequence[tuple[onnx.NodeProto, list[str]]]
"""Nodes in topological order, each with the names that its bodies read from outside."""


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs that the node runs: the branches of If, the body of Loop and Scan."""
    if not node.attribute:
        return []
    return [
        graph
        for attribute in node.attribute
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for graph in ([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs)
    ]


def captured_names(node: onnx.NodeProto) -> list[str]:
    """Names that the node's bodies, nested ones too, read from outside it, in order."""
    inside = bodies(node)
    if not inside:
        return []
    names: dict[str, None] = {}
    for graph in inside:
        local = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        local |= {sparse.values.name for sparse in graph.sparse_initializer}
        for inner in graph.node:
            for name in (*inner.input, *captured_names(inner)):
                if name and name not in local:
                    names[name] = None
            local.update(inner.output)
        names.update((value.name, None) for value in graph.output if value.name not in local)
    return list(names)


def sorted_nodes(graph: onnx.GraphProto) -> Nodes:
    """Return the nodes in topological order, the file's own where it is one.

    Raises:
        ModelError: A tensor is written twice or never, or the operators form a cycle.
    """
    ready = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    ready |= {sparse.values.name for sparse in graph.sparse_initializer}
    ready.add("")
    nodes = [(node, captured_names(node)) for node in graph.node]
    written: set[str] = set()
    for node, _ in nodes:
        for name in node.output:
            if name in written or (name in ready and name):
                raise ModelError(f"tensor {name!r} is written twice; export the model again")
            if name:
                written.add(name)
    for node, captures in nodes:
        for name in (*node.input, *captures):
            if name not in ready and name not in written:
                raise ModelError(f"{called(node)} reads {name!r}, which nothing writes; export the model again")
    for value in graph.output:
        if value.name not in ready and value.name not in written:
            raise ModelError(f"nothing writes the output {value.name!r}; export the model again")

    result: list[tuple[onnx.NodeProto, list[str]]] = []
    waiting: dict[str, list[int]] = {}
    missing = [0] * len(nodes)
    for index, (node, captures) in enumerate(nodes):
        needs = {name for name in (*node.input, *captures) if name not in ready}
        missing[index] = len(needs)
        for name in needs:
            waiting.setdefault(name, []).append(index)
        if needs:
            continue
        pending = [index]
        while pending:
            number = pending.pop()
            result.append(nodes[number])
            for name in nodes[number][0].output:
                ready.add(name)
                for reader in waiting.pop(name, ()):
                    missing[reader] -= 1
                    if not missing[reader]:
                        pending.append(reader)
    if len(result) < len(nodes):
        stuck = next(node for index, (node, _) in enumerate(nodes) if missing[index])
        raise ModelError(f"the operators form a cycle at or before {called(stuck)}; export it again")
    return result


def called(node: onnx.NodeProto) -> str:
    """Name a node in a message."""
    return f"operator {node.name!r} ({node.op_type})" if node.name else f"an unnamed {node.op_type}"
