"""``task=quickstart``: from nothing to a plan that was run: sweep, train, promote, place, execute."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from pepper.config.composing import Composition
from pepper.console.output import results_under
from pepper.console.tables import show
from pepper.errors import PepperError
from pepper.graph.model import find_model
from pepper.outputs import results_folder
from pepper.placement.evaluate import Evaluation
from pepper.placement.plan import Plan
from pepper.planning.fleets import assemble
from pepper.planning.other_plans import UNSPLIT
from pepper.planning.placing import refuse_several
from pepper.report.executions import THE_PLAN
from pepper.report.quickstart_table import RanLine, ran_table
from pepper.tasks.execute import Executed, execute_plan
from pepper.tasks.place import PlacedPlan, place_one
from pepper.tasks.profile import profile, ui_command
from pepper.tasks.promote import STATUS_NOT_BETTER, promote
from pepper.tasks.result import Result
from pepper.tasks.train import train
from pepper.units import per_second

_Result = TypeVar("_Result", bound=Result)

LEARNING = ("+sweep=quickstart", "measure=quick", "tuning=quick")
PLACING = ("model=resnet50", "link=ethernet_1gbit", "objective=throughput")
"""What is taken where the command line does not say; the model to place is none of the sweep's."""

Step = tuple[str, str, Callable[[], Result], tuple[int, ...]]
"""Its name, what it does, how, and the exit statuses with which the next step follows."""


def quickstart(composition: Composition) -> Result:
    """Go all the way, and say what was predicted, what was measured, and what it is worth.

    The model that the command line names is placed; the sweep keeps its own.

    Args:
        composition: The configuration, and what those of the steps are composed from.

    Raises:
        PepperError: A step fails; the message names it.
    """
    started, given = time.monotonic(), composition.overrides
    learning = composition.anew(_with_defaults(LEARNING, [each for each in given if _group(each) != "model"]))
    placing = composition.anew(_with_defaults(PLACING, [each for each in given if _group(each) != "sweep"]))
    to_learn, to_place = learning.config, placing.config
    refuse_several(to_place)
    find_model(to_place.model)  # what is wrong is said before minutes are spent
    assemble(placing)
    for key, folder in (("place.out", to_place.place.out), ("execute.out", to_place.execute.out)):
        results_folder(key, folder)
    assert to_learn.sweep is not None
    run = replace(to_place, execute=replace(to_place.execute, others=replace(to_place.execute.others, compare=True)))
    placed: list[PlacedPlan] = []
    executed: list[Executed] = []
    steps: tuple[Step, ...] = (
        ("sweep", f"measure what {to_learn.sweep.name} lists", lambda: profile(learning), (0,)),
        ("train", "learn how long parts take", lambda: train(learning), (0,)),
        ("promote", "make that the champion", lambda: promote(learning), (0, STATUS_NOT_BETTER)),
        (
            "place",
            f"{to_place.model.name} on {to_place.fleet.name}, for {to_place.objective.name}",
            lambda: _kept(placed, place_one(placing)),
            (0,),
        ),
        (
            "execute",
            "run the plan, and no split on each device",
            lambda: _kept(executed, execute_plan(run, placed[0].plan, "the plan")),
            (0,),
        ),
    )
    took = _take(steps, started)
    lines = _lines(placed[0], executed[0])
    show(ran_table(lines), plans=[asdict(line) for line in lines])
    show(_verdict(lines, placed[0].plan.minimised.bottleneck))
    seconds = time.monotonic() - started
    show(f"{_clock(seconds)} in all: {', '.join(took)}", seconds=seconds)
    show(f"see the runs: {ui_command(to_place.tracking.uri)}")
    return Result()


def _kept(results: list[_Result], result: _Result) -> _Result:
    """Return a step's result, and keep it for the next."""
    results.append(result)
    return result


def _take(steps: Sequence[Step], started: float) -> list[str]:
    """Take the steps, and return what each took."""
    took = []
    for number, (name, what, function, goes_on) in enumerate(steps, 1):
        begun = time.monotonic()
        show(f"[{number}/{len(steps)}] {name}: {what} ({_clock(begun - started)} so far)")
        try:
            with results_under(name):
                status = function().status
        except PepperError as error:
            raise type(error)(f"quickstart stopped at step {number}, {name}: {error}") from error
        if status not in goes_on:
            raise PepperError(
                f"quickstart stopped at step {number}, {name}: exit status {status}, see above;"
                " the same command goes on with what is measured"
            )
        took.append(f"{name} {_clock(time.monotonic() - begun)}")
    return took


def _lines(placed: PlacedPlan, executed: Executed) -> list[RanLine]:
    """Return all plans that were run, the given one first, with what was predicted of it and of what does not split."""
    lines = []
    for run in executed.runs:
        cost: Plan | Evaluation | None = placed.plan if run.name == THE_PLAN else None
        if run.name == UNSPLIT:
            cost = placed.alone[run.devices.partition("#")[0]]  # of a kind of several, one is as good as another
        lines.append(
            RanLine(
                run.name,
                run.devices,
                run.latency_ms,
                run.per_second,
                None if cost is None else cost.latency_ms,
                None if cost is None else per_second(cost.period_ms),
            )
        )
    return lines


def _verdict(lines: Sequence[RanLine], throughput: bool) -> str:
    """Say what the plan is worth against not splitting."""
    plan = lines[0]
    alone = [line for line in lines if line.name == UNSPLIT or " - " not in line.devices]
    if not alone:
        return "no device ran the whole model alone: what splitting is worth is not known"
    if throughput:
        best = max(alone, key=lambda line: line.measured_per_s)
        factor, what = plan.measured_per_s / best.measured_per_s, "as many answers a second"
    else:
        best = min(alone, key=lambda line: line.measured_ms)
        factor, what = best.measured_ms / plan.measured_ms, "as fast"
    if plan is best:
        return f"the plan does not split: {plan.devices} alone is best"
    return f"measured, the plan is {factor:.2f} times {what} as the best device alone ({best.devices})"


def _with_defaults(defaults: Sequence[str], given: Sequence[str]) -> list[str]:
    keys = {_key(override) for override in given}
    return [*(default for default in defaults if _key(default) not in keys), *given]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _group(override: str) -> str:
    return _key(override).split(".")[0]


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
