"""``task=execute`` where there is a champion: what it compares with, what it does when a stage dies, where it leads."""

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Desk, MakeDesk

from pepper.devices import host
from pepper.execution.runner import Runner
from pepper.planning import measuring as task
from pepper.planning.planned import Planned
from tests.tasks.champion import furnished

pytestmark = pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="two devices need two cores")

QUICKLY = (
    "task=execute",
    "execute.trials.seconds=0.1",
    "execute.trials.min_requests=5",
    "execute.time_limit_seconds=20",
)


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("executing") / "desk"), errors=(0.0,)) as made:
        yield made


@pytest.fixture(scope="module")
def plan(desk: Desk) -> Path:
    """A plan in two parts, the first at the camera."""
    out = desk.folder / "placed"
    done = desk("task=place", "model=net", "fleet=pair", "objective=throughput", "link=ethernet_1gbit",
                "place.pinned.camera=2", "place.confidence=0", f"place.out={out}")  # fmt: skip
    assert done.status == 0, done.err
    return out / "plan.json"


def run_of(desk: Desk, run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(desk.uri).get_run(run_id)


def test_a_run_leads_to_its_placement_and_the_profiles(
    desk: Desk, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And beside the plan runs each part on its fastest device: here, the first at the camera, where it is pinned."""
    forecast = Planned.forecast.func

    def altered(planned: Planned) -> Any:
        found = forecast(planned)
        camera = list(found.fleet.devices).index("camera")
        found.part_ms[..., camera] = 1e9
        found.part_ms[0, :, camera] = 1e-6
        return found

    monkeypatch.setattr(Planned, "forecast", property(altered))
    done = desk(
        *QUICKLY, f"execute.plan={plan}", "execute.others.compare=true", f"execute.out={tmp_path}", "output=json"
    )
    assert done.status == 0, done.err
    found = json.loads(done.out)
    placement = json.loads(plan.read_text())["provenance"]["placement_run"]
    run, placed = run_of(desk, found["run_id"]), run_of(desk, placement)
    assert placed.data.tags["pepper.kind"] == "placement"
    assert (placed.info.status, run.info.status) == ("FINISHED", "FINISHED")
    assert run.data.tags["pepper.placement_run"] == placement
    digests = [one.inputs.dataset_inputs[0].dataset.digest for one in (placed, run)]
    assert digests == [run.data.tags["pepper.dataset_digest"]] * 2
    runs = [(line["name"], line["devices"]) for line in found["runs"]]
    assert runs == [
        ("the plan", "camera - server"),
        ("no split", "camera"),
        ("each part on its fastest device", "camera - server"),
    ]
    for one in (run, placed):
        page = Path(one.info.artifact_uri.removeprefix("file://")) / "report.html"
        assert str(one.info.run_name) in page.read_text()


def killing(function: Callable[..., Any]) -> Callable[..., Any]:
    """What kills the server's stage, and then goes on as before."""

    def killed(runner: Runner, *given: Any) -> Any:
        (stage,) = (stage for stage in runner.stages if stage.part.device == "server")
        os.kill(stage.program.pid, signal.SIGKILL)
        return function(runner, *given)

    return killed


@pytest.mark.parametrize("when", ["measure_hops", "saturated", "usage"])
def test_a_stage_that_dies_does_not_stop_the_run(
    desk: Desk, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    where = Runner if when == "usage" else task
    monkeypatch.setattr(where, when, killing(getattr(where, when)))
    out = tmp_path / "out"
    done = desk(*QUICKLY, f"execute.plan={plan}", "execute.others.compare=true", f"execute.out={out}")
    assert done.status == 0, done.err
    assert "lost: server: pepper.execution.stage: crashed" in done.out
    assert "moved: to camera: lost server" in done.out
    with (out / "runs.csv").open(newline="") as stream:
        runs = [(line["name"], line["devices"]) for line in csv.DictReader(stream)]
    assert runs == [("the plan (a device was lost)", "camera"), ("no split", "camera")]
    html = tmp_path / "report.html"
    assert desk("task=report", f"report.out={html}").status == 0
    assert "moved" in html.read_text()
    run = run_of(desk, done.out.split("logged as run ")[1].split()[0])
    assert run.data.metrics["failed_requests"] == 0
    assert np.isfinite(run.data.metrics["throughput_per_s"])
    assert "regret" not in run.data.metrics, "it would be of more than the plan"
