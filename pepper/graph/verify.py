"""Proof that parts compute what the whole does: both run on the same inputs, and are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx

from pepper.errors import ModelError, listed
from pepper.graph.ir import Graph
from pepper.graph.manifest import Manifest, write_manifest
from pepper.graph.noise import hold_to_noise
from pepper.graph.rounding import (
    CONSTANT,
    Run,
    Values,
    compare,
    difference,
    excess,
    explained,
    floors,
    has_value,
    too_vague,
    untold,
)
from pepper.graph.running import open_whole, random_inputs, run_parts

_DRAWS = 3
"""Inputs on which the whole runs, to see which of its outputs tell anything."""


@dataclass(frozen=True)
class Verification:
    """Whether parts compute what the whole does.

    Attributes:
        difference: Largest difference of an output, see `pepper.graph.rounding.difference`, in the one that comes
            nearest to its tolerance or is farthest beyond it.
        output: That output.
        tolerance: The difference accepted there.
        boundary: If it is beyond the tolerance: the first crossing tensor, in the order in which the parts
            write them, that diverges; the output itself if none does.
        untold: Outputs that tell nothing about how they were computed, with the reason.
        doubt: Why nothing is proved, though no difference was found; None if it is.
        accepts: What accepts that difference.
    """

    difference: float = float("nan")
    output: str = ""
    tolerance: float = float("nan")
    boundary: str | None = None
    untold: Mapping[str, str] = field(default_factory=dict)
    doubt: str | None = None
    accepts: str = "rounding explains"

    @property
    def ok(self) -> bool:
        """Whether it is proved that the parts compute what the whole does."""
        return self.doubt is None and self.boundary is None

    def __str__(self) -> str:
        far = f"largest difference {self.difference:.2g} of the largest value, in output {self.output!r}"
        if self.doubt is not None:
            return f"not proved: {self.doubt}"
        if self.boundary is not None:
            return (
                f"not proved: parts and whole differ: {far}, where {self.accepts} {self.tolerance:.2g};"
                f" the first boundary that diverges is {self.boundary!r}"
            )
        but = "".join(
            f"; output {listed([repr(name) for name, why in self.untold.items() if why == reason])} {reason} and proves"
            " nothing by itself"
            for reason in dict.fromkeys(self.untold.values())
        )
        near = "on these samples parts answer nearly what the whole does"
        what = "parts compute what the whole does" if self.accepts == Verification.accepts else near
        return f"proved: {what} ({far}; {self.accepts} {self.tolerance:.2g}){but}"


def prove(
    graph: Graph, manifest: Manifest, folder: Path, tolerance: float | None = None, seed: int = 0
) -> Verification:
    """Verify the parts, and write the outcome into their manifest: until then they are not proved.

    What keeps them from being run is an outcome, too. Arguments are those of `verify`.
    """
    try:
        flaw = _flaw(graph, manifest, folder)
        found = Verification(doubt=flaw) if flaw else verify(graph, manifest, folder, tolerance, seed)
    except ModelError as error:
        found = Verification(doubt=str(error))
    write_manifest(replace(manifest, proof=str(found)), folder)
    return found


def within_error(
    graph: Graph, manifest: Manifest, folder: Path, samples: Sequence[Values], max_error: float
) -> Verification:
    """Run the whole model and its parts, some in other precisions, on the same samples, compare their outputs, and
    write the outcome into the manifest.

    Args:
        graph: The whole model, at the shapes to run.
        manifest: The parts.
        folder: Where they are.
        samples: Inputs by name.
        max_error: The largest relative difference accepted.
    """
    try:
        whole = open_whole(graph, 0)
        expected = [whole(feeds) for feeds in samples]
        got = [run_parts(manifest, folder, feeds) for feeds in samples]
        far = {
            name: max(difference(run[name], values[name]) for run, values in zip(expected, got, strict=True))
            for name in expected[0]
        }
        worst = max(far, key=far.__getitem__)
        beyond = worst if far[worst] > max_error else None
        silent = untold(graph, samples, expected)
        found = Verification(far[worst], worst, max_error, beyond, silent, accepts="place.max_error accepts")
    except ModelError as error:
        found = Verification(doubt=str(error))
    write_manifest(replace(manifest, proof=str(found)), folder)
    return found


def verify(
    graph: Graph, manifest: Manifest, folder: Path, tolerance: float | None = None, seed: int = 0, threads: int = 0
) -> Verification:
    """Run the whole model and its parts on the same random inputs and compare their outputs.

    Args:
        graph: The whole model, at the shapes to run.
        manifest: What `pepper.graph.split.split` returned.
        folder: Where the parts are.
        tolerance: The largest relative difference accepted; None is what rounding explains, see `accepted`.
        seed: Seed of the inputs; the next ones are tried where an output tells nothing.
        threads: Threads of each session; 0 means one a core.

    Raises:
        ModelError: onnxruntime cannot run the whole or a part.
    """
    draws = [random_inputs(graph, seed + number) for number in range(_DRAWS)]
    whole = open_whole(graph, threads)
    expected = [whole(feeds) for feeds in draws]
    silent = untold(graph, draws, expected)
    first = (next((n for n, run in enumerate(expected) if has_value(run[name])), 0) for name in expected[0])
    runs = [(draws[n], expected[n]) for n in sorted(set(first))]
    values = [run_parts(manifest, folder, feeds, threads) for feeds, _ in runs]
    forms = partial(open_whole, graph, threads)
    far, limits = compare(runs, values, floors(graph, expected[0]), tolerance, forms)
    vague = too_vague(limits, far)
    silent |= vague
    far |= dict.fromkeys(vague, 0.0)
    worst = max(far, key=lambda name: excess(far[name], limits[name]))
    result = Verification(far[worst], worst, limits[worst], untold=silent)
    if far[worst] > limits[worst]:
        crossing = [spec.name for part in manifest.parts for spec in part.outputs if spec.name not in far]
        inner = open_whole(graph, threads, outputs=crossing)(runs[0][0])
        diverging = (name for name in crossing if difference(inner[name], values[0][name]) > limits[worst])
        return replace(result, boundary=next(diverging, worst))
    unproved = _unproved(manifest, _told(graph, silent))
    if unproved and set(silent.values()) == {CONSTANT}:
        found = hold_to_noise(graph, manifest, folder, draws, values[0], tolerance, seed, threads)
        if found.beyond is not None:
            name = found.beyond
            return replace(result, difference=found.far[name], tolerance=found.limits[name], output=name, boundary=name)
        unproved = found.silent
    if unproved:
        reasons = ", ".join(f"output {name!r} {why}" for name, why in list(silent.items())[:3])
        fix = "give the inputs values that the model is made for (model.inputs.NAME=...), or another seed"
        return replace(result, doubt=f"{reasons}; {fix}")
    return result


def accepted(graph: Graph, runs: Sequence[Run], threads: int = 0) -> dict[str, float]:
    """Return the largest difference that rounding explains, by output, see `pepper.graph.rounding.explained`.

    Args:
        graph: The model.
        runs: Inputs, each with the whole's outputs.
        threads: Threads of a session; 0 means one a core.

    Raises:
        ModelError: onnxruntime cannot run the model in another form.
    """
    return explained(runs, floors(graph, runs[0][1]), partial(open_whole, graph, threads))


def telling(
    graph: Graph, runs: Sequence[Run], tolerance: float | None = None, threads: int = 0
) -> tuple[dict[str, str], dict[str, float]]:
    """Return what an answer can be held to.

    Args:
        graph: The model.
        runs: Inputs, each with the whole's outputs.
        tolerance: The difference accepted in every output; None is what rounding explains.
        threads: Threads of a session; 0 means one a core.

    Returns:
        The outputs that tell nothing, with the reason; and the difference accepted in each of the others.

    Raises:
        ModelError: onnxruntime cannot run the model in another form.
    """
    limits = accepted(graph, runs, threads) if tolerance is None else dict.fromkeys(runs[0][1], tolerance)
    silent = untold(graph, [inputs for inputs, _ in runs], [outputs for _, outputs in runs]) | too_vague(limits)
    return silent, {name: limit for name, limit in limits.items() if name not in silent}


def _told(graph: Graph, silent: Mapping[str, str]) -> set[str]:
    """Names of the tensors that outputs which tell something depend on."""
    needed = {t for t in graph.outputs if graph.tensors[t].name not in silent}
    for operator in reversed(graph.operators):
        if not needed.isdisjoint(operator.writes):
            needed.update(operator.reads)
    return {graph.tensors[t].name for t in needed}


def _unproved(manifest: Manifest, told: set[str]) -> bool:
    """Whether there is a part that gives nothing that tells something."""
    return any(told.isdisjoint(spec.name for spec in part.outputs) for part in manifest.parts)


def _flaw(graph: Graph, manifest: Manifest, folder: Path) -> str | None:
    """Say which part is no valid ONNX, if the whole is."""
    if _invalid(graph.file) is not None:
        return None
    for part in manifest.parts:
        reason = _invalid(folder / part.file)
        if reason is not None:
            return f"{part.file} is no valid ONNX, as the whole is: {reason}"
    return None


def _invalid(file: Path) -> str | None:
    try:
        onnx.checker.check_model(str(file))
    except Exception as error:  # onnx raises ValidationError, RuntimeError and ValueError alike
        return " ".join(str(error).split())[:300]
    return None
