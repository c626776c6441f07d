"""``task=cuts``: list where a model can be cut."""

from pepper.config import PepperConfig
from pepper.graph.cuts import find_cuts, why_no_cut
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
        show(why_no_cut(graph, config.cuts.why))
        return 0
    cuts = find_cuts(graph, config.cuts.kind, config.cuts.max_tensors)
    rows = []
    for cut in cuts:
        tensors = [graph.tensors[t] for t in cut.tensors]
        rows.append(
            {
                "position": str(cut.position) if cut.in_order else f"{cut.position} (branch)",
                "tensors": "\n".join(t.name for t in tensors),
                "dtype": "\n".join(t.dtype or "?" for t in tensors),
                "shape": "\n".join("?" if t.shape is None else "x".join(map(str, t.shape)) for t in tensors),
                "bytes": cut.bytes,
            }
        )
    if rows:
        show(cuts_table(rows))
    hint = "" if rows else "; allow more crossing tensors with cuts=frontiers cuts.max_tensors=N"
    show(f"{config.model.name}: {len(graph.operators)} operators, {len(cuts)} cuts ({config.cuts.kind}){hint}")
    unknown = graph.unknown_shapes()
    if unknown:
        first = unknown[0].name
        show(f"shapes unknown: {len(unknown)} tensors, the first {first!r}; give model.shapes.{first}=[...]")
    return 0


def load(config: PepperConfig) -> Graph:
    """Load the configured model as a graph."""
    model = config.model
    return load_graph(model.path, model.shapes, model.dims, model.batch)
