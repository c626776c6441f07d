"""Choices of parts of a model, each a real ONNX file: short and long ones all over it, or all of a grid's."""

import functools
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pepper import __version__
from pepper.caches import cache_folder
from pepper.errors import ConfigError, ModelError
from pepper.graph.balance import balanced_cuts
from pepper.graph.costs import operator_macs
from pepper.graph.cuts import Cut, find_cuts
from pepper.graph.ir import Graph, check_operators
from pepper.graph.load import load_graph
from pepper.graph.manifest import FORMAT, is_split, read_manifest
from pepper.graph.split import split

_DRAWS_PER_PART = 50


@dataclass(frozen=True)
class PartFile:
    """A part as a model file.

    Attributes:
        start: First operator.
        end: End position (exclusive).
        file: The ONNX file.
    """

    start: int
    end: int
    file: Path


def choose_parts(positions: Sequence[int], count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Choose different parts between cut positions, as a prefix of one fixed sequence.

    Lengths are spread evenly on a log scale, starts evenly over where a part of that length fits, by a Halton
    sequence shifted by the seed (Cranley and Patterson, SIAM J. Numer. Anal. 1976): any first n are
    well spread, and asking for more keeps those.

    Args:
        positions: Where parts may begin and end, ascending.
        count: How many parts.
        seed: Seed of the shift.

    Returns:
        Start and end of each part; fewer than ``count`` only if there are no more.
    """
    steps = len(positions) - 1
    shift = np.random.default_rng(seed).random(2)
    chosen: dict[tuple[int, int], None] = {}
    for draw in range(1, _DRAWS_PER_PART * (count + 1)):
        if len(chosen) == min(count, steps * (steps + 1) // 2):
            break
        u, v = (np.array([_radical_inverse(draw, 2), _radical_inverse(draw, 3)]) + shift) % 1
        length = min(steps, round(steps**u))
        start = int(v * (steps - length + 1))
        chosen[positions[start], positions[start + length]] = None
    return list(chosen)


def grid_parts(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each run of consecutive elements between positions (ascending), longest first."""
    last = len(positions) - 1
    return [
        (positions[start], positions[start + length])
        for length in range(last, 0, -1)
        for start in range(last - length + 1)
    ]


def cut_part(
    file: Path,
    shapes: Mapping[str, Sequence[int]],
    sha256: str,
    number: int,
    seed: int,
    grid: int | None = None,
    folder: Path | None = None,
) -> PartFile:
    """Write the part with this number of the model's chosen ones as a model of its own, once.

    Args:
        file: The whole model.
        shapes: A fixed shape for each of its inputs.
        sha256: Hash of its content.
        number: Which of the chosen parts, from 0.
        seed: Seed of the space-filling choice.
        grid: Take the parts of a grid of this many elements instead.
        folder: Where parts are kept; the user's cache by default.

    Raises:
        ModelError: The model has fewer different parts, or cannot be cut.
    """
    graph, cuts = _graph_and_cuts(file, sha256, tuple((name, tuple(shape)) for name, shape in sorted(shapes.items())))
    check_operators(graph)
    if grid is None:
        parts = choose_parts(sorted({0, *cuts, len(graph.operators)}), number + 1, seed)
    else:
        chosen = balanced_cuts(graph, list(cuts.values()), min(grid, len(cuts) + 1), operator_macs(graph))
        parts = grid_parts(sorted({0, *(cut.position for cut in chosen), len(graph.operators)}))
    if number >= len(parts):
        raise ModelError(f"model.part={number}: {file} has only {len(parts)} different parts; use a lower number")
    start, end = parts[number]
    borders = [cuts[position] for position in (start, end) if position in cuts]
    made_with = [FORMAT, __version__, onnx.__version__, sha256, sorted(map(str, shapes.items())), borders]
    key = hashlib.sha256(repr(made_with).encode()).hexdigest()
    home = (folder or cache_folder("parts")) / key[:32]
    wanted = 0 if start == 0 else 1
    return PartFile(start, end, _kept(home, wanted) or _written(graph, borders, home, wanted))


def _kept(home: Path, number: int) -> Path | None:
    """The file of this part of a split that was kept, if it is there and as it was written."""
    try:
        part = read_manifest(home).parts[number]
    except (ModelError, IndexError):
        return None
    return home / part.file if part.is_intact(home) else None


def _written(graph: Graph, borders: Sequence[Cut], home: Path, number: int) -> Path:
    if home.exists() and not is_split(home):
        shutil.rmtree(home)  # what is left of one
    try:
        return home / split(graph, borders, home).parts[number].file
    except ConfigError:
        other = _kept(home, number)  # another process may have been quicker
        if other is None:
            raise
        return other


@functools.lru_cache(maxsize=4)
def _graph_and_cuts(
    file: Path, sha256: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[Graph, dict[int, Cut]]:
    """Load a graph and its cuts by position; a sweep asks for many parts of one model in a row."""
    graph = load_graph(file, shapes=dict(shapes))
    inner = (cut for cut in find_cuts(graph) if cut.in_order and 0 < cut.position < len(graph.operators))
    return graph, {cut.position: cut for cut in inner}


def _radical_inverse(number: int, base: int) -> float:
    """Mirror the digits of a number at the point."""
    result, place = 0.0, 1.0
    while number:
        place /= base
        number, digit = divmod(number, base)
        result += digit * place
    return result
