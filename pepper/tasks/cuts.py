"""``task=cuts``: list where a model can be cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.frames import Framed
from pepper.console.tables import cuts_table, show
from pepper.errors import argument, key_of
from pepper.graph.cuts import Cut, find_cuts, how_to_cut, why_no_cut
from pepper.graph.ir import Graph
from pepper.graph.load import collection_held
from pepper.graph.model import load_configured
from pepper.tasks.result import Result

_MOST_ROWS = 500  # of the table: nobody reads more, and to lay them out takes longer than to find them


@collection_held()  # while the graph is at hand, too: it would be searched again and again
def list_cuts(composition: Composition) -> Result:
    """Print the model's cuts, or why a tensor is none.

    Returns:
        Nothing that others go on with.

    Raises:
        ModelError: The model cannot be read, or has no tensor named ``cuts.why``.
    """
    config = composition.config
    graph = load(config)
    if config.cuts.why is not None:
        why = why_no_cut(graph, config.cuts.why)
        show(why, why=why)
        return Result()
    found = configured_cuts(graph, config)
    rows = [dict(vars(row)) for row in cut_rows(graph, found)]  # asdict would copy each name
    if rows:
        show(cuts_table(rows[:_MOST_ROWS]))
    if len(rows) > _MOST_ROWS:
        show(f"and {len(rows) - _MOST_ROWS:,} more cuts; output=json lists all")
    hint = "" if rows else _hint(graph)
    show(
        f"{config.model.name}: {len(graph.operators)} operators, {len(rows)} cuts ({config.cuts.kind}){hint}",
        model=config.model.name,
        operators=len(graph.operators),
        cuts=rows,
    )
    unknown = graph.unknown_shapes()
    if unknown:
        first = unknown[0].name
        fix = argument(key_of("model.shapes", first), "[...]")
        show(f"shapes unknown: {len(unknown)} tensors, the first {first!r}; give {fix}")
    return Result()


def _hint(graph: Graph) -> str:
    if len(graph.operators) < 2:
        return "; it takes two operators to lie on both sides of one"
    return f"; {how_to_cut(graph)}"


@dataclass(frozen=True)
class CutRow(Framed):
    """A cut as plain values.

    Attributes:
        operators_before: How many operators lie before it.
        in_order: Whether these are the first ones; False inside a branch.
        tensors: Names of what crosses.
        dtypes: Their element types; None where unknown.
        shapes: Their dimensions; None where unknown.
        bytes: Their size in all; None if a shape is unknown.
    """

    operators_before: int
    in_order: bool
    tensors: list[str]
    dtypes: list[str | None]
    shapes: list[list[int] | None]
    bytes: int | None


def cut_rows(graph: Graph, cuts: Sequence[Cut]) -> list[CutRow]:
    """Return the cuts as plain values."""
    rows = []
    for cut in cuts:
        tensors = [graph.tensors[t] for t in cut.tensors]
        rows.append(
            CutRow(
                operators_before=cut.position,
                in_order=cut.in_order,
                tensors=[t.name for t in tensors],
                dtypes=[t.dtype for t in tensors],
                shapes=[None if t.shape is None else list(t.shape) for t in tensors],
                bytes=cut.bytes,
            )
        )
    return rows


def configured_cuts(graph: Graph, config: PepperConfig) -> list[Cut]:
    """Return the cuts of the configured kind."""
    return find_cuts(graph, config.cuts.kind, config.cuts.max_tensors, config.cuts.bridge_dist)


def load(config: PepperConfig) -> Graph:
    """Load the configured model as a graph."""
    return load_configured(config.model)
