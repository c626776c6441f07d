"""What a sweep measures again at its end: INVALID cells, a few VALID ones, and those in an order that cannot be."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from harness import Desk, composed
from hypothesis import given
from hypothesis import strategies as st

from pepper.config import LoadConfig, MeasureConfig
from pepper.devices.device import DeviceSpec
from pepper.errors import MeasureError
from pepper.graph.model import ModelFile
from pepper.measure import block
from pepper.measure.noise import NoiseFloor, floor_of
from pepper.measure.profile import Profile
from pepper.measure.statistics import summarise
from pepper.sweep.axes import single_cell
from pepper.sweep.orders import TimedCell, contradictions
from pepper.tracking.history import history
from pepper.tracking.store import Store

Answer = float | str | Exception
"""The median of a measurement (ms), why it is INVALID, or how it fails."""

ORDERS = "measure.limits.order_percent=10"
LOADS = "# Loads.\nname: loaded\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [idle, cpu50, cpu90]\n"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[Answer]]], None]:
    """Makes each load's measurements come out as told, one after another; the rest is real."""

    def come_out(answers: dict[str, list[Answer]]) -> None:
        class Bench:
            def __init__(
                self, model: ModelFile, device: DeviceSpec, measure: MeasureConfig, generator: str | None
            ) -> None: ...

            def __enter__(self) -> Self:
                return self

            def __exit__(
                self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
            ) -> None: ...

            def profile(self, load: LoadConfig) -> Profile:
                answer = answers[str(load.name)].pop(0)
                if isinstance(answer, Exception):
                    raise answer
                why, median = ([answer], 1.0) if isinstance(answer, str) else ([], answer)
                latency_ms = median * np.linspace(0.99, 1.01, 100)
                samples = {"start_ns": np.arange(100), "latency_ns": latency_ms * 1e6}
                figures = {**summarise(latency_ms), "throughput_per_s": 1000 / median, "timed_s": 0.1, "warmup_s": 0.0}
                now = time.time()
                return Profile("FINISHED", now, now, "INVALID" if why else "VALID", why, [], figures, samples)

        monkeypatch.setattr(block, "Bench", Bench)

    return come_out


def rows(outcome: Any) -> dict[str, tuple[str, float, str]]:
    return {
        row["load"]: (row["verdict"], row["latency_p50_ms"], row["reasons"]) for row in json.loads(outcome.out)["cells"]
    }


def runs(desk: Desk, load: str) -> list[tuple[str, str | None]]:
    """Verdict, and why it was measured again, of each run of a load, oldest first."""
    found = sorted(desk.runs(), key=lambda run: run.info.end_time)
    return [
        (run.data.tags.get("pepper.verdict", run.info.status), run.data.tags.get("pepper.again"))
        for run in found
        if run.data.params["load"] == load
    ]


