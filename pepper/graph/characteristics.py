"""Characteristics of any part of a model: what a latency model learns from, and what a plan weighs.

A part is a run of operators in the graph's order, from a start to an end position (exclusive). Preparing a
graph takes time linear in its size (up to a logarithm); after it, any set of parts is described by a few
array operations.
"""

import math
import re
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np

from pepper.errors import ModelError, listed
from pepper.graph.cost_kinds import KINDS, MAC_KINDS
from pepper.graph.costs import Costing
from pepper.graph.intervals import Positions, RangeMaximum, Values, longest_paths, sums_inside
from pepper.graph.ir import Graph, Tensor
from pepper.graph.layout import layout_changes
from pepper.graph.stored import stored_weights

VERSION = 3  # raise it when a file is described otherwise than before: another rule, or another meaning of a column

PAPER_FEATURES = ("conv_layers", "filter_details", "pool_layers", "fully_conn_layers", "total_parameters")
"""The five characteristics of PEPPER (IOT '25, doi 10.1145/3770501.3770528), by its definitions."""

_BY_KIND = (
    *(f"macs_{kind}" for kind in MAC_KINDS),
    *(f"bytes_{kind}" for kind in KINDS),
    *(f"operators_{kind}" for kind in KINDS),
)

FEATURES = (
    "operators",
    "depth",
    "macs",
    "macs_int8",
    "macs_float16",
    "read_bytes",
    "written_bytes",
    "reordered_bytes",
    "arithmetic_intensity",
    "parameters",
    "weight_bytes",
    "input_tensors",
    "input_bytes",
    "output_tensors",
    "output_bytes",
    "activation_peak_bytes",
    "widest_layer",
    "largest_operator_macs",
    "product_m",
    "product_k",
    "product_n",
    "product_mk",
    "product_kn",
    "product_mn",
    *PAPER_FEATURES,
    *_BY_KIND,
)
"""The columns of `Characteristics.table`, in order; the same for every model.

- ``operators``: operators of the graph; ``depth``: those on the longest path.
- ``macs``: multiply-accumulates, also by precision (``macs_int8``, ``macs_float16``) and by kind
  (``macs_<kind>``, see `cost_kinds.MAC_KINDS`).
- ``read_bytes``, ``written_bytes``: what the operators read (weights included, each time) and write;
  ``bytes_<kind>`` is the sum of both by kind. Views, such as Reshape, move nothing.
- ``reordered_bytes``: what is copied into another layout between convolutions and others (see `layout`),
  and where the part begins and ends.
- ``arithmetic_intensity``: MACs per byte read or written.
- ``parameters``: elements of the weights that the part reads, each weight once, without 64-bit integers,
  booleans and strings (shapes, axes and the like); ``weight_bytes``: bytes of all that it reads.
- ``input_*``, ``output_*``: tensors that enter the part (model inputs too) and that leave it.
- ``activation_peak_bytes``: the most bytes of activations alive while one of its operators runs: a tensor
  lives from its writer to its last reader in the model, a model input from the start and a model output to
  the end; what only passes by the part does not count.
- ``widest_layer``: the most elements that one operator writes; ``largest_operator_macs``: the most MACs.
- ``product_m``, ``product_k``, ``product_n``: sizes of the matrix products, their geometric mean weighted
  by MACs (0 without MACs): what a kernel's efficiency depends on.
- ``product_mk``, ``product_kn``, ``product_mn``: elements of their left, right and result matrices: what a kernel
  loads and stores, where MACs are what it computes.
- ``operators_<kind>``: kernels launched, by kind; those of a loop's body count once a trip, a recurrent layer once a
  step.
"""

_COLUMN = {name: column for column, name in enumerate(FEATURES)}
_ENTERING = ("input_bytes", "input_tensors", "weight_bytes", "total_parameters", "parameters", "blocks_in")
_LEAVING = ("output_bytes", "output_tensors", "blocks_out")
_MATRICES = ("product_mk", "product_kn", "product_mn")
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool"}
_NO_PARAMETERS = {"int64", "uint64", "bool", "string"}


_MOST_KINDS = 5  # of gaps that are said each by itself


class CostWarning(UserWarning):
    """The cost of some operators is not, or not fully, known."""


def in_kinds(gaps: Sequence[str]) -> list[str]:
    """Say gaps in a few lines, one for each kind of operator and reason: three operators by name, the others by
    number; of many kinds, those with the most operators."""
    kinds: dict[str, list[str]] = {}
    for gap in gaps:
        name, _, rest = gap.partition(" (")
        kinds.setdefault(re.sub(r"'[^']*'", "a tensor", rest), []).append(name)
    lines = [
        f"cost not known of {listed(names)} ({reason}"
        for reason, names in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    ]
    if len(lines) > _MOST_KINDS:
        left = sorted(map(len, kinds.values()), reverse=True)[_MOST_KINDS:]
        lines[_MOST_KINDS:] = [f"cost not known of {sum(left):,} operators more, of {len(left):,} kinds"]
    return lines


