"""Parts held to the whole one by one, with noise in place of what crosses their borders.

An output that is the same whatever the input (a saturated softmax, say) tells nothing about the parts before it. With
noise in place of the tensors that cross, and with all that is computed on the way in sight, each part has something to
show, and the whole is the reference: its operators read the same noise there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pepper.graph.ir import Graph
from pepper.graph.rounding import Level, Opened, Values, compare, floors, has_value, too_vague, varies
from pepper.graph.running import Session, showing
from pepper.graph.source import read_proto
from pepper.graph.split import Manifest


@dataclass(frozen=True)
class HeldToNoise:
    """What came of it.

    Attributes:
        far: Largest difference of each tensor that an operator writes.
        limits: The accepted one.
        beyond: The first tensor that differs by more; None if none does.
        silent: Whether a part has nothing that varies with the noise.
    """

    far: Mapping[str, float]
    limits: Mapping[str, float]
    beyond: str | None
    silent: bool


def hold_to_noise(
    graph: Graph,
    manifest: Manifest,
    folder: Path,
    inputs: Sequence[Values],
    values: Values,
    tolerance: float | None,
    seed: int,
    threads: int,
) -> HeldToNoise:
    """Run the whole and each part with noise on the borders, and compare what the parts give.

    Args:
        graph: The whole model.
        manifest: The split.
        folder: Where the parts are.
        inputs: The model's inputs by name, some times.
        values: All that crosses, by name: what is no number with a fraction stays as it is.
        tolerance: The largest relative difference accepted; None is what rounding explains.
        seed: Seed of the noise.
        threads: Threads of each session; 0 means one a core.

    Raises:
        ModelError: onnxruntime cannot run the whole or a part.
    """
    crossing = _crossing(graph, manifest)
    rng = np.random.default_rng(seed)
    draws = [{**fed, **{name: _noise(values[name], rng) for name in crossing}} for fed in inputs]
    found: list[Values] = [{} for _ in draws]
    shown: list[list[str]] = []
    for part in manifest.parts:
        file = folder / part.file
        model = read_proto(file)
        shown.append([name for node in model.graph.node for name in node.output if _is_computed(graph, name)])
        session = Session(showing(model, shown[-1]), file, shown[-1], threads)
        for draw, got in zip(draws, found, strict=True):
            got |= session({spec.name: draw[spec.name] for spec in part.inputs})
    form = partial(_open_fed, graph, list(found[0]), {name: values[name] for name in crossing}, threads)
    whole = form("all")
    runs = [(feeds, whole(feeds)) for feeds in draws]
    far, limits = compare(runs, found, floors(graph, found[0]), tolerance, form)
    vague = too_vague(limits, far)
    telling = {n for n in found[0] if n not in vague and has_value(found[0][n]) and varies([got[n] for got in found])}
    beyond = next((name for name in found[0] if name not in vague and far[name] > limits[name]), None)
    return HeldToNoise(far, limits, beyond, any(telling.isdisjoint(names) for names in shown))


def _crossing(graph: Graph, manifest: Manifest) -> list[str]:
    """Names of what one part gives and another reads."""
    read = {spec.name for part in manifest.parts for spec in part.inputs}
    given = [spec.name for part in manifest.parts for spec in part.outputs]
    return [name for name in given if name in read and _is_computed(graph, name)]


def _is_computed(graph: Graph, name: str) -> bool:
    return name in graph.by_name and graph.by_name[name].producer is not None


def _noise(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.asarray(rng.standard_normal(value.shape)).astype(value.dtype)
    return value


def _open_fed(graph: Graph, shown: list[str], crossing: Mapping[str, Any], threads: int, level: Level) -> Opened:
    """Load the whole so that it is fed what crosses, too: who writes that writes it under another name."""
    fresh = {name: f"{name}/written" for name in crossing}
    names = {fresh.get(name, name): name for name in shown}
    model = showing(graph.proto, list(names))
    for node in model.graph.node:
        node.output[:] = [fresh.get(name, name) for name in node.output]
    stated = [value for value in model.graph.value_info if value.name not in fresh]
    del model.graph.value_info[:]
    model.graph.value_info.extend(stated)
    for name, value in crossing.items():
        elem = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, elem, [None] * value.ndim))
    session = Session(model, graph.file, list(names), threads, level)
    return lambda feeds: {names[name]: value for name, value in session(feeds).items()}
