"""A good topological order: one in which cuts between neighbours are many and narrow."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pepper.graph.ir import Graph, Operator, Separator, Tensor
from pepper.graph.separators import find_separators


def arrange(graph: Graph) -> Graph:
    """Return the graph with its operators in a good topological order, in linear time.

    Every separator of the longest nested chain of them becomes a cut between neighbours in the order.
    Between these, the file's own order and a depth-first one compete: the one in which fewer tensors
    cross, summed over all positions, wins.
    """
    separators = find_separators(graph)
    levels = _levels(graph, separators)
    orders = [sorted(order, key=levels.__getitem__) for order in (range(len(levels)), _depth_first(graph))]
    best = min(orders, key=lambda order: _crossings(graph, order))
    return renumbered(replace(graph, separators=separators), best)


def _levels(graph: Graph, separators: Sequence[Separator]) -> list[int]:
    """Number of separators of the longest nested chain that lie before each operator.

    Without the edges from separators to their far readers the graph falls into blocks; those edges join
    the blocks to a tree, and nested separators are a directed path in it.
    """
    count = len(graph.operators)
    far_edges = {(s.tensor, reader) for s in separators for group in s.far for reader in group}
    root = list(range(count + len(graph.tensors)))

    def find(vertex: int) -> int:
        while root[vertex] != vertex:
            root[vertex] = root[root[vertex]]
            vertex = root[vertex]
        return vertex

    for tensor in graph.tensors:
        if tensor.is_weight:
            continue
        vertex = count + tensor.id
        if tensor.producer is not None:
            root[find(tensor.producer)] = find(vertex)
        for reader in tensor.readers:
            if (tensor.id, reader) not in far_edges:
                root[find(reader)] = find(vertex)
    for separator in separators:
        for first, *others in separator.far:  # far edges of other separators may be all that joins them
            for reader in others:
                root[find(reader)] = find(first)

    links = [(find(count + s.tensor), find(group[0]), s.tensor) for s in separators for group in s.far]
    chain = _longest_path(links)
    on_chain = {label: level for level, (_, _, label) in enumerate(chain, start=1)}
    joined: dict[int, list[int]] = {}
    for source, target, label in links:
        if label not in on_chain:
            joined.setdefault(source, []).append(target)
            joined.setdefault(target, []).append(source)
    level_of: dict[int, int] = {chain[0][0]: 0} if chain else {}
    level_of |= {target: on_chain[label] for _, target, label in links if label in on_chain}
    pending = list(level_of)
    while pending:
        block = pending.pop()
        for other in joined.get(block, ()):
            if other not in level_of:
                level_of[other] = level_of[block]
                pending.append(other)
    return [level_of.get(find(operator), 0) for operator in range(count)]


_Link = tuple[int, int, int]


def _longest_path(links: Sequence[_Link]) -> list[_Link]:
    """Longest directed path in a forest of (source, target, label) links."""
    leaving: dict[int, list[_Link]] = {}
    waiting: dict[int, int] = {}
    for link in links:
        leaving.setdefault(link[0], []).append(link)
        waiting[link[1]] = waiting.get(link[1], 0) + 1
    reached: dict[int, tuple[int, _Link]] = {}  # block: links before it on the longest path, the last of them
    pending = [block for block in leaving if block not in waiting]
    while pending:
        block = pending.pop()
        length = reached[block][0] if block in reached else 0
        for link in leaving.get(block, ()):
            target = link[1]
            if target not in reached or length + 1 > reached[target][0]:
                reached[target] = (length + 1, link)
            waiting[target] -= 1
            if not waiting[target]:
                pending.append(target)
    path = []
    block = max(reached, key=lambda block: reached[block][0], default=-1)
    while block in reached:
        path.append(reached[block][1])
        block = reached[block][1][0]
    return path[::-1]


def _depth_first(graph: Graph) -> list[int]:
    """Order in which each operator follows the branches that feed it, one after the other, deepest first."""
    tensors = graph.tensors
    feeding: list[list[int]] = []
    depth: list[int] = []
    ends = [True] * len(graph.operators)
    for operator in graph.operators:
        before = [p for t in operator.reads if (p := tensors[t].producer) is not None]
        depth.append(1 + max((depth[p] for p in before), default=0))
        for p in before:
            ends[p] = False
        before.sort(key=depth.__getitem__)  # the search below takes them from the end
        feeding.append(before)
    order: list[int] = []
    done = [False] * len(depth)
    for end in sorted((index for index, last in enumerate(ends) if last), key=depth.__getitem__):
        pending = [end]
        while pending:
            index = pending[-1]
            before = feeding[index]
            while before and done[before[-1]]:
                before.pop()
            if before:
                pending.append(before.pop())
            else:
                pending.pop()
                if not done[index]:
                    done[index] = True
                    order.append(index)
    return order


def _crossings(graph: Graph, order: Sequence[int]) -> int:
    """Number of tensors that cross, summed over the positions of the order."""
    place = [0] * len(order)
    for position, index in enumerate(order):
        place[index] = position
    total = 0
    for tensor in graph.tensors:
        if tensor.readers and not tensor.is_weight:
            ends = [place[reader] for reader in tensor.readers]
            total += max(ends) - (min(ends) if tensor.producer is None else place[tensor.producer])
    return total


def renumbered(graph: Graph, order: Sequence[int]) -> Graph:
    """Return the graph with its operators in another topological order: their indices, one after the other."""
    if all(position == index for position, index in enumerate(order)):
        return graph
    place = np.empty(len(order), int)
    place[list(order)] = np.arange(len(order))
    new = place.tolist()
    # Not `dataclasses.replace`, which takes ten times as long: this is most of what large graphs take here.
    operators = [
        Operator(position, o.name, o.kind, o.domain, o.proto, o.inputs, o.captures, o.outputs)
        for position, o in enumerate(map(graph.operators.__getitem__, order))
    ]
    tensors = [
        Tensor(
            t.id,
            t.name,
            t.dtype,
            t.shape,
            t.bytes,
            t.is_weight,
            None if t.producer is None else new[t.producer],
            tuple(sorted([new[reader] for reader in t.readers])),
        )
        for t in graph.tensors
    ]
    separators = [
        replace(
            separator,
            home=new[separator.home],
            far=tuple(tuple(new[reader] for reader in group) for group in separator.far),
        )
        for separator in graph.separators
    ]
    return replace(graph, operators=tuple(operators), tensors=tuple(tensors), separators=separators)