class Characteristics:
    """The characteristics of every part of one graph.

    Attributes:
        graph: The graph.
        gaps: A line for each operator whose cost is not, or not fully, known.
        crossing_bytes: Bytes of the tensors that are written (model inputs: read) before each position and
            read at or after it, shape (operators + 1,).

    Example:
        >>> characteristics = Characteristics(load_graph("model.onnx"))
        >>> starts, ends = every_part([0, 12, 40, 97])
        >>> characteristics.table(starts, ends)[:, FEATURES.index("macs")]
    """

    def __init__(self, graph: Graph) -> None:
        """Cost every operator; a `CostWarning` says the gaps if there are any."""
        self.graph = graph
        self._count = len(graph.operators)
        self._prefix: dict[str, Values] = {"operators": np.arange(self._count + 1.0)}
        self.gaps, held = self._add_costs()
        if self.gaps:
            warnings.warn(f"{graph.file}: {'; '.join(in_kinds(self.gaps))}", CostWarning, stacklevel=2)
        self._add_spans(held, self._add_paper_features())

    def table(self, starts: Sequence[int] | Positions, ends: Sequence[int] | Positions) -> Values:
        """Describe many parts at once.

        Args:
            starts: First position of each part, shape (P,).
            ends: End position (exclusive) of each part, shape (P,).

        Returns:
            An array of shape (P, len(FEATURES)), its columns named by `FEATURES`.

        Raises:
            ModelError: A part is empty or reaches beyond the graph.
        """
        first, last = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
        if np.any(first < 0) or np.any(first >= last) or np.any(last > self._count):
            raise ModelError(
                f"{self.graph.file}: a part runs from a position to a later one, between 0 and {self._count}"
            )
        result = np.zeros((len(first), len(FEATURES)))
        if not len(first):
            return result

        def put(name: str, values: Values) -> None:
            result[:, _COLUMN[name]] = values

        def total(name: str) -> Values:
            return self._prefix[name][last] - self._prefix[name][first]

        for name in self._prefix.keys() & _COLUMN.keys():
            put(name, total(name))
        inside = sums_inside(*self._spans, first, last)
        crossing = {name: total(f"uses/{name}") - inside[:, column] for column, name in enumerate(_ENTERING)}
        for column, name in enumerate(_LEAVING, len(_ENTERING)):
            crossing[name] = total(f"writes/{name}") - inside[:, column]
        for name in crossing.keys() & _COLUMN.keys():
            put(name, crossing[name])
        # Between parts, data is plain.
        put("reordered_bytes", total("reordered_bytes") + crossing["blocks_in"] + crossing["blocks_out"])
        result[:, _COLUMN["fully_conn_layers"]] += inside[:, -1]
        passing_by = self._awaited_bytes[first] - result[:, _COLUMN["input_bytes"]]
        put("activation_peak_bytes", self._live_bytes(first, last) - passing_by)
        put("widest_layer", self._widest(first, last))
        put("largest_operator_macs", self._largest(first, last))
        put("depth", longest_paths(self._predecessors, first, last))
        macs = result[:, _COLUMN["macs"]]
        moved = result[:, _COLUMN["read_bytes"]] + result[:, _COLUMN["written_bytes"]]
        put("arithmetic_intensity", np.divide(macs, moved, out=np.zeros_like(macs), where=moved > 0))
        for side in "mkn":
            mean_log = np.divide(total(f"log/{side}"), macs, out=np.zeros_like(macs), where=macs > 0)
            put(f"product_{side}", np.where(macs > 0, np.exp(mean_log), 0.0))
        return result

    def part(self, start: int, end: int) -> dict[str, float]:
        """Describe one part, by feature name.

        Raises:
            ModelError: The part is empty or reaches beyond the graph.
        """
        return dict(zip(FEATURES, self.table([start], [end])[0].tolist(), strict=True))

    @property
    def cumulative_macs(self) -> Values:
        """MACs of the operators before each position, shape (operators + 1,)."""
        return self._prefix["macs"]

    def _add_costs(self) -> tuple[Sequence[str], list[tuple[Tensor, int]]]:
        """Turn costs into prefix sums; return the gaps, and weights inside bodies with their operators."""
        number = {kind: i for i, kind in enumerate(KINDS)}
        held: list[tuple[Tensor, int]] = []
        rows = array("d")  # flat, as a hundred thousand tuples would keep the garbage collector busy
        costing = Costing(self.graph)
        for index, entries in enumerate(costing):
            for cost in entries:
                logs, sides = [0.0, 0.0, 0.0], [0, 0, 0]
                for product in cost.products:
                    times, m, k, n = product
                    for side, length in enumerate((m, k, n)):
                        logs[side] += product.macs * math.log(max(length, 1))
                    for side, area in enumerate((m * k, k * n, m * n)):
                        sides[side] += times * area
                held += [(tensor, index) for tensor in cost.held]
                rows.extend(
                    (
                        index,
                        number[cost.kind],
                        cost.macs,
                        cost.read_bytes,
                        cost.written_bytes,
                        cost.operators,
                        cost.precision == "int8",
                        cost.precision == "float16",
                        *logs,
                        *sides,
                    )
                )
        columns = np.frombuffer(rows).reshape(-1, 14).T
        where, kind = columns[0].astype(np.int64), columns[1].astype(np.int64)
        macs, read, written, launches, int8, float16 = columns[2:8]
        self._sum_up("macs", where, macs)
        self._sum_up("macs_int8", where, macs * int8)
        self._sum_up("macs_float16", where, macs * float16)
        self._sum_up("read_bytes", where, read)
        self._sum_up("written_bytes", where, written)
        for name, values in zip(("log/m", "log/k", "log/n", *_MATRICES), columns[8:], strict=True):
            self._sum_up(name, where, values)
        for present in np.unique(kind).tolist():
            name, of = KINDS[present], kind == present
            if name in MAC_KINDS:
                self._sum_up(f"macs_{name}", where[of], macs[of])
            self._sum_up(f"bytes_{name}", where[of], (read + written)[of])
            self._sum_up(f"operators_{name}", where[of], launches[of])
        changed, self._in_blocks = layout_changes(self.graph, costing.fused)
        self._sum_up("reordered_bytes", np.arange(self._count), np.array(changed, float))
        self._largest = RangeMaximum(np.diff(self._prefix["macs"]))
        elements = np.zeros(self._count)
        for tensor in self.graph.tensors:
            if tensor.producer is not None and tensor.shape is not None:
                elements[tensor.producer] = max(elements[tensor.producer], math.prod(tensor.shape))
        self._widest = RangeMaximum(elements)
        return costing.gaps, held

    def _add_paper_features(self) -> list[tuple[int, int]]:
        """Count layers as the paper does; return the pairs of operators that are one dense layer together."""
        operators, tensors = self.graph.operators, self.graph.tensors
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in PAPER_FEATURES[:4]}
        pairs = []
        for operator in operators:
            kind, index = operator.kind, operator.index
            if kind in _POOLS:
                found["pool_layers"].append((index, 1))
            elif kind == "Gemm":
                found["fully_conn_layers"].append((index, 1))
            elif kind in ("Conv", "MatMul"):
                # An operator that lacks an input runs nowhere, but can be described.
                data, weight = (None if t is None else tensors[t] for t in (*operator.inputs, None, None)[:2])
                writer = data.producer if data is not None else None
                before = operators[writer].kind if writer is not None else ""
                is_weight = weight is not None and weight.is_weight
                if kind == "Conv" and is_weight and weight is not None:
                    found["conv_layers"].append((index, 1))
                    found["filter_details"].append((index, weight.shape[0] if weight.shape else 0))
                if kind == "MatMul" and is_weight:
                    found["fully_conn_layers"].append((index, 1))
                elif writer is not None and before == ("GlobalAveragePool" if kind == "Conv" else "Flatten"):
                    pairs.append((writer, index))
        for name, values in found.items():
            at, amounts = np.array(values, np.int64).reshape(-1, 2).T
            self._sum_up(name, at, amounts.astype(float))
        return pairs

    def _sum_up(self, name: str, where: Positions, values: Values) -> None:
        """Add the prefix sums of values at the given operators."""
        sums = np.zeros(self._count + 1)
        np.cumsum(np.bincount(where, values, self._count), out=sums[1:])
        self._prefix[name] = sums

    def _add_spans(self, held: Sequence[tuple[Tensor, int]], pairs: Sequence[tuple[int, int]]) -> None:
        """Prepare what depends on where a tensor is written and read.

        A tensor enters a part once, at its first reader there. So every pair of consecutive uses (written,
        read, read ...) is a span, and what enters is what the part's operators use less the spans inside it.
        What leaves is what they write less the tensors whose whole life lies inside.
        """
        count, outputs = self._count, set(self.graph.outputs)
        tensors = [tensor for tensor in self.graph.tensors if not tensor.is_weight]
        is_output = np.array([tensor.id in outputs for tensor in tensors], bool)
        tensors += stored_weights(self.graph)
        tensors += [replace(tensor, readers=(index,)) for tensor, index in held]
        is_weight = np.arange(len(tensors)) >= len(is_output)
        is_output = np.concatenate((is_output, np.zeros(is_weight.sum(), bool)))
        amounts = np.array([_amounts(t, t.id in self._in_blocks) for t in tensors], float)
        amounts = amounts.reshape(-1, len(_ENTERING))
        born = np.array([-1 if t.producer is None else t.producer for t in tensors], np.int64)
        reads = np.array([len(t.readers) for t in tensors], np.int64)
        reader = np.fromiter(chain.from_iterable(t.readers for t in tensors), np.int64, reads.sum())
        is_read, stop = reads > 0, np.cumsum(reads)
        first_read, last_read = born.copy(), born.copy()
        first_read[is_read] = reader[(stop - reads)[is_read]]
        last_read[is_read] = reader[stop[is_read] - 1]
        of = np.repeat(np.arange(len(tensors)), reads)
        before = np.concatenate(([-1], reader))[:-1]
        before[(stop - reads)[is_read]] = born[is_read]
        edge = np.unique(np.stack((reader, born[of]))[:, born[of] >= 0], axis=1)
        self._predecessors = _grouped(edge[0], edge[1], count)

        for column, name in enumerate(_ENTERING):
            self._sum_up(f"uses/{name}", reader, amounts[of, column])
        # The caller awaits a model output at the very end.
        waits = np.concatenate((before, last_read[is_output]))
        until = np.concatenate((reader, np.full(is_output.sum(), count)))
        awaited = amounts[np.concatenate((of, np.flatnonzero(is_output)))]
        self._awaited_bytes = _held_over(waits + 1, until + 1, awaited[:, 0], count)

        size, blocks, end = amounts[:, 0], amounts[:, 5], np.where(is_output, count, last_read)
        written = born >= 0
        begun = np.where(written, born, first_read)
        self.crossing_bytes = _held_over(begun + 1, last_read + 1, np.where(is_weight, 0.0, size), count)
        lives = (end >= 0) & ~is_weight
        alive = _held_over(np.maximum(born, 0)[lives], np.minimum(end + 1, count)[lives], size[lives], count)
        self._live_bytes = RangeMaximum(alive[:-1])
        self._sum_up("writes/output_bytes", born[written], size[written])
        self._sum_up("writes/output_tensors", born[written], np.ones(written.sum()))
        self._sum_up("writes/blocks_out", born[written], blocks[written])

        pair = np.array(pairs, np.int64).reshape(-1, 2)
        leaving = np.stack((size[written], np.ones(written.sum()), blocks[written]), axis=1)
        self._spans = (
            np.concatenate((waits, born[written], pair[:, 0])),
            np.concatenate((until, end[written], pair[:, 1])),
            _side_by_side(awaited, leaving, np.ones((len(pair), 1))),
        )


