"""What is shown of answers: who was busy when, on the devices that answered."""

from dataclasses import replace
from itertools import pairwise

import pytest

from pepper.execution.message import Stamp
from pepper.execution.runner import Answer
from pepper.execution.trials import Trial
from pepper.fleet import Fleet, FleetDevice, Link, connected
from pepper.placement.plan import Plan, PlannedPart
from pepper.planning.measured import MeasuredPlan
from pepper.report.execution_timelines import timelines
from pepper.report.timelines import Busy

MS = 1_000_000
LATENCY_MS = 3.0


@pytest.fixture
def plan() -> Plan:
    part = PlannedPart(0, 1, "camera", 1.0, 0.0, 0.0, 0.0, 0.0)
    devices = {name: FleetDevice() for name in ("camera", "edge", "server")}
    fleet = Fleet(devices, connected({("camera", "server"): Link(None, LATENCY_MS)}), "camera", None)
    parts = (part, replace(part, start=1, stop=2, device="server"))
    return Plan(None, fleet, "latency", parts, 0.0, 2.0, 1.0, 0.0, 2.0, 0.0, "by hand")


def answer(seq: int, first_ms: int, second_ms: int, devices: tuple[str, ...] = ("camera", "server")) -> Answer:
    """Sent at once; 2 ms in the first part from then, 1 ms in the second one from then."""
    stamps = (
        Stamp(0, 0, 0, 0),
        Stamp(0, first_ms * MS, (first_ms + 2) * MS, (first_ms + 2) * MS),
        Stamp(second_ms * MS, second_ms * MS, (second_ms + 1) * MS, (second_ms + 1) * MS),
    )
    layout = int(devices != ("camera", "server"))
    return Answer(seq, {}, None, 0, (second_ms + 1) * MS, stamps, layout, devices, ((0,), (1,), (2,)), 1)


def measured(single: list[Answer], stream: list[Answer]) -> MeasuredPlan:
    trials = (Trial(tuple(answers), 0.0, 0.0, 1.0) for answers in (single, stream, single))
    return MeasuredPlan([], *trials, 1.0, [], ("camera", "server"), [], [], [])


def test_one_request_is_the_median(plan: Plan) -> None:
    alone = [answer(0, 1, 10), answer(1, 1, 20), answer(2, 1, 90)]
    shown = timelines(plan, measured(alone, alone))["one request, measured (the median of 3)"]
    assert shown == [
        Busy("camera", "camera", 1, "part 1", 1, 3),
        Busy("camera -> server", "server", 1, "transfer", 3, 20),
        Busy("server", "server", 1, "part 2", 20, 21),
    ]


def test_transfers_wait_for_each_other_on_a_link(plan: Plan) -> None:
    stream = [answer(seq, 2 * seq, 40 + 10 * seq) for seq in range(20)]
    title, shown = list(timelines(plan, measured(stream, stream)).items())[1]
    assert title == "a saturated stream, measured (while 6 of its 20 answers came)"
    moved = [event for event in shown if event.moves]
    assert len(moved) == 6, "also of the request after these, which is under way when they are answered"
    for one, other in pairwise(moved):
        assert other.start_ms == pytest.approx(one.stop_ms - LATENCY_MS)
        assert other.request == one.request + 1
    assert min(event.start_ms for event in shown) == 0


def test_what_moved_is_shown_where_it_was_answered(plan: Plan) -> None:
    moved = [answer(0, 1, 10), *(answer(seq, seq, 9 + 2 * seq, ("camera", "edge")) for seq in range(1, 5))]
    one, stream = timelines(plan, measured(moved[:1], moved)).values()
    assert {event.lane for event in one} == {"camera", "camera -> server", "server"}
    assert {event.device for event in stream} <= {"camera", "edge"}
    failed = replace(moved[0], error="no answer", stamps=(), layout=2, devices=("edge",))
    assert list(timelines(plan, measured(moved[:1], [*moved, failed])).values())[1] == stream, "it has no times"
