"""The parts of plans: where a plan cuts its model, and the files of its parts."""

from collections.abc import Collection
from pathlib import Path

from pepper.config.placing import PlanGraph, Precision
from pepper.errors import ConfigError, ExecutionError
from pepper.execution.layout import Layout
from pepper.graph.cuts import Cut, cut_behind
from pepper.graph.ir import Graph
from pepper.graph.manifest import Manifest, read_manifest
from pepper.graph.precisions import parts_as
from pepper.graph.rounding import Values
from pepper.graph.split import split
from pepper.graph.verify import Verification, prove, within_error
from pepper.placement.plan import Plan
from pepper.planning.forms import Samples


def planned_cuts(graph: Graph, plan: Plan, name: str) -> list[Cut]:
    """Return the cuts between a plan's parts.

    Args:
        graph: The model that was placed.
        plan: The plan.
        name: How an error calls the plan.

    Raises:
        ConfigError: The plan is of another model.
    """
    cuts = [cut_behind(graph, part.start) for part in plan.parts[1:]]
    for cut, part in zip(cuts, plan.parts[1:], strict=True):
        crossing = tuple(graph.tensors[t].name for t in cut.tensors)
        if set(crossing) != set(part.inputs):
            raise ConfigError(
                f"{name}: cuts at {', '.join(part.inputs)}, where {graph.file} has {', '.join(crossing)};"
                " give the model that was placed"
            )
    return cuts


def samples_of_plan(graph: Graph, plan: Plan, name: str) -> tuple[Values, ...] | None:
    """Return what the error of a plan's answers was measured on; None where all parts are in the model's precision.

    Raises:
        ExecutionError: It is gone, has changed, or the plan does not say it.
    """
    if set(plan.precisions) == {Precision.fp32}:
        return None
    if plan.accuracy is None:
        raise ExecutionError(f"{name}: does not say how far its answers may differ; place the model again")
    return Samples.of_plan(graph, plan.accuracy, name).values


def proved_plan(
    graph: Graph,
    plan: Plan,
    manifest: Manifest,
    folder: Path,
    name: str,
    tolerance: float | None = None,
    seed: int = 0,
) -> tuple[Manifest, Verification]:
    """Put the parts of a plan, split already, into their precisions, and hold them to the whole.

    Args:
        graph: The model that was placed.
        plan: The plan.
        manifest: The split.
        folder: Where its files are.
        name: How an error calls the plan.
        tolerance: The largest relative difference accepted; None is what rounding explains, or the plan's own limit
            where parts run in other precisions.
        seed: Of the inputs; those of such a plan are its samples.

    Raises:
        ExecutionError: As of `samples_of_plan`.
        ModelError: A part cannot be made.
    """
    samples = samples_of_plan(graph, plan, name)
    if samples is None or plan.accuracy is None:
        return manifest, prove(graph, manifest, folder, tolerance, seed)
    manifest = parts_as(manifest, folder, plan.precisions, samples)
    limit = plan.accuracy.max_error if tolerance is None else tolerance
    return manifest, within_error(graph, manifest, folder, samples, limit)


class Splitter:
    """Writes the parts of one model's plans.

    Args:
        graph: The model.
        folder: Where the parts go.
    """

    def __init__(self, graph: Graph, folder: Path) -> None:
        self.graph = graph
        self._folder = folder
        self._written = 0

    def planned(self, plan: Plan, name: str) -> Layout:
        """Return the layout of a plan.

        Raises:
            ConfigError: The plan is of another model.
            ExecutionError: As of `samples_of_plan`.
            ModelError: A part cannot be made.
        """
        folder = self._next()
        manifest = split(self.graph, planned_cuts(self.graph, plan, name), folder)
        samples = samples_of_plan(self.graph, plan, name)
        if samples is not None:
            manifest = parts_as(manifest, folder, plan.precisions, samples)
        return Layout.of(manifest, folder, plan.devices, plan.graph == PlanGraph.dag)

    def layout(self, cuts: Collection[Cut], devices: Collection[str], direct: bool = False) -> Layout:
        """Split at these cuts, and place the parts."""
        folder = self._next()
        return Layout.of(split(self.graph, list(cuts), folder), folder, list(devices), direct)

    def _next(self) -> Path:
        self._written += 1
        return self._folder / f"{self._written}"


def written_layout(plan: Plan, folder: Path, name: str) -> Layout:
    """Return the layout of a plan whose parts were written before.

    Raises:
        ModelError: There is no split in the folder.
        ExecutionError: It is another split, or a part is missing or has changed.
    """
    manifest = read_manifest(folder)
    cuts = [set(names) for names in manifest.cuts]
    planned = [set(part.inputs) for part in plan.parts[1:]]
    if cuts != planned:
        raise ExecutionError(
            f"execute.parts={folder}: holds parts cut at {cuts or 'no tensor'}, {name} cuts at {planned or 'none'};"
            " split the plan's model again, or leave execute.parts out"
        )
    written = tuple(part.precision for part in manifest.parts)
    if written != plan.precisions:
        raise ExecutionError(
            f"execute.parts={folder}: holds parts in {', '.join(written)}, {name} has {', '.join(plan.precisions)};"
            " split the plan's model again (split.plan=FILE), or leave execute.parts out"
        )
    layout = Layout.of(manifest, folder, plan.devices, plan.graph == PlanGraph.dag)
    for part in manifest.parts:
        if not part.is_intact(folder):
            raise ExecutionError(f"execute.parts={folder}: {part.file} is not as it was split; split again")
    return layout
