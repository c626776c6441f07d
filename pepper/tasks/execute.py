"""``task=execute``: run a plan, hold its predictions to what is measured."""

import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.config.placing import PlanGraph, Precision
from pepper.console.output import add_results
from pepper.console.progress import StepProgress
from pepper.console.tables import figure, show
from pepper.errors import ConfigError, ModelError, PlacementError, listed
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.graph.ir import Graph
from pepper.graph.manifest import read_manifest
from pepper.graph.verify import Verification, verify
from pepper.hosts import reach
from pepper.measure.statistics import summarise
from pepper.outputs import results_folder
from pepper.placement.plan import Plan
from pepper.planning.fleets import check_devices
from pepper.planning.foresight import Foresight
from pepper.planning.measured import Kept, MeasuredPlan
from pepper.planning.measuring import measure_plan, samples_of
from pepper.planning.other_plans import other_plans, run_others, wrong_answer
from pepper.planning.planned import Planned
from pepper.planning.splitting import Splitter, written_layout
from pepper.report.execution_tables import RunLine, links_table, moves_table, runs_table, steps_table
from pepper.report.executions import link_lines, metrics_of, move_lines, run_lines, step_lines, tables
from pepper.tasks.execution_log import log_run, logged_if_cut_short
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.store import Store

_MOST_SHOWN = 20
"""Other plans in the table; all of them are in runs.csv."""


@dataclass(frozen=True, kw_only=True)
class Executed(Result):
    """What came of running a plan.

    Attributes:
        runs: What was measured of the plan, and of the others that were run.
    """

    runs: list[RunLine]


def execute(composition: Composition) -> Executed:
    """Run the plan as the configuration says.

    Returns:
        Its status is 0, or 1 if an answer differs from the whole model's, nothing is proved of the parts, or a
        request failed.

    Raises:
        ConfigError: No plan is given, or this machine cannot give a device.
        ExecutionError: The plan is of another model, or cannot be run.
        LatencyError: Moves are wanted, and the champion cannot be used.
        PlacementError: The file is no plan.
    """
    config = composition.config
    if not config.execute.plan:
        raise ConfigError("execute.plan: has no value; give execute.plan=FILE, a plan.json of task=place")
    results_folder("execute.out", config.execute.out)  # what cannot be written to is said first
    try:
        plan = Plan.load(Path(config.execute.plan))
    except PlacementError as error:
        raise PlacementError(f"execute.plan={error}") from error
    return execute_plan(config, plan, f"execute.plan={config.execute.plan}")


