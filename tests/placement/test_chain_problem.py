"""Bad input and problems without a plan: one clear line each; the evaluator against hand-made numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pepper.errors import PlacementError
from pepper.fleet import Link
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stage, evaluate
from pepper.placement.objectives import THROUGHPUT, objective_named
from pepper.placement.problem import ChainProblem, DeviceKind, Limits, Links
from pepper.placement.queueing import chain_works, play

LINK = Link(bandwidth_mbit_s=8.0, latency_ms=1.0)  # 1,000 bytes a millisecond


def problem(**changes: object) -> ChainProblem:
    options: dict[str, object] = {
        "devices": [DeviceKind("camera", 300.0), DeviceKind("server", 1000.0)],
        "part_ms": [[10.0, 1.0], [10.0, 1.0], [10.0, 1.0]],
        "boundary_bytes": [4000.0, 2000.0, 3000.0, 0.0],
        "links": Links.uniform(2, LINK),
        "part_bytes": 100.0,
        "source": "camera",
    } | changes
    return ChainProblem.of(**options)  # type: ignore[arg-type]


def test_costs_by_hand() -> None:
    cost = evaluate(problem(), (Stage(0, 1, 0), Stage(1, 3, 1)))
    assert cost.latency_ms == 10 + (1 + 2) + 2
    assert cost.period_ms == 10
    assert cost.sent_bytes == 2000
    assert cost.stage_bytes == (100, 200)
    assert cost.violations == ()
    # The link carries 2 ms of bytes; its 1 ms of propagation delays but does not occupy.
    fast = problem(part_ms=[[1.0, 1.0]] * 3)
    assert evaluate(fast, (Stage(0, 1, 0), Stage(1, 3, 1))).period_ms == 2


def test_hub_adds_delays_and_takes_the_busiest_hop() -> None:
    up, down = Link(8.0, 1.0), Link(4.0, 2.0)
    cost = evaluate(problem(links=Links.uniform(2, Link.through_hub(up, down))), (Stage(0, 3, 1),))
    assert cost.latency_ms == pytest.approx(1 + 2 + 4 + 8 + 3)
    assert cost.period_ms == pytest.approx(8)


def test_missing_direction_is_no_link() -> None:
    one_way = Links.pairs(["camera", "server"], {("camera", "server"): LINK})
    there = problem(links=one_way)
    assert len(solve(there).stages) == 1
    assert solve(replace(there, sink="camera")).stages == (Stage(0, 3, 0),)


def test_privacy_pins_the_first_steps() -> None:
    solution = solve(problem(pinned={0: "camera", 1: "camera"}))
    assert solution.stages == (Stage(0, 2, 0), Stage(2, 3, 1))


def test_ties_go_to_fewer_parts() -> None:
    free = Links.uniform(2, Link(1e9))
    equal = problem(part_ms=np.ones((3, 2)), links=free, source=None)
    assert len(solve(equal).stages) == 1


def test_kinds_stand_for_their_devices() -> None:
    fleet = problem(
        devices=[DeviceKind("pi", count=3)],
        part_ms=[[5.0]] * 3,
        links=Links.uniform(1, LINK),
        source=None,
    )
    solution = solve(fleet, THROUGHPUT)
    assert [stage.device for stage in solution.stages] == [0, 0, 0]
    assert solution.value == 5


def test_a_request_waits_where_it_comes_to_a_device() -> None:
    waiting = problem(devices=[DeviceKind("camera", 300.0, wait_ms=2.0), DeviceKind("server", 1000.0, wait_ms=0.5)])
    for stages, waits_ms in (
        ((Stage(0, 3, 0),), 2.0),
        ((Stage(0, 3, 1),), 0.5),
        ((Stage(0, 1, 0), Stage(1, 3, 1)), 2.5),
        ((Stage(0, 1, 0), Stage(1, 2, 1), Stage(2, 3, 0)), 4.5),
    ):
        without, cost = evaluate(problem(), stages), evaluate(waiting, stages)
        assert cost.latency_ms == pytest.approx(without.latency_ms + waits_ms)
        assert cost.period_ms == without.period_ms
        assert cost.sent_bytes == without.sent_bytes
        assert max(event.stop_ms for event in play(chain_works(waiting, stages), [0.0])) == pytest.approx(
            max(event.stop_ms for event in play(chain_works(problem(), stages), [0.0])) + waits_ms
        )


def test_handling_messages_is_a_devices_work() -> None:
    handling = np.array([[1.0, 0.1], [2.0, 0.2], [3.0, 0.3], [9.0, 9.0]])
    stages = (Stage(0, 1, 0), Stage(1, 3, 1))
    without, cost = evaluate(problem(), stages), evaluate(problem(handling_ms=handling), stages)
    assert cost.pickup_ms == (1.0, 0.2)
    assert cost.stage_ms == without.stage_ms
    assert cost.latency_ms == pytest.approx(without.latency_ms + 1.2)
    assert cost.period_ms == pytest.approx(without.period_ms + 1.0)
    events = [*play(chain_works(problem(handling_ms=handling), stages), [0.0] * 20)]
    ends = [max(e.stop_ms for e in events if e.request == request) for request in range(20)]
    assert ends[0] == pytest.approx(cost.latency_ms)
    assert ends[-1] - ends[-2] == pytest.approx(cost.period_ms)


def test_simulated_stream_shows_latency_and_period() -> None:
    stages = (Stage(0, 1, 0), Stage(1, 3, 1))
    cost = evaluate(problem(), stages)
    events = [*play(chain_works(problem(), stages), [0.0] * 20)]
    ends = [max(e.stop_ms for e in events if e.request == request) for request in range(20)]
    assert ends[0] == pytest.approx(cost.latency_ms)
    assert ends[-1] - ends[-2] == pytest.approx(cost.period_ms)


def test_time_limit_gives_an_answer_with_its_gap() -> None:
    rng = np.random.default_rng(0)
    hard = ChainProblem.of(
        [DeviceKind(f"d{k}", 40.0) for k in range(20)],
        rng.lognormal(size=(100, 20)),
        rng.uniform(1e3, 1e5, 101),
        Links.uniform(20, Link(1000.0)),
        part_bytes=1.0,
        reuse=True,
    )
    solution = solve(hard, THROUGHPUT, time_limit_s=0.5)
    assert evaluate(hard, solution.stages).violations == ()
    assert 0 < solution.bound <= solution.value
    assert solution.gap == pytest.approx((solution.value - solution.bound) / solution.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part_ms": [[1.0, -1.0]] * 3}, "part_ms holds -1.0"),
        ({"part_ms": [[1.0, math.nan]] * 3}, "part_ms holds nan"),
        ({"part_ms": [[1.0, 1.0]] * 2}, r"part_ms has shape \(2, 2\); expected \(3, 2\)"),
        ({"boundary_bytes": [1.0, 1.0, -5.0, 1.0]}, "boundary_bytes holds -5.0"),
        ({"source": "camra"}, "source: unknown device 'camra'; did you mean 'camera'"),
        ({"excluded": ["sever"]}, "excluded: unknown device 'sever'; did you mean 'server'"),
        ({"pinned": {0: "sever"}}, "pinned: unknown device 'sever'"),
        ({"pinned": {7: "server"}}, "pinned: step 7 does not exist; steps are 0 to 2"),
        ({"pinned": {0: "server"}, "excluded": ["server"]}, "pinned to 'server', which is excluded"),
        ({"devices": [DeviceKind("a"), DeviceKind("a")], "source": None}, "names repeat"),
        ({"devices": [DeviceKind("camera", count=2), DeviceKind("server")]}, "stands for itself"),
        ({"limits": Limits(latency_ms=-1.0)}, "limits.latency_ms is -1.0"),
        ({"excluded": ["camera", "server"]}, "every device is excluded"),
        ({"part_bytes": [100.0, 1500.0, 100.0]}, "step 1 takes 1500 bytes, 500 more than 'server' has"),
        ({"part_bytes": 500.0}, "the steps take 1500 bytes, 200 more than all devices have"),
        ({"part_ms": [[1.0, 1.0], [math.inf, math.inf], [1.0, 1.0]]}, "step 1: no device can run it"),
        ({"limits": Limits(latency_ms=1.0)}, "limits.latency_ms: no plan keeps to 1"),
        ({"limits": Limits(sent_bytes=1.0), "excluded": ["camera"]}, "limits.sent_bytes: no plan"),
        ({"pinned": {0: "camera", 1: "server", 2: "camera"}}, "a device holds one part unless `reuse`"),
        (
            {"links": Links.pairs(["camera", "server"], {}), "excluded": ["camera"]},
            "missing links: camera->server",
        ),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlacementError, match=message) as error:
        solve(problem(**changes))
    assert "\n" not in str(error.value)


def test_unknown_objective_and_links() -> None:
    with pytest.raises(PlacementError, match="unknown 'speed'; use one of latency, throughput"):
        objective_named("speed")
    with pytest.raises(ValueError, match="bandwidth_mbit_s is 0"):
        Link(0.0)
    with pytest.raises(PlacementError, match="links: unknown device 'servr'; did you mean 'server'"):
        Links.pairs(["camera", "server"], {("camera", "servr"): LINK})
