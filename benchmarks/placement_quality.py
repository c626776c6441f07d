"""How good are pepper's placements when every part's time was measured?

Reads every VALID cell of a tracking store, such as this command leaves there: python -m pepper.run +sweep=grid.
A case is a real model, a load on each of three emulated devices (share100 as the server, share50 as the edge,
share25 as the camera, where the input arises and the result is wanted), and a link between them. pepper and the
baselines decide on the predictions of a latency model that was trained without the case's model; their plans are
then costed with the measured times. Reference: the best of all plans over the measured parts (exhaustive).
Times are means, which add up along a plan. Regret is a plan's measured value over the optimum's.
"""

import argparse
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import composed, print_table
from pepper import config
from pepper.fleet import Link
from pepper.graph.cuts import cut_behind
from pepper.graph.ir import Graph
from pepper.graph.model import find_model
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.error_components import error_components
from pepper.latency.features import COLUMN, SETTING, Setting, Values
from pepper.latency.model import LatencyModel
from pepper.latency.stage_costs import handling_ms, wait_ms
from pepper.placement.baselines import BASELINES
from pepper.placement.decision import Spread, decide
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.objectives import objective_named
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.tracking.history import history
from pepper.tracking.store import Store

DEVICES = ("share100", "share50", "share25")
CAMERA = DEVICES[-1]
PATTERNS = {
    "idle": ("idle", "idle", "idle"),
    "server a little busy": ("cpu25", "idle", "idle"),
    "server busy": ("cpu75", "idle", "idle"),
    "edge busy, camera a little": ("idle", "cpu75", "cpu25"),
    "all busy": ("cpu75", "cpu75", "cpu75"),
}
"""Loads of the devices, in their order."""
LINKS = ("wifi", "ethernet_100mbit", "ethernet_1gbit")
OBJECTIVES = ("latency", "throughput")
PEPPER = ("pepper", "pepper, noise not regarded")

Range = tuple[int, int]
Times = Mapping[tuple[Range, str, str], float]
"""Milliseconds of a range of operators on a device under a load."""


@dataclass(frozen=True)
class Case:
    """A model on loaded devices.

    Attributes:
        model: The model.
        pattern: The loads' name.
        truth: The problem with measured times.
        predicted: The same with predicted times; what was not measured cannot be chosen.
        complete: Whether every part is measured on every device.
    """

    model: str
    pattern: str
    truth: ChainProblem
    predicted: ChainProblem
    complete: bool


def ranges(cells: pd.DataFrame, sizes: Mapping[str, int]) -> dict[tuple[str, str], Range]:
    """Return by model and by a part's hash which operators it has, from the cells' names.

    Args:
        cells: Logged cells; a part is called ``MODEL[START:STOP]``.
        sizes: Number of operators of each model.
    """
    found = {}
    names = cells[["params.family", "params.model", "params.model_sha256"]].drop_duplicates()
    for family, name, sha256 in names.itertuples(index=False, name=None):
        if family in sizes:
            part = re.fullmatch(r".*\[(\d+):(\d+)\]", name)
            found[family, sha256] = (int(part[1]), int(part[2])) if part else (0, sizes[family])
    return found


def borders(parts: Collection[Range], count: int) -> list[int]:
    """Return where parts start and stop, so that each step between two neighbours is measured.

    Of all ways through the model by measured parts this is the one between whose borders the most parts are.

    Args:
        parts: The measured ranges.
        count: Number of operators.
    """
    onward: dict[int, list[int]] = {}
    for start, stop in parts:
        onward.setdefault(start, []).append(stop)

    def paths(here: int) -> Iterator[list[int]]:
        if here == count:
            yield [here]
        for stop in onward.get(here, ()):
            yield from ([here, *path] for path in paths(stop))

    def inside(path: list[int]) -> int:
        return sum(part[0] in path and part[1] in path for part in parts)

    return max(paths(0), key=inside, default=[0, count])


def settings(rows: Rows) -> dict[tuple[str, str], Setting]:
    """Return each device under each load as features describe it."""
    found = {}
    for index, key in enumerate(zip(rows.device.tolist(), rows.load.tolist(), strict=True)):
        if key not in found:
            found[key] = Setting(**{name: float(rows.features[index, COLUMN[name]]) for name in SETTING})
    return found


