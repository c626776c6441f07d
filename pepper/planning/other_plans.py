"""The plans that ``task=execute`` runs beside the given one: which, and what is measured of them."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby, pairwise, product

import numpy as np

from pepper.config import PepperConfig
from pepper.console.progress import StepProgress
from pepper.console.tables import figure
from pepper.errors import ConfigError, ExecutionError, LatencyError, ModelError
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Event, Runner
from pepper.execution.trials import PAUSE_S, Sample, one_at_a_time, saturated
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import Cut, cut_behind, find_cuts
from pepper.graph.ir import Graph
from pepper.placement.plan import PlanRules
from pepper.planning.planned import Planned
from pepper.planning.splitting import Splitter

UNSPLIT = "no split"


@dataclass(frozen=True)
class OtherPlan:
    """A plan to run.

    Attributes:
        name: How it was found.
        cuts: Where the model is cut, in order.
        devices: A device for each part.
    """

    name: str
    cuts: tuple[Cut, ...]
    devices: tuple[str, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """How many operators are before each cut."""
        return tuple(cut.position for cut in self.cuts)


@dataclass(frozen=True)
class OtherRun:
    """A plan that was run.

    Attributes:
        name: How it was found.
        devices: Of its parts.
        latency_ms: Mean of single requests.
        per_second: Throughput.
        difference: To the whole model's outputs.
        excess: The largest multiple of what is accepted.
    """

    name: str
    devices: tuple[str, ...]
    latency_ms: float
    per_second: float
    difference: float
    excess: float


@dataclass(frozen=True)
class NotRun:
    """A plan without figures: it could not be run, or what it answered was wrong.

    Attributes:
        name: How it was found.
        devices: Of its parts, in order.
        reason: Why, in one line.
    """

    name: str
    devices: str
    reason: str


@dataclass
class Others:
    """What came of the other plans.

    Attributes:
        runs: Those that were run.
        not_run: The others: no use trying, or failed.
        failures: Why requests, or whole plans, failed.
        events: What happened meanwhile.
    """

    runs: list[OtherRun] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def other_plans(planned: Planned) -> list[OtherPlan]:
    """Return the plans to run beside this one, as the configuration says.

    With ``execute.others.compare``, the whole model on each device, and, if there is a champion, each of the balanced
    parts on the device where it alone is predicted to be fastest. With ``execute.others.exhaustive``, every plan with
    up to ``execute.others.max_cuts`` of the balanced cuts, too; neighbouring parts are on different devices, or they
    were one part.
    The plan itself is not among them, nor is what breaks the rules that it was placed under (pins, exclusions, most
    parts): that is no plan that it could have lost to.
    """
    config, plan, graph = planned.config, planned.plan, planned.graph
    options = config.execute
    if not (options.others.compare or options.others.exhaustive):
        return []
    devices = list(plan.fleet.devices)
    found = [OtherPlan(UNSPLIT, (), (device,)) for device in devices]
    found += [other for other in _each_fastest(planned) if other.cuts]  # else it is one of those
    if options.others.exhaustive:
        allowed = config.cuts
        found_cuts = find_cuts(graph, allowed.kind, allowed.max_tensors, allowed.bridge_dist)
        known = [cut for cut in found_cuts if cut.in_order]
        for cuts in _choices(_balanced(graph, known, options.others.positions), options.others.max_cuts):
            name = f"cut before operator {' and '.join(str(cut.position) for cut in cuts)}"
            found += [OtherPlan(name, cuts, on) for on in product(devices, repeat=len(cuts) + 1) if _changes(on)]
    given = (tuple(part.start for part in plan.parts[1:]), plan.devices)
    kept = {(other.positions, other.devices): other for other in reversed(found)}  # the first of those that are alike
    return [other for key, other in reversed(kept.items()) if key != given and _allowed(other, plan.rules)]


def _allowed(other: OtherPlan, rules: PlanRules) -> bool:
    """Return whether a plan keeps to the rules."""
    if not set(other.devices).isdisjoint(rules.excluded):
        return False
    if len(other.devices) > (rules.max_parts or len(other.devices)):
        return False
    ends = [0, *other.positions, math.inf]
    return all(
        device == pin or stop <= first or start >= end
        for pin, (first, end) in rules.pinned.items()
        for device, (start, stop) in zip(other.devices, pairwise(ends), strict=True)
    )


def _choices(cuts: Sequence[Cut], most: int) -> Iterator[tuple[Cut, ...]]:
    """Yield every choice of one to so many cuts, the smallest first."""
    for count in range(1, most + 1):
        yield from combinations(cuts, count)


def _changes(devices: Sequence[str]) -> bool:
    return all(before != after for before, after in pairwise(devices))


def _each_fastest(planned: Planned) -> list[OtherPlan]:
    """Send each of the balanced parts to the device where it alone is fastest; neighbours on one device go together."""
    try:
        forecast = planned.forecast
    except LatencyError:  # the champion cannot be used
        return []
    borders, graph = forecast.borders.positions, planned.graph
    known = [cut_behind(graph, position) for position in borders[1:-1]]
    cuts = _balanced(graph, known, planned.config.execute.others.positions)
    ends = [0, *(borders.index(cut.position) for cut in cuts), len(borders) - 1]
    names = list(forecast.fleet.devices)
    fastest = [names[int(forecast.part_ms[start, stop].argmin())] for start, stop in pairwise(ends)]
    kept = tuple(cut for cut, (before, after) in zip(cuts, pairwise(fastest), strict=True) if before != after)
    return [OtherPlan("each part on its fastest device", kept, tuple(device for device, _ in groupby(fastest)))]


def _balanced(graph: Graph, cuts: Sequence[Cut], count: int | None) -> list[Cut]:
    """Return this many of the cuts that make parts of nearly equal work; all for None, or if there are fewer."""
    if count is None:
        return list(cuts)
    macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
    return balanced_cuts(graph, cuts, min(count, len(cuts)) + 1, macs)


def run_others(
    plans: Sequence[OtherPlan],
    config: PepperConfig,
    splitter: Splitter,
    pool: StagePool,
    network: Network,
    samples: Sequence[Sample],
    progress: StepProgress,
    found: Others,
) -> None:
    """Run plans one after the other. One that fails does not concern the next, and is never replaced by another plan.

    Args:
        plans: What to run.
        config: How.
        splitter: Writes the parts, once for plans with the same cuts that follow one another; then they go.
        pool: The devices.
        network: Their links.
        samples: The requests.
        progress: Told of each plan.
        found: Gets what came of each.
    """
    written: tuple[tuple[int, ...], Layout] | None = None
    for plan in plans:
        where = " - ".join(plan.devices)
        reason = _obstacle(plan, pool.lost, network)
        if reason is None:
            try:
                if written is None or written[0] != plan.positions:
                    if written is not None:
                        shutil.rmtree(written[1].parts[0].file.parent)
                        written = None
                    written = plan.positions, splitter.layout(plan.cuts, plan.devices)
                ran = _run(plan.name, written[1].on(plan.devices), config, pool, network, samples, found)
                _check(ran)
            except (ConfigError, ExecutionError, ModelError) as error:
                reason = str(error)
                found.failures.append(f"{plan.name} on {where}: {reason}")
        if reason is None:
            found.runs.append(ran)
            outcome = f"{figure(ran.latency_ms)} ms, {figure(ran.per_second)}/s"
        else:
            found.not_run.append(NotRun(plan.name, where, reason))
            outcome = f"not run: {reason}"
        progress.advance(f"{plan.name} on {where}", outcome, failed=reason is not None)


def _check(ran: OtherRun) -> None:
    """Hold a plan's answers to the whole model's: one that differs more than is accepted has failed."""
    if ran.excess > 1:
        raise ExecutionError(wrong_answer(ran.difference, ran.excess))


def wrong_answer(difference: float, excess: float, key: str = "execute.tolerance") -> str:
    """Say that an answer is not the whole model's, and what key accepts more."""
    return (
        f"an answer differs from the whole model's by {difference:.2g} of the largest value,"
        f" {excess:.2g} times what is accepted ({key}); a provider that rounds coarsely (TF32, bfloat16) has an option"
        " against that"
    )