def every_part(positions: Sequence[int]) -> tuple[Positions, Positions]:
    """Starts and ends of the parts between any two of the positions (ascending)."""
    at = np.asarray(positions, np.int64)
    start, end = np.triu_indices(len(at), 1)
    return at[start], at[end]


def _amounts(tensor: Tensor, in_blocks: bool) -> tuple[int, int, int, int, int, int]:
    """What a tensor adds to each of `_ENTERING` where it enters."""
    size = tensor.bytes or 0
    if not tensor.is_weight:
        return size, 1, 0, 0, 0, size * in_blocks
    elements = math.prod(tensor.shape) if tensor.shape is not None else 0
    return 0, 0, size, elements, 0 if tensor.dtype in _NO_PARAMETERS else elements, 0


def _grouped(keys: Positions, values: Positions, count: int) -> list[list[int]]:
    """List the values of each key, the keys being sorted."""
    flat, bounds = values.tolist(), np.searchsorted(keys, np.arange(count + 1)).tolist()
    return [flat[start:end] for start, end in pairwise(bounds)]


def _side_by_side(*blocks: Values) -> Values:
    """A block-diagonal matrix: rows below rows, columns beside columns."""
    result = np.zeros(np.sum([block.shape for block in blocks], axis=0))
    row = column = 0
    for block in blocks:
        result[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return result


def _held_over(starts: Positions, ends: Positions, values: Values, count: int) -> Values:
    """Sum at each of the positions 0 to ``count`` the values of the spans ``[start, end)`` that hold it."""
    steps = np.bincount(starts, values, count + 2) - np.bincount(ends, values, count + 2)
    return np.cumsum(steps)[: count + 1]
