"""``task=cuts``: list where a model can be cut."""

from collections.abc import Sequence
from typing import Any

from pepper.config import PepperConfig
from pepper.graph.cuts import Cut, find_cuts, why_no_cut
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.report.tables import cuts_table, show


def list_cuts(config: PepperConfig) -> int:
    """Print the model's cuts, or why a tensor is none.

    Returns:
        The exit status, 0.

    Raises:
        ModelError: The model cannot be read, or has no tensor named ``cuts.why``.
    """
    graph = load(config)
    if config.cuts.why is not None:
        why = why_no_cut(graph, config.cuts.why)
        show(why, why=why)
        return 0
    rows = cut_rows(graph, find_cuts(graph, config.cuts.kind, config.cuts.max_tensors))
    if rows:
        show(cuts_table(rows))
    hint = "" if rows else "; allow more crossing tensors with cuts=frontiers cuts.max_tensors=N"
    show(
        f"{config.model.name}: {len(graph.operators)} operators, {len(rows)} cuts ({config.cuts.kind}){hint}",
        model=config.model.name,
        operators=len(graph.operators),
        cuts=rows,
    )
    unknown = graph.unknown_shapes()
    if unknown:
        first = unknown[0].name
        show(f"shapes unknown: {len(unknown)} tensors, the first {first!r}; give model.shapes.{first}=[...]")
    return 0


def cut_rows(graph: Graph, cuts: Sequence[Cut]) -> list[dict[str, Any]]:
    """Return each cut as plain values: ``operators_before``, ``in_order``, ``bytes``, and a list for what crosses.

    ``tensors``, ``dtypes`` and ``shapes`` run alike; an unknown dtype, shape or size is None.
    """
    rows = []
    for cut in cuts:
        tensors = [graph.tensors[t] for t in cut.tensors]
        rows.append(
            {
                "operators_before": cut.position,
                "in_order": cut.in_order,
                "tensors": [t.name for t in tensors],
                "dtypes": [t.dtype for t in tensors],
                "shapes": [None if t.shape is None else list(t.shape) for t in tensors],
                "bytes": cut.bytes,
            }
        )
    return rows


def load(config: PepperConfig) -> Graph:
    """Load the configured model as a graph."""
    model = config.model
    return load_graph(model.path, model.shapes, model.dims, model.batch)
