"""``task=execute``: a plan is run, compared with its predictions, and logged; what is wrong with it is said."""

import csv
import errno
import io
import json
import os
import re
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from harness import Desk, MakeDesk, composed, descendants
from onnx import numpy_helper

from pepper.config import LoadConfig
from pepper.console.progress import StepProgress
from pepper.errors import TrackingError
from pepper.execution import trials
from pepper.execution.layout import Layout
from pepper.execution.runner import Runner
from pepper.execution.trials import Trial
from pepper.graph.source import content_hash
from pepper.placement.plan import Plan, PlanRules
from pepper.planning import measuring, other_plans
from pepper.planning.planned import Planned
from pepper.planning.splitting import Splitter
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import flush
from pepper.tracking.record import Record
from pepper.tracking.store import Store
from pepper.tracking.writer import write
from tests.tasks.plans import CORES, make_plan, save, shares

QUICKLY = (
    "task=execute",
    "execute.trials.seconds=0.1",
    "execute.trials.min_requests=5",
    "execute.time_limit_seconds=20",
)
RESULTS = {
    "conditions.csv",
    "steps.csv",
    "links.csv",
    "runs.csv",
    "report.html",
    "requests.csv",
    "timeline.csv",
    "timeline.png",
    "timeline.svg",
}


@pytest.fixture(scope="module")
def shared_desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("execute") / "desk")


@pytest.fixture
def plan(models: dict[str, Path]) -> Plan:
    fleet = shares(camera=0.3, edge=0.5)
    fleet["edge"] = replace(fleet["edge"], load=LoadConfig(percent=20))
    return make_plan(str(models["small"]), ["camera", "edge"], fleet)


def metrics_of(desk: Desk) -> tuple[Any, dict[str, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    experiment = client.get_experiment_by_name("pepper/executions")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], max_results=1)[0]
    return run, run.data.metrics


