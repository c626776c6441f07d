"""Tensors at which the graph falls apart, by Tarjan's depth-first search.

The graph searched is undirected and bipartite: operators on one side, on the other the tensors that flow
between them (weights left out), an edge wherever an operator reads or writes a tensor. A single tensor
crosses a cut exactly if it is an articulation point of this graph: without it, some of its readers lie in
other components than its producer. (A bridge from an operator to the tensor that it writes, R. E. Tarjan,
"A note on finding the bridges of a graph", 1974, is the case where none of the readers stays behind.)
"""

from bisect import bisect_right
from collections.abc import Sequence

from pepper.graph.ir import Graph, Separator


def flow_neighbours(graph: Graph) -> list[Sequence[int]]:
    """Adjacency of the bipartite graph: operator ``i`` is vertex ``i``, tensor ``t`` vertex ``n + t``."""
    count = len(graph.operators)
    neighbours: list[Sequence[int]] = [[] for _ in graph.operators]
    for tensor in graph.tensors:
        if tensor.is_weight:
            neighbours.append(())
            continue
        ends = tensor.readers if tensor.producer is None else (tensor.producer, *tensor.readers)
        neighbours.append(ends)
        vertex = count + tensor.id
        for operator in ends:
            neighbours[operator].append(vertex)  # type: ignore[attr-defined]
    return neighbours


def find_separators(graph: Graph) -> list[Separator]:
    """Find every tensor at which the graph falls apart, in linear time."""
    neighbours = flow_neighbours(graph)
    found, low, parent = _depth_first(neighbours)
    count = len(graph.operators)
    by_time = sorted(range(len(neighbours)), key=found.__getitem__)
    children: dict[int, list[int]] = {}  # operators that hang from a tensor in the search tree
    root = list(range(len(neighbours)))
    for vertex in by_time:
        if parent[vertex] >= 0:
            root[vertex] = root[parent[vertex]]
            if vertex < count:
                children.setdefault(parent[vertex], []).append(vertex)
    inside = [1] * count + [0] * len(graph.tensors)  # operators in the subtree
    for vertex in reversed(by_time):
        if parent[vertex] >= 0:
            inside[parent[vertex]] += inside[vertex]

    result = []
    for vertex, hanging in children.items():
        # Without the tensor, a subtree that reaches no earlier vertex is a component of its own.
        alone = [parent[vertex] < 0 or low[child] >= found[vertex] for child in hanging]
        starts = [found[child] for child in hanging]
        components: dict[int, list[int]] = {}
        for operator in neighbours[vertex]:
            nth = bisect_right(starts, found[operator]) - 1
            components.setdefault(hanging[nth] if nth >= 0 and alone[nth] else -1, []).append(operator)
        home, *far = components
        if far:
            apart = sum(inside[child] for child, is_alone in zip(hanging, alone, strict=True) if is_alone)
            near = inside[root[vertex]] - apart if home < 0 else inside[home]
            groups = tuple(tuple(components[place]) for place in far)
            result.append(Separator(vertex - count, components[home][0], groups, near))
    return result


def _depth_first(neighbours: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[int]]:
    """Search the graph depth first.

    Returns:
        For each vertex: when it was found, the earliest vertex that its subtree reaches by one edge that is
        not of the tree (Tarjan's lowpoint), and its parent (-1 for a root).
    """
    size = len(neighbours)
    found, low, parent = [-1] * size, [0] * size, [-1] * size
    clock = 0
    for root in range(size):
        if found[root] >= 0:
            continue
        found[root] = low[root] = clock
        clock += 1
        path = [(root, iter(neighbours[root]))]
        while path:
            vertex, rest = path[-1]
            for other in rest:
                if found[other] < 0:
                    found[other] = low[other] = clock
                    clock += 1
                    parent[other] = vertex
                    path.append((other, iter(neighbours[other])))
                    break
                if other != parent[vertex] and found[other] < low[vertex]:
                    low[vertex] = found[other]
            else:
                path.pop()
                above = parent[vertex]
                if above >= 0 and low[vertex] < low[above]:
                    low[above] = low[vertex]
    return found, low, parent
