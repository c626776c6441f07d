"""A space-filling choice of parts of a model: short and long, early and late, each a real ONNX file."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pepper.errors import ModelError
from pepper.graph.cuts import Cut, find_cuts
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.split import MANIFEST, read_manifest, split

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


def cut_part(
    file: Path, shapes: Mapping[str, Sequence[int]], sha256: str, number: int, seed: int, folder: Path | None = None
) -> PartFile:
    """Write the part with this number of the model's chosen ones as a model of its own, once.

    Args:
        file: The whole model.
        shapes: A fixed shape for each of its inputs.
        sha256: Hash of its content.
        number: Which of the chosen parts, from 0.
        seed: Seed of the choice.
        folder: Where parts are kept; the user's cache by default.

    Raises:
        ModelError: The model has fewer different parts, or cannot be cut.
    """
    graph, cuts = _graph_and_cuts(file, tuple((name, tuple(shape)) for name, shape in sorted(shapes.items())))
    positions = sorted({0, *cuts, len(graph.operators)})
    parts = choose_parts(positions, number + 1, seed)
    if number >= len(parts):
        raise ModelError(f"model.part={number}: {file} has only {len(parts)} different parts; use a lower number")
    start, end = parts[number]
    borders = [cuts[position] for position in (start, end) if position in cuts]
    home = (folder or _cache()) / f"{sha256[:24]}-{start}-{end}"
    manifest = read_manifest(home) if (home / MANIFEST).is_file() else split(graph, borders, home)
    part = manifest.parts[0 if start == 0 else 1]
    return PartFile(start, end, home / part.file)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pepper" / "parts"


@functools.lru_cache(maxsize=4)
def _graph_and_cuts(file: Path, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[Graph, dict[int, Cut]]:
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
