"""``task=split``: write a model's parts, and prove that they compute what the whole does."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.frames import Framed
from pepper.console.progress import StepProgress
from pepper.console.tables import parts_table, show
from pepper.errors import ConfigError, ModelError
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics, CostWarning, in_kinds
from pepper.graph.costs import operator_work
from pepper.graph.cuts import Cut, cut_at, cut_behind, how_to_cut
from pepper.graph.ir import Graph
from pepper.graph.manifest import Manifest, is_split
from pepper.graph.split import part_operators
from pepper.graph.split import split as write_parts
from pepper.graph.verify import Verification, prove
from pepper.outputs import output_folder
from pepper.placement.plan import Plan
from pepper.planning.splitting import planned_cuts, proved_plan
from pepper.tasks.cuts import configured_cuts, load
from pepper.tasks.result import Result


def split(composition: Composition) -> Result:
    """Split the model as the configuration says.

    Returns:
        Its status is 0, or 1 if it is not proved that the parts compute what the whole does.

    Raises:
        ConfigError: There is nowhere to write to.
        ModelError: The model cannot be read, or not be cut as asked.
    """
    config = composition.config
    if not config.split.out:
        raise ConfigError("split.out: has no value; give split.out=DIR, the folder for the parts")
    out = output_folder("split.out", Path(config.split.out), is_split)
    with StepProgress(3, config.is_quiet, seldom=True) as progress:
        graph = load(config)
        macs = _macs(graph)
        work = operator_work(graph)
        name = f"split.plan={config.split.plan}"
        plan = Plan.load(Path(config.split.plan)) if config.split.plan else None
        cuts = _cuts(graph, config, work) if plan is None else planned_cuts(graph, plan, name)
        progress.advance("read the model", f"{len(graph.operators)} operators")
        manifest = write_parts(graph, cuts, out)
        progress.advance("write the parts", f"{len(manifest.parts)} parts")
        checked = config.split.tolerance, config.split.seed
        if plan is None:
            result = prove(graph, manifest, out, *checked)
        else:
            manifest, result = proved_plan(graph, plan, manifest, out, name, *checked)
        progress.advance("run parts and whole", "compared")
    _say(part_rows(graph, cuts, macs.tolist(), work), manifest, out, result)
    if config.split.log:
        _log(config, manifest, out, result)
    return Result(0 if result.ok else 1)


def _macs(graph: Graph) -> np.ndarray:
    """MACs of each operator, shape (operators,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        characteristics = Characteristics(graph)
    for gap in in_kinds(characteristics.gaps):
        print(f"warning: {gap}", file=sys.stderr)
    return np.diff(characteristics.cumulative_macs)


def _cuts(graph: Graph, config: PepperConfig, work: Sequence[float]) -> list[Cut]:
    at = config.split.at
    if at is not None:
        return [
            cut_behind(graph, int(name))
            if name.isdecimal() and name not in graph.by_name
            else cut_at(graph, name, config.cuts.max_tensors)
            for name in at
        ]
    found = configured_cuts(graph, config)
    if config.split.every:
        return found
    parts = config.split.parts or 2
    if not found and parts > 1:
        raise ModelError(
            f"split.parts={parts}: {graph.file} has no cuts of kind {config.cuts.kind}; {how_to_cut(graph, parts)}"
        )
    distance, enough = config.cuts.bridge_dist, sum(cut.in_order for cut in found) + 1
    if distance > 1 and enough < parts:
        raise ModelError(
            f"cuts.bridge_dist={distance}: leaves cuts for {enough} parts, and split.parts={parts} are wanted; give"
            f" split.parts={enough} or a smaller distance"
        )
    return balanced_cuts(graph, found, parts, work)


@dataclass(frozen=True)
class PartRow(Framed):
    """A part as plain values.

    Attributes:
        operators: How many it has.
        macs: Its multiply-accumulates.
        share: Its share of the model's work, see `pepper.graph.costs.operator_work`.
        inputs: Names of what it reads of the parts before it, or of the model's inputs.
        input_bytes: Their sizes; None where a shape is unknown.
    """

    operators: int
    macs: float
    share: float
    inputs: list[str]
    input_bytes: list[int | None]


def part_rows(graph: Graph, cuts: Sequence[Cut], macs: Sequence[float], work: Sequence[float]) -> list[PartRow]:
    """Return the parts between cuts as plain values.

    Args:
        graph: The graph.
        cuts: Where it is cut.
        macs: Of each operator.
        work: Of each operator.
    """
    rows = []
    for group in part_operators(graph, cuts):
        inside = set(group)
        read = dict.fromkeys(t for index in group for t in graph.operators[index].reads)
        fed = [graph.tensors[t] for t in read]
        fed = [t for t in fed if not t.is_weight and t.producer not in inside]
        share = sum(work[index] for index in group) / sum(work) if work else 1.0
        done = sum(macs[index] for index in group)
        rows.append(PartRow(len(group), done, share, [t.name for t in fed], [t.bytes for t in fed]))
    return rows


def _say(parts: Sequence[PartRow], manifest: Manifest, out: Path, result: Verification) -> None:
    rows = [{"file": part.file, **asdict(row)} for part, row in zip(manifest.parts, parts, strict=True)]
    show(parts_table(rows), parts=rows)
    show(
        f"{len(manifest.parts)} parts and manifest.json in {out}",
        folder=out,
        difference=result.difference,
        tolerance=result.tolerance,
        proof=str(result),
    )
    say_proof(result)


def say_proof(result: Verification) -> None:
    """Say what came of the proof; on stderr if that is nothing."""
    if result.ok:
        show(str(result))
    else:
        print(f"error: {result}; the parts are written, and their manifest says so", file=sys.stderr)


def _log(config: PepperConfig, manifest: Manifest, out: Path, result: Verification) -> None:
    from pepper.tracking.abandoned import close_abandoned
    from pepper.tracking.posting import log
    from pepper.tracking.record import Record
    from pepper.tracking.store import Store

    store = Store(config.tracking)
    close_abandoned(store)
    record = Record(
        kind="split",
        name=f"split {config.model.name}",
        params={"model": config.model.name, "parts": len(manifest.parts), "source_sha256": manifest.source_sha256},
        metrics={"difference": result.difference},
        artifacts=out,
        below="parts",
    )
    run_id = log(store, record, "what is to be logged of the parts").run_id
    show(f"logged as run {run_id}", run_id=run_id)
