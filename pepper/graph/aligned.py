"""Another form of a model beside it: its operators in an order in which it has the same borders."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pepper.graph.borders import Borders
from pepper.graph.ir import Graph
from pepper.graph.order import renumbered

ABSENT = -1
"""In place of a position: the form has no such border."""


def aligned(graph: Graph, form: Graph, borders: Borders) -> tuple[Graph, npt.NDArray[np.int64]]:
    """Order a form's operators by the borders of the model that it was made of.

    A form computes the tensors at the borders under their names, save those that its making took away (such as what
    lies between a product and the normalization that is folded into it). What they are computed from lies before them.

    Args:
        graph: The model.
        form: The same in another precision.
        borders: Of the model.

    Returns:
        The form with its operators in that order, and how many lie before each border, shape (borders,); `ABSENT`
        where it lacks one of a border's tensors.
    """
    last = len(borders.positions) - 1
    level = np.full(len(form.operators), last)
    present = np.ones(last + 1, bool)
    for number in range(1, last):
        names = [*borders.tensors[number], *_given_before(graph, borders.positions[number])]
        if all(name in form.by_name for name in names):
            _mark(form, names, level, number, last)
        else:
            present[number] = False
    order = np.argsort(level, kind="stable")
    positions = np.searchsorted(level[order], np.arange(last + 1), side="right")
    positions[~present] = ABSENT
    return renumbered(form, order.tolist()), positions


def _given_before(graph: Graph, position: int) -> list[str]:
    """Names of the model's outputs that are written before a position."""
    written = (graph.tensors[t] for t in graph.outputs)
    return [tensor.name for tensor in written if tensor.producer is not None and tensor.producer < position]


def _mark(form: Graph, names: Sequence[str], level: npt.NDArray[np.int64], number: int, last: int) -> None:
    """Give all operators that these tensors are computed from this level, unless they have a lower one."""
    pending = [form.by_name[name].producer for name in names]
    while pending:
        index = pending.pop()
        if index is not None and level[index] == last:
            level[index] = number
            pending.extend(form.tensors[t].producer for t in form.operators[index].reads)
