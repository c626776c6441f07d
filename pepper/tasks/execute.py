"""``task=execute``: run a plan, hold its predictions to what is measured."""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.output import add_results
from pepper.console.progress import StepProgress
from pepper.console.tables import figure, show
from pepper.errors import ConfigError, ExecutionError, ModelError, PlacementError, listed
from pepper.execution.adapting import Adapter
from pepper.execution.conditions import ConditionMeter
from pepper.execution.layout import Layout, check_inputs
from pepper.execution.links import measure_hops
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Answer, Runner
from pepper.execution.trials import PAUSE_S, Sample, Trial, at_rate, one_at_a_time, saturated
from pepper.execution.watch import Watch
from pepper.graph.inputs import read_arrays
from pepper.graph.ir import Graph
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import read_manifest
from pepper.graph.verify import Verification, telling, verify
from pepper.measure.statistics import summarise
from pepper.outputs import results_folder
from pepper.placement.plan import Plan
from pepper.planning.fleets import check_devices
from pepper.planning.foresight import Foresight
from pepper.planning.measured import Adapted, MeasuredPlan
from pepper.planning.other_plans import other_plans, run_others, wrong_answer
from pepper.planning.planned import Planned
from pepper.planning.replanning import replanner
from pepper.planning.splitting import Splitter, written_layout
from pepper.report.execution_tables import RunLine, links_table, moves_table, runs_table, steps_table
from pepper.report.executions import link_lines, metrics_of, move_lines, run_lines, step_lines
from pepper.tasks.execution_log import Kept, log_run, logged_if_cut_short, tables
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.store import Store

_SAMPLES = 4
"""Different inputs, in turn: so that answers cannot be mixed up unseen."""

_MOST_SHOWN = 20
"""Other plans in the table; all of them are in runs.csv."""

_USUAL_RATE = 0.7
"""Of the throughput: busy, but not overloaded."""


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
        LatencyError: Moves are wanted, and there is no champion.
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
        LatencyError: Moves are wanted, and there is no champion.
    """
    out = results_folder("execute.out", config.execute.out)
    planned = Planned(config, plan, name)
    graph, fleet, options = planned.graph, plan.fleet, config.execute
    check_devices("execute.load_change", options.load_change, list(fleet.devices))
    store = Store(replace(config.tracking, experiment=options.experiment))
    close_abandoned(store)
    kept = Kept()
    with tempfile.TemporaryDirectory(prefix="pepper-") as scratch, logged_if_cut_short(config, store, out, plan, kept):
        folder = Path(scratch)
        splitter = Splitter(graph, folder / "parts")
        layout = written_layout(plan, Path(options.parts), name) if options.parts else splitter.planned(plan, name)
        samples, untold = _samples(config, graph, layout)
        foresight = Foresight(planned, splitter, layout) if options.adapt else None
        others = other_plans(planned)
        (folder / "net").mkdir()
        with (
            closing(Network(fleet, folder / "net", options.queue, options.port)) as network,
            StagePool(fleet, config.measure.session, options.time_limit_seconds) as pool,
            StepProgress(4 + options.adapt + len(others), config.output == "quiet") as progress,
        ):
            measured = _measure(planned, splitter, pool, network, layout, samples, foresight, progress, kept)
            run_others(others, config, splitter, pool, network, samples, progress, kept.others)
        measured = replace(measured, others=kept.others, refused=network.refused)
        try:
            _say(plan, measured)
        finally:  # whoever reads the output may have seen enough, as with `| head`
            log_run(config, store, out, plan, measured, kept)
        unproved = len(untold) == len(graph.outputs) and not _proved_by_themselves(config, graph, layout)
    failures = measured.failures
    if failures:
        print(f"error: {len(failures)} requests or plans failed, the first: {failures[0]}", file=sys.stderr)
    wrong = measured.excess > 1
    if wrong:
        print(f"error: {wrong_answer(measured.difference, measured.excess)}", file=sys.stderr)
    for reason in dict.fromkeys(untold.values()):
        outputs = [repr(output) for output, why in untold.items() if why == reason]
        print(f"warning: output {listed(outputs)} {reason}: its answers prove nothing", file=sys.stderr)
    return Executed(status=1 if failures or wrong or unproved else 0, runs=run_lines(plan, measured))


def _proved_by_themselves(config: PepperConfig, graph: Graph, layout: Layout) -> bool:
    """Hold the parts to the whole as `task=split` does, where the answers tell nothing; say what came of it."""
    folder = layout.parts[0].file.parent
    try:
        proof = verify(graph, read_manifest(folder), folder, config.execute.tolerance, config.execute.seed)
    except ModelError as error:
        proof = Verification(doubt=str(error))
    if proof.ok:
        show(f"the parts by themselves: {proof}")
    else:
        print(f"error: the parts by themselves: {proof}", file=sys.stderr)
    return proof.ok


def _samples(config: PepperConfig, graph: Graph, layout: Layout) -> tuple[list[Sample], dict[str, str]]:
    """Return the inputs to run on, with the whole model's outputs; and which of these tell nothing, with the reason."""
    seed = config.execute.seed
    if config.execute.inputs is None:
        drawn: Sequence[Mapping[str, Any]] = [random_inputs(graph, seed + number) for number in range(_SAMPLES)]
    else:
        drawn = [_read_inputs(Path(config.execute.inputs))]
    runs = []
    for inputs in drawn:
        try:
            check_inputs(layout.inputs, inputs)
        except ExecutionError as error:
            raise ExecutionError(f"execute.inputs={config.execute.inputs}: {error}") from error
        runs.append((dict(inputs), run_whole(graph, inputs)))
    untold, limits = telling(graph, runs, config.execute.tolerance)
    return [Sample(inputs, expected, limits) for inputs, expected in runs], untold