def problems(
    graph: Graph,
    measured: Times,
    predicted: Times,
    loads: Mapping[str, str],
    known: Mapping[tuple[str, str], Setting],
) -> tuple[ChainProblem, ChainProblem]:
    """Return the problem with measured and the one with predicted times; what was not measured cannot be chosen.

    What a stage costs besides its inference is as predicted in both.

    Args:
        graph: The model.
        measured: Measured times.
        predicted: Predicted times.
        loads: The load of each device.
        known: Each device under each load.
    """
    positions = borders({part for part, _, _ in measured}, len(graph.operators))
    at = {position: number for number, position in enumerate(positions)}
    truth, guess = (np.full((len(positions), len(positions), len(loads)), np.inf) for _ in range(2))
    for (part, device, load), time_ms in measured.items():
        if loads.get(device) == load and part[0] in at and part[1] in at:
            entry = (at[part[0]], at[part[1]], list(loads).index(device))
            truth[entry], guess[entry] = time_ms, predicted[part, device, load]
    ends = [sum(graph.tensors[t].bytes or 0 for t in ids) for ids in (graph.inputs, graph.outputs)]
    inner = [cut_behind(graph, position).bytes for position in positions[1:-1]]
    crossing = [ends[0], *(np.inf if size is None else size for size in inner), ends[1]]
    links = Links.uniform(len(loads), Link(1.0))
    here = [known.get(pair, Setting()) for pair in loads.items()]
    devices = [DeviceKind(name, wait_ms=wait_ms(setting)) for name, setting in zip(loads, here, strict=True)]
    received = np.nan_to_num(np.array(crossing, float), posinf=0.0)
    handling = np.stack([handling_ms(setting, received) for setting in here], axis=1)
    first, second = (
        ChainProblem.of(devices, times, crossing, links, handling_ms=handling, source=CAMERA, sink=CAMERA)
        for times in (truth, guess)
    )
    return first, second


def every_plan(problem: ChainProblem) -> Iterator[Stages]:
    """Yield every plan over the parts that have a time, each device at most once."""

    def onward(start: int, before: Stages) -> Iterator[Stages]:
        if start == problem.n_steps:
            yield before
            return
        used = {stage.device for stage in before}
        for stop, device in np.argwhere(np.isfinite(problem.part_ms[start])).tolist():
            if stop > start and device not in used:
                yield from onward(stop, (*before, Stage(start, stop, device)))

    return onward(0, ())


def read(folder: Path) -> tuple[Rows, pd.DataFrame]:
    """Return what was measured, as rows and as logged cells."""
    store = Store(composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}").tracking)
    cells = history(store)
    return collect(cells, folder / "cache").rows, cells


def cases(rows: Rows, cells: pd.DataFrame) -> tuple[list[Case], dict[str, Spread]]:
    """Return the cases over which plans can be compared, and for each model how far predictions of others are off.

    A case needs the whole model measured on each device, and one plan of several parts.
    """
    models = [file.stem for file in sorted((config.conf_dir() / "model").glob("*.yaml")) if file.stem in rows.model]
    graphs = {}
    for model in models:
        file = find_model(composed(f"model={model}").model)
        graphs[model] = file.graph()
    where = ranges(cells, {model: len(graph.operators) for model, graph in graphs.items()})
    predicted_ms, predicted_mean_ms = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    keys = ["params.model_sha256", "params.device", "params.load"]
    valid = cells[cells["verdict"] == "VALID"].sort_values("ended_ms")
    mean_ms = valid.groupby(keys)["metrics.latency_mean_ms"].last().to_dict()
    for model in models:
        of = rows.model == model
        known = rows.take(~of)
        fitted = LatencyModel.fit(known.features, known.p50_ms)
        predicted_ms[of] = fitted.p50_ms(rows.features[of])
        predicted_mean_ms[of] = fitted.mean_ms(rows.features[of])
    found, spreads, devices = [], {}, settings(rows)
    for model, graph in graphs.items():
        of = np.isin(rows.model, models) & (rows.model != model)
        spreads[model] = _spread(rows.take(of), predicted_ms[of])
        measured, predicted = ({}, {})
        for index in np.flatnonzero(rows.model == model).tolist():
            key = (where[model, rows.part[index]], str(rows.device[index]), str(rows.load[index]))
            measured[key] = mean_ms[rows.part[index], rows.device[index], rows.load[index]]
            predicted[key] = float(predicted_mean_ms[index])
        for pattern, loads in PATTERNS.items():
            truth, guess = problems(graph, measured, predicted, dict(zip(DEVICES, loads, strict=True)), devices)
            times = truth.part_ms[np.triu_indices(truth.n_steps + 1, 1)]
            there = times[np.isfinite(times).any(axis=1)]
            plans = [len(plan) for plan in every_plan(truth)]
            if np.isfinite(truth.part_ms[0, -1]).all() and max(plans, default=0) > 1:
                found.append(Case(model, pattern, truth, guess, bool(np.isfinite(there).all())))
    return found, spreads


