"""Limits that cannot be kept are said by the user's keys, with what can be had."""

import re
from typing import Any

import pytest
from harness import composed

from pepper.errors import PlacementError
from pepper.fleet import Link
from pepper.placement.chain import solve
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.placement.shortage import TimeLimitError
from pepper.planning.posing import named_by_key

PROBLEM = ChainProblem.of(
    [DeviceKind("camera"), DeviceKind("edge"), DeviceKind("server")],
    [[10.0, 4.0, 1.3], [10.0, 5.0, 1.7], [10.0, 3.0, 1.9]],
    [4001.0, 2003.0, 3007.0, 503.0],
    Links.uniform(3, Link(bandwidth_mbit_s=8.0, latency_ms=1.1)),
    source="camera",
    sink="server",
    pinned={0: "camera"},
)


@pytest.mark.parametrize(
    ("key", "given", "limit", "fix"),
    [
        ("objective.max_latency_ms", 0.25, "latency_ms", "raise it"),
        ("objective.min_per_second", 1234567.0, "period_ms", "lower it"),
        ("objective.max_sent_bytes", 7.0, "sent_bytes", "raise it"),
        ("place.max_parts", 1, "parts", "raise it"),
    ],
)
def test_what_is_said_can_be_reached(key: str, given: float, limit: str, fix: str) -> None:
    def limited(value: float) -> ChainProblem:
        # One part is enough for this problem: pin the last step elsewhere where parts are what is short.
        problem = ChainProblem(**{**vars(PROBLEM), "pinned": {0: "camera", 2: "server"}})
        return problem.with_limits(**{limit: 1000 / value if limit == "period_ms" else value})

    with pytest.raises(PlacementError) as error, named_by_key(composed(f"{key}={given}")):
        solve(limited(given))
    said = str(error.value)
    assert said.startswith(f"{key}={given:.10g}: no plan keeps to it; ")
    assert said.endswith(fix)
    (reach,) = re.findall(r"; ([\d.]+) can be reached", said)
    assert solve(limited(float(reach))).stages
    beyond = float(reach) * (1.02 if fix == "lower it" else 0.98)
    with pytest.raises(PlacementError):
        solve(limited(max(beyond, 1) if limit == "parts" else beyond))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"latency_ms": 0.5, "sent_bytes": 7.0}, "objective.max_latency_ms=0.5, objective.max_sent_bytes=7: no plan"),
        ({"latency_ms": 12.0, "sent_bytes": 600.0}, "objective.max_latency_ms=12: no plan keeps to it; "),
    ],
)
def test_limits_that_cannot_be_kept_together(limits: dict[str, Any], said: str) -> None:
    config = composed(
        f"objective.max_latency_ms={limits['latency_ms']}", f"objective.max_sent_bytes={limits['sent_bytes']}"
    )
    with pytest.raises(PlacementError) as error, named_by_key(config):
        solve(PROBLEM.with_limits(**limits))
    assert str(error.value).startswith(said)


def test_time_that_is_too_short_is_named_too() -> None:
    with (
        pytest.raises(PlacementError, match=r"place\.time_limit_seconds=0\.5: no plan found in time.*; raise it"),
        named_by_key(composed("place.time_limit_seconds=0.5")),
    ):
        raise TimeLimitError("time_limit_s: no plan")