def execute_plan(config: PepperConfig, plan: Plan, name: str) -> Executed:
    """Run a plan as the configuration says.

    Args:
        config: The whole configuration; its own plan does not count.
        plan: The plan.
        name: How an error calls it.

    Returns:
        As of `execute`.

    Raises:
        ConfigError: This machine cannot give a device.
        ExecutionError: The plan is of another model, or cannot be run.
        LatencyError: Moves are wanted, and the champion cannot be used.
    """
    reach.use(config.hosts)
    out = results_folder("execute.out", config.execute.out)
    planned = Planned(config, plan, name)
    graph, fleet, options = planned.graph, plan.fleet, config.execute
    if options.moves.allowed and plan.graph == PlanGraph.dag:
        raise ConfigError(
            "execute.moves.allowed=true: moves are for chains, and the parts of this plan run side by side; leave it"
            " out, or place with place.graph=chain"
        )
    lower = set(plan.precisions) - {Precision.fp32}
    if options.moves.allowed and lower:
        raise ConfigError(
            f"execute.moves.allowed=true: moves are for parts in the model's own precision, and some of this plan's run"
            f" in {listed(sorted(lower))}; leave it out, or place with place.variants=[fp32]"
        )
    check_devices("execute.moves.load_change", options.moves.load_change, list(fleet.devices))
    store = Store(replace(config.tracking, experiment=options.experiment))
    close_abandoned(store)
    kept = Kept()
    with tempfile.TemporaryDirectory(prefix="pepper-") as scratch, logged_if_cut_short(config, store, out, plan, kept):
        folder = Path(scratch)
        splitter = Splitter(graph, folder / "parts")
        layout = written_layout(plan, Path(options.parts), name) if options.parts else splitter.planned(plan, name)
        samples, untold = samples_of(config, graph, layout, plan, name)
        foresight = Foresight(planned, splitter, layout) if options.moves.allowed else None
        others = other_plans(planned)
        (folder / "net").mkdir()
        with (
            closing(Network(fleet, folder / "net", options.transport.queue, options.transport.port)) as network,
            StagePool(fleet, config.measure.session, options.time_limit_seconds) as pool,
            StepProgress(4 + options.moves.allowed + len(others), config.is_quiet) as progress,
        ):
            measured = measure_plan(planned, splitter, pool, network, layout, samples, foresight, progress, kept)
            run_others(others, config, splitter, pool, network, samples, progress, kept.others)
        measured = replace(measured, others=kept.others, refused=network.refused)
        try:
            _say(plan, measured)
        finally:  # whoever reads the output may have seen enough, as with `| head`
            log_run(config, store, out, plan, measured, kept)
        unproved = len(untold) == len(graph.outputs) and not proved_by_themselves(config, graph, layout)
    failures = measured.failures
    if failures:
        print(f"error: {len(failures)} requests or plans failed, the first: {failures[0]}", file=sys.stderr)
    wrong = measured.excess > 1
    if wrong:
        key = "place.max_error, or execute.tolerance" if lower else "execute.tolerance"
        print(f"error: {wrong_answer(measured.difference, measured.excess, key)}", file=sys.stderr)
    for reason in dict.fromkeys(untold.values()):
        outputs = [repr(output) for output, why in untold.items() if why == reason]
        print(f"warning: output {listed(outputs)} {reason}: its answers prove nothing", file=sys.stderr)
    return Executed(status=1 if failures or wrong or unproved else 0, runs=run_lines(plan, measured))


def proved_by_themselves(config: PepperConfig, graph: Graph, layout: Layout, name: str = "the parts") -> bool:
    """Hold the parts to the whole as `task=split` does, where the answers tell nothing; say what came of it."""
    folder = layout.parts[0].file.parent
    try:
        proof = verify(graph, read_manifest(folder), folder, config.execute.tolerance, config.execute.seed)
    except ModelError as error:
        proof = Verification(doubt=str(error))
    if proof.ok:
        show(f"{name} by themselves: {proof}")
    else:
        print(f"error: {name} by themselves: {proof}", file=sys.stderr)
    return proof.ok


def _say(plan: Plan, measured: MeasuredPlan) -> None:
    links = link_lines(measured)
    if links:
        show(links_table(links))
    show(steps_table(step_lines(plan, measured)))
    add_results(**tables(plan, measured), metrics=metrics_of(plan, measured))
    rate = measured.arrivals
    found = summarise(rate.latency_ms)
    said = [("median", "p50"), ("p90", "p90"), ("p95", "p95"), ("longest", "max")]
    times = ", ".join(
        f"{word} {figure(found[key])} ms" for word, name in said if (key := f"latency_{name}_ms") in found
    )
    show(f"at {measured.rate_per_s:.3g} requests/s (Poisson), {len(rate.answers)} of them: {times}")
    show(f"largest difference to the whole model: {measured.difference:.2g} of the largest value")
    for fault in measured.faults:
        show(f"INVALID: {fault}")
    for refusal in measured.refusals:
        show(refusal, refused_connections=measured.refused)
    if measured.adapted is not None:
        answers, moves = measured.adapted.trial.answers, measured.adapted.moves
        show(f"watching the loads for {len(answers)} more requests at that rate: {len(moves) or 'no'} moves")
        if moves:
            show(moves_table(move_lines(measured.adapted)))
    for event in measured.all_events:
        show(f"{event.kind}: {event.note}")
    if measured.others.runs:
        given, *others = run_lines(plan, measured)
        best = sorted(others, key=lambda line: line.ratio or line.latency_ms)[:_MOST_SHOWN]
        show(runs_table([given, *best]))
        if len(best) < len(others):
            show(f"{len(others) - len(best)} more plans were slower; runs.csv lists them")
    for other in measured.others.not_run:
        show(f"not run: {other.name} on {other.devices}: {other.reason}")