@pytest.mark.slow
def test_a_plan_is_run_and_logged(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    outcome = shared_desk(*QUICKLY, f"execute.plan={save(plan, tmp_path)}", "execute.others.exhaustive=true")
    assert outcome.status == 0, outcome.err
    for text in (
        "camera -> edge",
        "stage 2, operators",
        "one request",
        "requests/s (Poisson)",
        "no split",
        "cut before",
    ):
        assert text in outcome.out
    run, metrics = metrics_of(shared_desk)
    assert run.data.tags["pepper.kind"] == "execution"
    assert run.data.tags["pepper.latency_model_version"] == "3"
    assert metrics["predicted_latency_ms"] == plan.latency_ms
    assert metrics["latency_p50_ms"] > 2 * 1.0, "the links alone take that"
    assert metrics["one_request_error_percent"] == pytest.approx(
        100 * (plan.latency_ms / metrics["latency_mean_ms"] - 1)
    )
    assert metrics["difference"] <= 1e-4
    assert metrics["regret"] >= 1
    assert metrics["failed_requests"] == 0
    assert metrics["transfer_and_pickup_camera_to_edge_measured_ms"] >= 1.0, "the link alone takes that"
    assert {f"foreign_percent_{name}" for name in ("camera", "edge")} <= set(metrics)
    assert metrics["share_achieved_camera"] == pytest.approx(0.3, rel=0.5)
    from mlflow import MlflowClient

    files = {file.path for file in MlflowClient(shared_desk.uri).list_artifacts(run.info.run_id)}
    assert files >= {"plan.json", *RESULTS}


def test_parts_that_were_written_before(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    file, parts = save(plan, tmp_path), tmp_path / "parts"
    assert plan.model is not None
    model = f"model.path={plan.model.path}"
    assert shared_desk("task=split", "model=onnx", model, f"split.plan={file}", f"split.out={parts}").status == 0
    given = (*QUICKLY, f"execute.plan={file}", f"execute.parts={parts}")
    inputs = tmp_path / "inputs.npz"
    shape = plan.model.input_shapes["input"]
    np.savez(inputs, input=np.ones(shape, np.float32))
    assert shared_desk(*given, f"execute.inputs={inputs}").status == 0
    np.savez(inputs, input=np.ones(shape[:-1], np.float32))
    refused = shared_desk(*given, f"execute.inputs={inputs}")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "input 'input': is float32" in refused.err
    (parts / "part_2.onnx").unlink()
    refused = shared_desk(*given)
    assert (refused.status, refused.err) == (2, f"error: {parts}/part_2.onnx: no such part; split the model again\n")


def device(name: str, **changes: Any) -> Callable[[Path], None]:
    return edited(lambda content: content["fleet"]["devices"][name]["device"].update(changes))


def model(**changes: Any) -> Callable[[Path], None]:
    return edited(lambda content: content["model"].update(changes))


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(file: Path) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edited(lambda c: c.update(version=99)), "plan version 99; this pepper reads 3, 4 and 5"),
        (model(sha256="0" * 64), r"was made for another .* \(sha256 000000000000, the file"),
        (model(path="gone.onnx"), "gone.onnx: no such file"),
        (edited(lambda c: c.update(model=None)), "the plan names no model; make one with task=place"),
        (device("edge", cores=[999]), "edge: .*core 999 is not among"),
        (edited(lambda c: c["fleet"]["devices"].update(edge={})), "does not say what device 'edge' is"),
        (edited(lambda c: c["fleet"]["devices"].pop("edge")), "fleet: 'edge' is not among the fleet's devices"),
        (device("edge", share=0.9), f"core {CORES[-1]} is wanted 1.2 times"),
        (edited(lambda c: c["fleet"].update(links=[])), "no link from camera to edge: the fleet has none"),
        (lambda file: file.unlink(), "plan.json: cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_plan_is_said_in_one_line(
    shared_desk: Desk, plan: Plan, tmp_path: Path, edit: Callable[[Path], None], message: str
) -> None:
    file = save(plan, tmp_path)
    edit(file)
    outcome = shared_desk(*QUICKLY, f"execute.plan={file}")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1

    assert re.search(message, outcome.err), outcome.err


def test_a_plan_must_be_given(shared_desk: Desk) -> None:
    outcome = shared_desk("task=execute")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "execute.plan: has no value; give execute.plan=FILE" in outcome.err


def test_a_wrong_answer_fails_the_run(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    """Parts that compute something else: here, the last one with other weights."""
    file, parts = save(plan, tmp_path), tmp_path / "parts"
    assert plan.model is not None
    model = f"model.path={plan.model.path}"
    assert shared_desk("task=split", "model=onnx", model, f"split.plan={file}", f"split.out={parts}").status == 0
    last = onnx.load(parts / "part_2.onnx")
    (weight,) = last.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weight), weight.name))
    onnx.save(last, parts / "part_2.onnx")
    given = (*QUICKLY, f"execute.plan={file}", f"execute.parts={parts}")
    assert f"execute.parts={parts}: part_2.onnx is not as it was split" in shared_desk(*given).error
    manifest = json.loads((parts / "manifest.json").read_text())
    manifest["parts"][1]["sha256"] = content_hash([parts / "part_2.onnx"])
    (parts / "manifest.json").write_text(json.dumps(manifest))
    outcome = shared_desk(*given)
    assert outcome.status == 1
    assert "an answer differs from the whole model's by 0.01" in outcome.err
    assert "times what is accepted (execute.tolerance)" in outcome.err
    _, metrics = metrics_of(shared_desk)
    assert metrics["difference"] == pytest.approx(0.01, rel=0.01)
    assert shared_desk(*given, "execute.tolerance=0.02").status == 0


