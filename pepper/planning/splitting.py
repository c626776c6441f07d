"""The parts of plans: where a plan cuts its model, and the files of its parts."""

from collections.abc import Collection
from pathlib import Path

from pepper.config.placing import PlanGraph
from pepper.errors import ConfigError, ExecutionError
from pepper.execution.layout import Layout
from pepper.graph.cuts import Cut, cut_behind
from pepper.graph.ir import Graph
from pepper.graph.manifest import read_manifest
from pepper.graph.split import split
from pepper.placement.plan import Plan


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
        """
        return self.layout(planned_cuts(self.graph, plan, name), plan.devices, plan.graph == PlanGraph.dag)

    def layout(self, cuts: Collection[Cut], devices: Collection[str], direct: bool = False) -> Layout:
        """Split at these cuts, and place the parts."""
        self._written += 1
        folder = self._folder / f"{self._written}"
        return Layout.of(split(self.graph, list(cuts), folder), folder, list(devices), direct)


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
    layout = Layout.of(manifest, folder, plan.devices, plan.graph == PlanGraph.dag)
    for part in manifest.parts:
        if not part.is_intact(folder):
            raise ExecutionError(f"execute.parts={folder}: {part.file} is not as it was split; split again")
    return layout