def _read_inputs(file: Path) -> dict[str, Any]:
    try:
        return dict(read_arrays(file))
    except ValueError as error:
        raise ExecutionError(
            f"execute.inputs={file}: cannot be read ({error}); give an .npz file of arrays by input name"
        ) from error


def _measure(
    planned: Planned,
    splitter: Splitter,
    pool: StagePool,
    network: Network,
    layout: Layout,
    samples: Sequence[Sample],
    foresight: Foresight | None,
    progress: StepProgress,
    kept: Kept,
) -> MeasuredPlan:
    config = planned.config
    options = config.execute
    with Runner(
        pool,
        network,
        layout,
        time_limit_s=options.time_limit_seconds,
        replan=foresight.replan if foresight else replanner(planned, splitter),
        in_flight=options.in_flight,
    ) as runner:
        kept.events = runner.events
        hops = measure_hops(runner)
        progress.advance("links", f"{len(hops)} hops measured")
        pool.load(running=True)
        one_at_a_time(runner, samples, 0.0, options.min_requests // 4)  # warms the stages up
        length = (options.seconds, options.min_requests)
        meter = ConditionMeter(pool)
        single = one_at_a_time(runner, samples, *length, kept.answers["one at a time"], PAUSE_S)
        progress.advance("one request at a time", _outcome(single))
        stream = saturated(runner, samples, *length, kept.answers["saturated"])
        progress.advance("as many as possible", f"{figure(stream.throughput_per_s)}/s")
        rate_per_s = options.rate_per_s or _USUAL_RATE * stream.throughput_per_s
        seconds = max(options.seconds, 5 / rate_per_s)
        arrivals = at_rate(runner, samples, seconds, rate_per_s, options.seed, answers=kept.answers["at a rate"])
        progress.advance(f"at {rate_per_s:.3g}/s", _outcome(arrivals))
        usage = runner.usage()
        devices, events = runner.layout.devices, list(runner.events)
        conditions = meter.read(devices)
        faults = [fault for condition in conditions for fault in condition.faults(config.measure.limits)]
        adapted = None
        if foresight is not None:
            answers = kept.answers["watching the loads"]
            adapted = _adapted(config, runner, pool, foresight, samples, rate_per_s, answers)
            progress.advance("watching the loads", f"{len(adapted.moves)} moves")
    return MeasuredPlan(hops, single, stream, arrivals, rate_per_s, usage, devices, events, conditions, faults, adapted)


def _outcome(trial: Trial) -> str:
    return f"{figure(float(np.mean(trial.latency_ms)))} ms"


def _adapted(
    config: PepperConfig,
    runner: Runner,
    pool: StagePool,
    foresight: Foresight,
    samples: Sequence[Sample],
    rate_per_s: float,
    answers: list[Answer],
) -> Adapted:
    """Run a stream at a rate, and move to another plan where the loads on the devices call for it."""
    options = config.execute
    watch = Watch(options.adapt_margin, options.adapt_patience_seconds)
    changes = {
        name: replace(pool.planned(name), percent=percent, name=f"cpu{percent:g}")
        for name, percent in options.load_change.items()
    }
    seconds = max(options.adapt_seconds, 5 / rate_per_s)
    before, started_ns = len(runner.events), time.monotonic_ns()
    with Adapter(runner, pool, foresight.foresee, watch, changes, options.load_change_after_seconds) as adapter:
        trial = at_rate(runner, samples, seconds, rate_per_s, options.seed, adapter.attend, answers)
    return Adapted(trial, started_ns, adapter.moves, runner.events[before:])


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
        best = sorted(others, key=lambda line: line.ratio)[:_MOST_SHOWN]
        show(runs_table([given, *best]))
        if len(best) < len(others):
            show(f"{len(others) - len(best)} more plans were slower; runs.csv lists them")
    for other in measured.others.not_run:
        show(f"not run: {other.name} on {other.devices}: {other.reason}")