def _obstacle(plan: OtherPlan, lost: Mapping[str, str], network: Network) -> str | None:
    """Say why there is no use in trying a plan; None if it can be run."""
    for device in plan.devices:
        if device in lost:
            return f"{device} is lost ({lost[device]})"
    try:
        network.way(plan.devices)
    except ExecutionError as error:
        return str(error).partition(";")[0]
    return None


def _run(
    name: str,
    layout: Layout,
    config: PepperConfig,
    pool: StagePool,
    network: Network,
    samples: Sequence[Sample],
    found: Others,
) -> OtherRun:
    """Run a plan, with no other to go on with, and note what happens.

    Raises:
        ExecutionError: It cannot be run, a device is lost, or a request fails: its figures would flatter it.
    """
    options = config.execute
    with Runner(
        pool, network, layout, time_limit_s=options.time_limit_seconds, in_flight=options.trials.in_flight
    ) as runner:
        try:
            one_at_a_time(runner, samples, 0.0, options.trials.min_requests // 4)  # warms the stages up
            alone = one_at_a_time(
                runner, samples, options.trials.seconds, options.trials.min_requests, longest_pause_s=PAUSE_S
            )
            busy = saturated(runner, samples, options.trials.seconds, options.trials.min_requests)
        finally:
            found.events += runner.events
    failures = [*alone.failures, *busy.failures]
    if failures:
        raise ExecutionError(f"{len(failures)} requests failed, the first: {failures[0]}")
    return OtherRun(
        name,
        layout.devices,
        float(np.mean(alone.latency_ms)),
        busy.throughput_per_s,
        max(alone.difference, busy.difference),
        max(alone.excess, busy.excess),
    )
