"""Random small models, for property tests against brute force."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from hypothesis import strategies as st
from models import Builder, value

from pepper.graph.ir import Graph


@st.composite
def models(draw: st.DrawFn, most: int = 7) -> onnx.ModelProto:
    """Draw a model of up to ``most`` operators: several inputs and outputs, skips, dead ends, and operators
    with two outputs; any order of writing that is a valid one."""
    b = Builder(seed=draw(st.integers(0, 99)))
    inputs = [f"in{n}" for n in range(draw(st.integers(1, 3)))]
    known = list(inputs)
    for number in range(draw(st.integers(2, most))):
        kind = draw(st.sampled_from(["Tanh", "Add", "Add", "Split", "weighted"]))
        reach = known[-4:] if draw(st.booleans()) else known
        args = [draw(st.sampled_from(reach)) for _ in range(2 if kind == "Add" else 1)]
        if kind == "Split":
            halves = [f"half{number}a", f"half{number}b"]
            b.op("Split", b.op("Concat", *args, *args, axis=0), outputs=halves)
            known += halves
        elif kind == "weighted":
            known.append(b.op("Mul", *args, b.weight(3)))
        else:
            known.append(b.op(kind, *args))
    written = [name for name in known if name not in inputs]
    read = {name for node in b.nodes for name in node.input}
    ends = [name for name in written if name not in read]
    extra = draw(st.lists(st.sampled_from(written), max_size=2, unique=True))
    outputs = draw(st.permutations(list(dict.fromkeys(ends + extra))))
    outputs = outputs[: draw(st.integers(1, len(outputs)))]
    return b.model([value(name, [2, 3]) for name in inputs], [value(name, None) for name in outputs])


def crossing(graph: Graph, near: set[int]) -> tuple[int, ...]:
    """Tensors that cross between the operators in ``near`` and the others, by definition."""
    result = []
    for tensor in graph.tensors:
        sides = [reader in near for reader in tensor.readers]
        there = any(sides) if tensor.producer is None else tensor.producer in near
        if not tensor.is_weight and there and not all(sides):
            result.append(tensor.id)
    return tuple(result)


def all_cuts(graph: Graph) -> Iterator[tuple[tuple[int, ...], set[int]]]:
    """Every way to part the operators in two so that data flows one way, with what crosses."""
    count = len(graph.operators)
    needs = [
        {p for t in operator.reads if (p := graph.tensors[t].producer) is not None} for operator in graph.operators
    ]
    for mask in range(1, 2**count - 1):
        near = {index for index in range(count) if mask >> index & 1}
        if all(needs[index] <= near for index in near):
            yield crossing(graph, near), near


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write the model into the folder, over the one before."""
    file = folder / "random.onnx"
    onnx.save(model, str(file))
    return file
