"""Parts held to the whole one by one, with noise in place of what crosses their borders.

An output that is the same whatever the input (a saturated softmax, say) tells nothing about the parts before it. With
noise in place of the tensors that cross, and with all that is computed on the way in sight, each part has something to
show, and the whole is the reference: its operators read the same noise there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pepper.graph.ir import Graph
from pepper.graph.manifest import Manifest
from pepper.graph.rounding import Level, Opened, Values, compare, floors, has_value, too_vague, varies
from pepper.graph.running import Session, showing
from pepper.graph.source import read_proto


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
    reads = [{spec.name for spec in part.inputs} & set(crossing) for part in manifest.parts]
    fed = {output: names for names, outputs in zip(reads, shown, strict=True) for output in outputs if names}
    form = partial(_open_fed, graph, list(found[0]), {name: values[name] for name in crossing}, fed, threads)
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


def _open_fed(
    graph: Graph,
    shown: list[str],
    crossing: Mapping[str, Any],
    fed: Mapping[str, Collection[str]],
    threads: int,
    level: Level,
) -> Opened:
    """Load the whole so that it is fed what crosses, too.

    Who writes a tensor, and reads it in the same part, goes on with what it writes; the other parts are fed.

    Args:
        graph: The whole.
        shown: Tensors to return.
        crossing: What crosses, by name.
        fed: The names of what an operator is fed, by what it writes.
        threads: Threads of the session.
        level: How far onnxruntime optimises.
    """
    model = showing(graph.proto, shown)
    for node in model.graph.node:
        names = next((fed[output] for output in node.output if output in fed), ())
        _read_instead(node, {name: _fed(name) for name in names})
    for name, value in crossing.items():
        elem = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(_fed(name), elem, [None] * value.ndim))
    session = Session(model, graph.file, shown, threads, level)
    return lambda feeds: session({_fed(name) if name in crossing else name: value for name, value in feeds.items()})


def _fed(name: str) -> str:
    return f"{name}/fed"


def _read_instead(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and what its bodies take from around them, read other tensors."""
    if not names:
        return
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*body.input, *body.initializer)}
            own |= {output for inner in body.node for output in inner.output}
            outer = {name: other for name, other in names.items() if name not in own}
            for inner in body.node:
                _read_instead(inner, outer)
            for output in body.output:
                output.name = outer.get(output.name, output.name)