def regrets(case: Case, link: Link, objective: str, spread: Spread) -> dict[str, float]:
    """Return the regret of each way of placing; ``inf`` where its plan was not measured, or it has none."""
    links = Links.uniform(len(DEVICES), link)
    truth, predicted = replace(case.truth, links=links), replace(case.predicted, links=links)
    goal = objective_named(objective)
    optimum = min(goal.value(evaluate(truth, plan)) for plan in every_plan(truth))
    decision = decide(predicted, goal, spread)
    plans: dict[str, Stages | None] = dict(zip(PEPPER, (decision.chosen.stages, decision.best.stages), strict=True))
    plans |= {name: baseline(predicted, goal) for name, baseline in BASELINES.items()}
    return {
        name: goal.value(evaluate(truth, plan)) / optimum if plan is not None else np.inf
        for name, plan in plans.items()
    }


def _spread(rows: Rows, predicted_ms: Values) -> Spread:
    if not len(rows):
        return Spread()
    return Spread(*error_components(np.log(rows.p50_ms / predicted_ms), rows.model, rows.device, rows.part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store's folder (default: mlruns)")
    parser.add_argument("--links", nargs="+", default=list(LINKS), help=f"options of link (default: {' '.join(LINKS)})")
    options = parser.parse_args()
    found, spreads = cases(*read(options.folder.absolute()))
    models = {case.model for case in found}
    complete = sum(case.complete for case in found)
    print(
        f"{len(found)} cases of {len(models)} models and {len(PATTERNS)} load patterns can be compared,"
        f" {complete} of them with every part measured on every device; {len(options.links)} links each"
    )
    lines = []
    for link_name in options.links:
        chosen = composed(f"link={link_name}").link
        link = Link(chosen.bandwidth_mbit_s, chosen.latency_ms)
        for case, objective in itertools.product(found, OBJECTIVES):
            for name, value in regrets(case, link, objective, spreads[case.model]).items():
                lines.append((link_name, case.model, case.pattern, objective, name, value))
    if not lines:
        raise SystemExit("nothing to compare: measure with python -m pepper.run +sweep=grid")
    table = pd.DataFrame(lines, columns=["link", "model", "pattern", "objective", "plan", "regret"])
    header = ["median", "90 %", "worst", "optimal", "not measured"]
    for objective in OBJECTIVES:
        of = table[table["objective"] == objective]
        print_table(
            f"regret in {objective}, {len(of) // of['plan'].nunique()} cases",
            ["plan", *header],
            [[str(name), *_figures(group["regret"].to_numpy())] for name, group in of.groupby("plan", sort=False)],
        )
    of = table[table["plan"] == PEPPER[0]]
    for by in ("link", "model", "pattern"):
        print_table(
            f"pepper's regret by {by}",
            [by, *header],
            [[str(name), *_figures(group["regret"].to_numpy())] for name, group in of.groupby(by, sort=False)],
        )


def _figures(regret: Values) -> list[str]:
    known = regret[np.isfinite(regret)]
    if not known.size:
        return ["", "", "", "", str(regret.size)]
    return [
        *(f"{value:.3f}" for value in (np.median(known), np.quantile(known, 0.9), known.max())),
        f"{np.mean(known < 1.0005):.0%}",
        str(regret.size - known.size),
    ]


if __name__ == "__main__":
    main()
