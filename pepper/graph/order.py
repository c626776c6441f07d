"""A good topological order."""

from pepper.graph.ir import Graph


def arrange(graph: Graph) -> Graph:
    """Return the graph with its operators in a good order."""
    return graph