def test_inputs_that_cannot_be_read(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    given = (*QUICKLY, f"execute.plan={save(plan, tmp_path)}")
    whole, file = io.BytesIO(), tmp_path / "inputs.npz"
    np.savez(whole, input=np.ones(1000, np.float32))
    single = io.BytesIO()
    np.save(single, np.ones(4, np.float32))
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("input.txt", "words")
    damaged = bytearray(whole.getvalue())
    damaged[500] ^= 1
    for content, reason in (
        (single.getvalue(), "one array without a name"),
        (b"", "not a zip file"),
        (whole.getvalue()[:-30], "zip"),
        (bytes(damaged), "CRC"),
        (text.getvalue(), "'input.txt' is no array"),
        (b"words", "not a zip file"),
    ):
        file.write_bytes(content)
        error = shared_desk(*given, f"execute.inputs={file}").error
        assert f"execute.inputs={file}: cannot be read (" in error
        assert reason in error
        assert "give an .npz file of arrays by input name" in error


def test_a_folder_that_cannot_be_written_is_said_first(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", "/proc/self/task"):  # the second is there, but takes no files
        error = shared_desk("task=execute", "execute.plan=nowhere", f"execute.out={out}").error
        assert f"execute.out={out}: cannot be written" in error
        assert "choose another folder" in error


def test_results_are_kept_where_mlflow_refuses_them(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("the disk is full")

    out = tmp_path / "out"
    out.mkdir()
    (out / "moves.csv").write_text("of an earlier run")
    given = (*QUICKLY, f"execute.plan={save(plan, tmp_path)}", f"execute.out={out}")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", refuse)
        outcome = shared_desk(*given)
    assert outcome.status == 2
    assert "the store does not answer (the disk is full)" in outcome.err.splitlines()[-1]
    (left,) = (shared_desk.folder / "mlruns" / "pending").iterdir()
    assert outcome.err.endswith(f"; what was measured is in {left}: log it with task=import\n")
    assert {"plan.json", "requests.csv"} <= {file.name for file in (left / "artifacts").iterdir()}
    assert {file.name for file in out.iterdir()} == {"plan.json", *RESULTS}
    half = metrics_of(shared_desk)[0]
    assert half.info.status == "FAILED"
    imported = shared_desk("task=import")
    assert imported.status == 0, imported.err
    assert "logged 1 waiting results" in imported.out
    assert not left.exists()
    run = metrics_of(shared_desk)[0]
    assert run.info.run_id != half.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.metrics["latency_p50_ms"] > 0
    assert "logged 0 waiting results" in shared_desk("task=import").out


def test_another_plan_that_was_run_before_a_signal_is_kept(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, out = StepProgress.advance, tmp_path / "out"

    def interrupted(progress: StepProgress, name: str, *given: Any, **options: Any) -> None:
        advance(progress, name, *given, **options)
        if name.startswith("no split"):
            raise KeyboardInterrupt

    monkeypatch.setattr(StepProgress, "advance", interrupted)
    given = (*QUICKLY, f"execute.plan={save(plan, tmp_path)}", f"execute.out={out}")
    outcome = shared_desk(*given, "execute.others.exhaustive=true")
    assert outcome.status == 130
    assert "what was measured until then: run" in outcome.err.splitlines()[-1]
    (other,) = csv.DictReader((out / "runs.csv").open())
    assert other["name"] == "no split"
    assert float(other["latency_ms"]) > 0


def test_a_full_disk_leaves_no_half_of_what_the_store_refused(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "requests.csv").write_text("latency_ms\n1\n")
    store = Store(composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns").tracking)
    started_ms = round(1000 * (time.time() - 3600))
    at_s = started_ms / 1000
    record, outbox = (
        Record(kind="execution", name="small on camera", artifacts=artifacts, ended_s=at_s),
        Outbox(store.folder),
    )

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(TrackingError, match=r"cannot keep results \(No space left on device\); free some space"):
            outbox.add(record, store.uri, store.config.experiment)
    assert outbox.all() == []
    assert list(outbox.folder.iterdir()) == []
    entry = outbox.add(record, store.uri, store.config.experiment)
    (read,) = outbox.all()
    assert read.record == replace(record, artifacts=entry / "artifacts")
    assert (read.uri, read.experiment) == (store.uri, store.config.experiment)
    assert "1 wait to be logged" in desk("task=doctor").out
    (written,) = flush(store).written.values()
    assert store.client.get_run(written.run_id).info.start_time == started_ms
    assert flush(store).written == {}, "it was logged before"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_run_keeps_what_was_measured(
    shared_desk: Desk, plan: Plan, tmp_path: Path, started: list[psutil.Process], number: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    given = (*QUICKLY, f"execute.plan={save(plan, tmp_path)}", f"execute.out={out}", "execute.trials.seconds=60")
    process = shared_desk.start(*given)
    assert process.stderr is not None
    while "hops measured" not in (line := process.stderr.readline()):
        assert line, "it ended before its first request"
    time.sleep(1)  # of the minute that single requests take
    started += descendants(process.pid)
    assert len(started) >= 2
    process.send_signal(number)
    outcome = shared_desk.finish(process)
    assert outcome.status == status, outcome.err
    run, metrics = metrics_of(shared_desk)
    assert outcome.err.endswith(f": what was measured until then: run {run.info.run_id} of pepper/executions, FAILED\n")
    assert run.info.status == "FAILED"
    assert "ended early" in run.data.tags["mlflow.note.content"]
    assert metrics["one_at_a_time_latency_p50_ms"] > 0
    requests = list(csv.DictReader((out / "requests.csv").open()))
    assert len(requests) > 5
    assert {request["trial"] for request in requests} == {"one at a time"}


def test_other_plans_that_cannot_be_run_are_named(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a link from edge to camera, whatever ends at the edge cannot answer the camera."""
    written = []
    layout = Splitter.layout

    def counted(*given: Any) -> Layout:
        written.append(given)
        return layout(*given)

    monkeypatch.setattr(Splitter, "layout", counted)
    oneway = tuple(link for link in plan.fleet.links if link.origin == "camera")
    file = save(replace(plan, fleet=replace(plan.fleet, links=oneway, sink=None)), tmp_path)
    outcome = shared_desk(*QUICKLY, f"execute.plan={file}", "execute.others.exhaustive=true", "output=json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    runs = [(run["name"], run["devices"]) for run in found["runs"]]
    cuts = [one["name"] for one in found["not_run"]]
    assert runs[:3] == [("the plan", "camera - edge"), ("no split", "camera"), ("no split", "edge")]
    (other,) = runs[3:]
    assert other in [(cut, "camera - edge") for cut in cuts]
    assert len(cuts) == 2
    assert {one["devices"] for one in found["not_run"]} == {"edge - camera"}
    assert all("no link from edge to camera" in one["reason"] for one in found["not_run"])
    assert len(written) == 1 + 1, "the model is split once for all other plans with the same cuts that can be run"
    assert found["events"] == []
    assert f"[{4 + 2 + 3}/9] {cuts[1]} on edge - camera: not run: no link" in outcome.err


def test_a_device_that_is_lost_in_another_plan(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured is kept, no other plan is measured in its place, and the rest goes on."""

    def saturated(runner: Runner, *given: Any) -> Trial:
        if runner.layout.devices == ("camera",):
            os.kill(runner.stages[0].program.pid, signal.SIGKILL)
        return trials.saturated(runner, *given)

    monkeypatch.setattr(other_plans, "saturated", saturated)
    file = save(plan, tmp_path)
    outcome = shared_desk(*QUICKLY, f"execute.plan={file}", "execute.others.exhaustive=true", "output=json")
    assert outcome.status == 1
    assert "error: 1 requests or plans failed, the first: no split on camera: no plan is left" in outcome.err
    found = json.loads(outcome.out)
    assert [run["devices"] for run in found["runs"]] == ["camera - edge", "edge"]
    assert found["runs"][0]["name"] == "the plan"
    reasons = [one["reason"] for one in found["not_run"]]
    assert len(reasons) == 4
    assert all("camera is lost (" in reason for reason in reasons[1:])
    assert [event["kind"] for event in found["events"]] == ["lost"]
    assert found["metrics"]["failed_requests"] == 1


@pytest.mark.parametrize(
    ("positions", "most", "count"), [(1, 1, 1 + 2), (2, 1, 3 + 2), (None, 2, 3 + 2 + 2), (2, 9, 7)]
)
def test_every_other_plan_is_among_those_to_run(plan: Plan, positions: int | None, most: int, count: int) -> None:
    """Two devices, two places to cut: 2 plans without a cut, 4 with one, 2 with two; one of them is the plan."""
    config = composed(
        "execute.others.exhaustive=true",
        f"execute.others.positions={positions or 'null'}",
        f"execute.others.max_cuts={most}",
    )
    found = other_plans.other_plans(Planned(config, plan, "plan"))
    keys = {(other.positions, other.devices) for other in found}
    assert len(keys) == len(found)
    assert (tuple(part.start for part in plan.parts[1:]), ("camera", "edge")) not in keys
    assert all(before != after for other in found for before, after in pairwise(other.devices))
    assert len(found) == count, [(other.name, other.devices) for other in found]


def test_what_breaks_the_plans_own_rules_is_not_among_them(plan: Plan) -> None:
    config = composed("execute.others.exhaustive=true", "execute.others.positions=null", "execute.others.max_cuts=2")

    def devices(**rules: Any) -> set[tuple[str, ...]]:
        planned = Planned(config, replace(plan, rules=PlanRules(**rules)), "plan")
        return {other.devices for other in other_plans.other_plans(planned)}

    everything = devices()
    assert devices(excluded=("edge",)) == {("camera",)}
    assert devices(max_parts=1) == {("camera",), ("edge",)}
    assert devices(pinned={"camera": (0, 1)}) == {found for found in everything if found[0] == "camera"}
    assert devices() == everything


def test_a_run_that_cannot_be_trusted_says_so(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    outcome = shared_desk(*QUICKLY, f"execute.plan={save(plan, tmp_path)}", "measure.limits.share_percent=1e-9")
    assert outcome.status == 0, outcome.err
    assert re.search(r"INVALID: share missed: camera gave 0\.\d+ of its cores, asked for 0\.3", outcome.out)
    assert "**INVALID**: share missed: " in metrics_of(shared_desk)[0].data.tags["mlflow.note.content"]


def test_another_plan_with_wrong_answers_is_no_reference(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = other_plans._run

    def wrong(*given: Any) -> other_plans.OtherRun:
        return replace(run(*given), difference=0.5, excess=9.0, latency_ms=1e-3)

    monkeypatch.setattr(other_plans, "_run", wrong)
    given = (*QUICKLY, f"execute.plan={save(plan, tmp_path)}", "execute.others.compare=true", "output=json")
    outcome = shared_desk(*given)
    assert outcome.status == 1
    found = json.loads(outcome.out)
    assert [line["name"] for line in found["runs"]] == ["the plan"]
    assert {line["devices"] for line in found["not_run"]} == {"camera", "edge"}
    assert all("differs from the whole model's by 0.5" in line["reason"] for line in found["not_run"])


@pytest.mark.slow
def test_a_reader_that_has_ended_costs_no_results(shared_desk: Desk, plan: Plan, tmp_path: Path) -> None:
    """As in ``| head -1``: the tables come when all is measured."""
    before = metrics_of(shared_desk)[0].info.run_id
    process = shared_desk.start(*QUICKLY, f"execute.plan={save(plan, tmp_path)}")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(60) == 141
    run, metrics = metrics_of(shared_desk)
    assert (run.info.run_id != before, run.info.status) == (True, "FINISHED")
    assert metrics["latency_p50_ms"] > 0


def test_what_was_measured_before_the_last_device_was_lost_is_kept(
    shared_desk: Desk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(runner: Runner, *given: Any, **options: Any) -> Trial:
        over = threading.Event()

        def end_all() -> None:
            while not over.wait(0.01):  # also what takes a lost one's place
                for stage in runner.stages:
                    with suppress(ProcessLookupError):
                        os.kill(stage.program.pid, signal.SIGKILL)

        ending = threading.Thread(target=end_all)
        ending.start()
        try:
            return trials.at_rate(runner, *given, **options)
        finally:
            over.set()
            ending.join()

    monkeypatch.setattr(measuring, "at_rate", dying)
    outcome = shared_desk(*QUICKLY, f"execute.plan={save(plan, tmp_path)}", f"execute.out={tmp_path / 'out'}")
    assert outcome.status == 2
    assert "no plan is left without the lost devices" in outcome.err.splitlines()[-1]
    with (tmp_path / "out" / "requests.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["trial"] for row in rows} >= {"one at a time", "saturated"}
    assert all(float(row["latency_ms"]) >= float(row["compute_1_ms"]) > 0 for row in rows if not row["error"])
    run, metrics = metrics_of(shared_desk)
    assert run.info.status == "FAILED"
    assert "ended early: no plan is left" in run.data.tags["mlflow.note.content"]
    assert metrics["saturated_samples"] >= 5
    assert f"run {run.info.run_id} of pepper/executions, FAILED" in outcome.out


def test_a_plan_on_one_device(shared_desk: Desk, plan: Plan, models: dict[str, Path], tmp_path: Path) -> None:
    whole = make_plan(str(models["small"]), ["edge"], plan.fleet.devices)
    whole = replace(whole, fleet=replace(whole.fleet, source=None, sink=None))
    outcome = shared_desk(*QUICKLY, f"execute.plan={save(whole, tmp_path)}", "output=json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    steps = ["pickup", "stage 1, operators 0 to 3", "one request", "between results of a stream"]
    assert [step["what"] for step in found["steps"]] == steps
    assert [step["predicted_ms"] for step in found["steps"][:2]] == [whole.parts[0].pickup_ms, whole.parts[0].time_ms]
    assert (found["links"], found["events"]) == ([], [])
    assert [run["devices"] for run in found["runs"]] == ["edge"]
    run, metrics = metrics_of(shared_desk)
    assert (found["run_id"], found["metrics"]) == (run.info.run_id, pytest.approx(metrics))


def test_two_runs_of_one_name_are_told_apart_in_the_report(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    tracking = composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns").tracking
    kept = save(plan, tmp_path).parent
    for _ in range(2):
        write(Store(tracking), Record(kind="execution", name="small on camera", artifacts=kept))
        time.sleep(1)
    html = tmp_path / "report.html"
    assert desk("task=report", f"report.out={html}").status == 0
    assert len(set(re.findall(r"small on camera \([\d: -]+\)", html.read_text()))) == 2