def test_invalid_cells_are_measured_again_and_nothing_is_lost(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    measured({"idle": [1.0], "cpu50": ["unstable: so it is", 2.0], "cpu90": ["noisy neighbour: there", "unstable"]})
    outcome = desk("+sweep=loaded", ORDERS, "sweep.retest=0", "output=json")
    assert outcome.status == 0
    found = rows(outcome)
    assert found["cpu50"] == ("VALID", pytest.approx(2.0), "")
    assert found["cpu90"][::2] == ("INVALID", "unstable")
    assert runs(desk, "idle") == [("VALID", None)]
    assert runs(desk, "cpu50") == [("INVALID", None), ("VALID", "retry")]
    assert runs(desk, "cpu90") == [("INVALID", None), ("INVALID", "retry")]
    measured({"cpu90": [2.2]})
    again = desk("+sweep=loaded", ORDERS, "sweep.retries=0", "sweep.retest=0")
    assert "2 finished before" in again.out
    assert runs(desk, "cpu90")[2:] == [("VALID", None)]


def test_retries_are_as_many_as_asked_for_and_one_that_fails_changes_nothing(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    crash = MeasureError("the worker crashed")
    measured({"idle": [1.0], "cpu50": ["one", "two", "three"], "cpu90": ["one", crash, "three"]})
    outcome = desk("+sweep=loaded", ORDERS, "sweep.retries=2", "sweep.retest=0", "output=json")
    assert outcome.status == 0
    assert "FAILED when measured again: tiny / share100 / cpu90 / 1t: the worker crashed; kept as it was" in outcome.err
    assert [rows(outcome)[load][2] for load in ("cpu50", "cpu90")] == ["three", "three"]
    assert runs(desk, "cpu90") == [("INVALID", None), ("FAILED", "retry"), ("INVALID", "retry")]


def test_the_noise_floor_is_measured_printed_logged_and_shown(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    measured({"idle": [1.0, 1.1], "cpu50": [2.0, 1.9], "cpu90": [4.0, "unstable"]})
    outcome = desk("+sweep=loaded", ORDERS, "sweep.retest=1", "output=json")
    noise = NoiseFloor(median_percent=7.5, p90_percent=9.5, cells=2)
    assert json.loads(outcome.out)["noise"] == pytest.approx(vars(noise))
    assert {load: row[1] for load, row in rows(outcome).items()} == pytest.approx(
        {"idle": 1.0, "cpu50": 2.0, "cpu90": 4.0}
    ), "the first result counts"
    [parent] = desk.runs("sweep")
    assert NoiseFloor.read(parent.data.metrics) == NoiseFloor(*map(pytest.approx, vars(noise).values()))  # type: ignore[arg-type]
    said = "2 cells were measured twice: the medians differ by 7.5 % (median) and 9.5 % (90th percentile)"
    assert said in parent.data.tags["mlflow.note.content"]
    run_id = parent.info.run_id
    assert desk("task=report", f"report.sweep={run_id}", f"report.out={desk.folder}/page.html").status == 0
    assert said in (desk.folder / "page.html").read_text()
    assert runs(desk, "cpu90") == [("VALID", None), ("INVALID", "retest")]
    assert "3 finished before" in desk("+sweep=loaded", ORDERS).out


@pytest.mark.parametrize(
    ("third", "counts"),
    [
        (1.02, ("VALID", 1.02, "")),
        (1.38, ("VALID", 1.38, "")),
        (1.2, ("INVALID", 1.2, "far from its repeats: 1.2 ms after 1 and 1.4 ms")),
        (MeasureError("it crashed"), ("VALID", 1.0, "")),
        ("unstable: so it is", ("INVALID", 1.0, "unstable: so it is")),
    ],
    ids=str,
)
def test_two_measurements_that_lie_far_apart_are_settled_by_a_third(
    third: Answer, counts: tuple[str, float, str], desk: Desk, measured: Any
) -> None:
    desk.sweep("loaded", LOADS.replace("[idle, cpu50, cpu90]", "[idle]"))
    measured({"idle": [1.0, 1.4, third]})
    outcome = desk("+sweep=loaded", "measure.limits.repeat_percent=15", "sweep.retest=1", "output=json")
    assert outcome.status == 0
    verdict, median_ms, reasons = counts
    assert rows(outcome)["idle"] == (verdict, pytest.approx(median_ms), reasons)
    assert [again for _, again in runs(desk, "idle")] == [None, "retest", "repeat"]


def test_two_measurements_that_agree_need_no_third(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS.replace("[idle, cpu50, cpu90]", "[idle]"))
    measured({"idle": [1.0, 1.1]})
    assert desk("+sweep=loaded", "measure.limits.repeat_percent=15", "sweep.retest=1").status == 0
    assert [again for _, again in runs(desk, "idle")] == [None, "retest"]


def test_which_cells_are_retested_is_seeded(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    chosen = []
    for seed in (1, 1, 0):
        measured({"idle": [1.0, 1.0], "cpu50": [2.0, 2.0], "cpu90": [4.0, 4.0]})
        known = {run.info.run_id for run in desk.runs()}
        assert desk("+sweep=loaded", ORDERS, "sweep.retest=0.34", f"sweep.seed={seed}", "sweep.rerun=all").status == 0
        new = [run for run in desk.runs() if run.info.run_id not in known]
        [retest] = [run.data.params["load"] for run in new if run.data.tags.get("pepper.again") == "retest"]
        chosen.append(retest)
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_an_order_that_cannot_be_is_measured_again_and_invalid_if_it_stays(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    measured({"idle": [1.0], "cpu50": [5.0, 4.9], "cpu90": [2.0, 2.1]})
    outcome = desk("+sweep=loaded", ORDERS, "sweep.retest=0", "output=json")
    found = rows(outcome)
    assert found["idle"][0] == "VALID"
    assert found["cpu50"] == (
        "INVALID",
        pytest.approx(4.9),
        "impossible order: 4.9 ms is slower than 2.1 ms on share100 under cpu90",
    )
    assert found["cpu90"][2] == "impossible order: 2.1 ms is faster than 4.9 ms on share100 under cpu50"
    assert runs(desk, "cpu50") == [("VALID", None), ("INVALID", "order")]
    tracking = composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns").tracking
    table = history(Store(tracking))
    assert sorted(table["verdict"]) == ["INVALID", "INVALID", "VALID"], "what was taken back is learned from no more"
    measured({"cpu50": [2.0], "cpu90": [2.1]})
    assert "1 finished before" in desk("+sweep=loaded", ORDERS, "sweep.retest=0").out


def test_an_order_that_was_chance_is_mended(desk: Desk, measured: Any) -> None:
    desk.sweep("loaded", LOADS)
    measured({"idle": [1.0], "cpu50": [5.0, 2.0], "cpu90": [2.0, 2.1]})
    found = rows(desk("+sweep=loaded", ORDERS, "sweep.retest=0", "output=json"))
    assert {verdict for verdict, *_ in found.values()} == {"VALID"}
    assert found["cpu50"][1] == pytest.approx(2.0)


CELL = single_cell(composed("model=squeezenet", "device=share100", "load=idle"))


def cell(load: float, share: float, p50_ms: float) -> TimedCell:
    device = replace(CELL.device, share=share, name=f"share{share}")
    return TimedCell(replace(CELL, device=device, load=LoadConfig(percent=load)), p50_ms, 0.99 * p50_ms, 1.01 * p50_ms)


loads = st.sampled_from([0.0, 25.0, 50.0, 90.0])
shares = st.sampled_from([0.25, 0.5, 1.0])


@given(st.lists(st.tuples(loads, shares), unique=True), st.floats(0.1, 100))
def test_a_law_of_sharing_contradicts_nothing(settings: list[tuple[float, float]], alone_ms: float) -> None:
    lawful = [cell(load, share, alone_ms / share / max(0.5, 1 - load / 100)) for load, share in settings]
    assert contradictions(lawful, 0.0) == []


@given(loads, shares, loads, shares, st.floats(1.2, 10))
def test_only_what_is_harder_and_yet_faster_contradicts(
    load: float, share: float, other_load: float, other_share: float, factor: float
) -> None:
    faster, slower = cell(load, share, 1.0), cell(other_load, other_share, factor)
    harder = load >= other_load and share <= other_share and (load, share) != (other_load, other_share)
    found = contradictions([slower, faster], 10.0)
    assert [(each.harder, each.easier) for each in found] == ([(faster, slower)] if harder else [])
    assert contradictions([slower, faster], 1000.0) == [], "within the noise"
    assert contradictions([replace(slower, low_ms=0.5), faster], 10.0) == [], "the intervals overlap"
    other = replace(slower, cell=replace(slower.cell, measure=replace(CELL.measure, seed=1)))
    assert contradictions([other, faster], 10.0) == [], "of another kind"


def test_the_noise_floor_of_pairs() -> None:
    assert floor_of([]) is None
    floor = floor_of([(1.0, 1.1), (2.0, 1.0), (1.0, 1.0)])
    assert floor is not None
    assert (floor.median_percent, floor.cells) == (pytest.approx(10), 3)
    assert NoiseFloor.read(floor.metrics()) == floor
    assert NoiseFloor.read({name: str(value) for name, value in floor.metrics().items()}) == floor
    assert NoiseFloor.read({}) is None
