"""Sweeps from the command line: what runs, what is skipped, what fails, and what a signal leaves behind."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import onnx
import pandas as pd
import psutil
import pytest
from harness import Desk, MakeDesk, alive, composed, descendants, lasting, mlp, wait_until
from mlflow import MlflowClient

from pepper.graph.source import model_hash
from pepper.latency.collect import collect
from pepper.tracking.history import history
from pepper.tracking.store import Store

FOUR = """# Two models under two loads, on half a core.
name: four
axes:
  model: [tiny, small]
  device: [share50]
  load: [idle, cpu50]
"""


@pytest.fixture(scope="module")
def finished(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk where a sweep of four cells is finished."""
    desk = make_desk(tmp_path_factory.mktemp("finished") / "desk")
    desk.sweep("four", FOUR)
    outcome = desk("+sweep=four")
    assert outcome.status == 0, outcome.err
    assert "4 cells, 0 finished before" in outcome.out
    assert outcome.out.count("VALID") == 4
    assert "mlflow ui --backend-store-uri" in outcome.out
    assert "[4/4]" in outcome.err
    return desk


def download(desk: Desk, run_id: str, folder: Path) -> Path:
    return Path(MlflowClient(desk.uri).download_artifacts(run_id, "", str(folder)))


def test_every_cell_is_a_run_under_its_sweep(finished: Desk) -> None:
    (parent,) = finished.runs("sweep")
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "four")
    assert parent.data.metrics["cells_valid"] == 4
    runs = finished.runs()
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    assert {run.info.run_name for run in runs} == {
        f"{model} / share50 / {load} / 1t" for model in ("tiny", "small") for load in ("idle", "cpu50")
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["pepper.verdict"] for run in runs} == {"VALID"}
    assert len({run.data.tags["pepper.cell"] for run in runs}) == 4
    assert not finished.pending


def test_a_run_holds_facts_figures_and_files(finished: Desk, tmp_path: Path) -> None:
    run = next(run for run in finished.runs() if run.data.params["load"] == "cpu50")
    for fact in ("model", "device", "load_percent", "threads", "share", "batch", "device_gflops", "model_sha256"):
        assert run.data.params[fact], fact
    units = (
        "_ms",
        "_s",
        "_bytes",
        "_percent",
        "_per_s",
        "samples",
        "share_achieved",
        "share_before",
        "_periods",
        "_us",
        "pace",
    )
    assert [name for name in run.data.metrics if not name.endswith(units)] == []
    for figure in (
        "latency_p50_ms",
        "latency_p50_low_ms",
        "latency_p50_high_ms",
        "latency_mean_ms",
        "latency_stdev_ms",
        "throughput_per_s",
        "session_create_ms",
        "first_inference_ms",
        "peak_memory_bytes",
        "cpu_per_inference_ms",
        "load_alone_percent",
        "load_timed_percent",
    ):
        assert run.data.metrics[figure] > 0, figure
    folder = download(finished, run.info.run_id, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "environment.json", "samples.parquet"}
    samples = pd.read_parquet(folder / "samples.parquet")
    assert len(samples) == run.data.metrics["samples"]
    assert samples["latency_ms"].median() == pytest.approx(run.data.metrics["latency_p50_ms"])
    assert samples["start_s"].is_monotonic_increasing
    environment = json.loads((folder / "environment.json").read_text())
    assert set(environment["before"]) == set(environment["after"])
    assert environment["worker"]["onnxruntime"] == run.data.tags["pepper.onnxruntime"]
    assert environment["throttle_method"] == "suspend"


def test_the_sweep_holds_its_table_and_figures(finished: Desk, tmp_path: Path) -> None:
    folder = download(finished, finished.runs("sweep")[0].info.run_id, tmp_path)
    files = {"config.yaml", "results.csv", "report.html", "results.parquet", "latency.png", "latency.svg"}
    assert {path.name for path in folder.iterdir()} == files
    with (folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["cell"] for row in rows} == {run.data.tags["pepper.cell"] for run in finished.runs()}
    assert len(pd.read_parquet(folder / "results.parquet")) == 4


def test_a_second_run_measures_nothing(finished: Desk) -> None:
    runs, sweeps = finished.runs(), finished.runs("sweep")
    outcome = finished("+sweep=four")
    assert outcome.status == 0
    assert "4 cells, 4 finished before" in outcome.out
    assert outcome.out.count("(reused)") == 4
    assert outcome.err == ""
    assert (len(finished.runs()), len(finished.runs("sweep"))) == (len(runs), len(sweeps))


def test_other_names_are_the_same_cells(finished: Desk) -> None:
    finished.sweep("renamed", FOUR.replace("name: four", "name: renamed"))
    assert "4 finished before" in finished("+sweep=renamed", "device.name=other", "load.name=any").out


def test_what_differs_is_measured(finished: Desk) -> None:
    outcome = finished("+sweep=four", "model=tiny", "load=idle", "measure.seed=7")
    assert "1 cells, 0 finished before" in outcome.out
    assert "2 finished before" in finished("+sweep=four", "model=tiny").out


def test_a_single_run_always_measures(finished: Desk) -> None:
    before = len(finished.runs())
    for _ in range(2):
        assert finished("model=tiny", "device=share50").status == 0
    runs = finished.runs()
    assert len(runs) == before + 2
    assert runs[-1].data.tags["pepper.cell"] == runs[-2].data.tags["pepper.cell"]
    assert "mlflow.parentRunId" not in runs[-1].data.tags


def test_multirun_measures_a_cell_for_each_job(finished: Desk) -> None:
    before = len(finished.runs())
    assert finished("-m", "model=tiny,small", "device=share50").status == 0
    assert len(finished.runs()) == before + 2


@pytest.mark.slow
def test_files_of_one_name_are_told_apart_everywhere(desk: Desk) -> None:
    for folder, proto in (("first", mlp()), ("second", mlp(width=24))):
        (desk.folder / folder).mkdir(parents=True)
        onnx.save(proto, desk.folder / folder / "model.onnx")
    paths = [str(desk.folder / folder / "model.onnx") for folder in ("first", "second")]
    desk.sweep("alike", f"name: alike\naxes:\n  model: [onnx]\n  model.path: {json.dumps(paths)}\n")
    done = desk("+sweep=alike")
    assert done.status == 0, done.err
    for name in ("first/model", "second/model"):
        assert name in done.out
    assert desk("task=report", f"report.out={desk.folder}/alike.html").status == 0
    page = (desk.folder / "alike.html").read_text()
    assert "first/model" in page
    assert "second/model" in page
    tracking = composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns").tracking
    cells = history(Store(tracking))
    rows = collect(cells, desk.folder / "cache").rows
    assert set(rows.model) == {"model"}
    assert sorted(rows.group) == sorted(model_hash(Path(path))[:24] for path in paths)
    assert len(set(rows.groups("model"))) == 2
    assert (cells["metrics.pace"] > 0).all()


def test_what_is_measured_again(desk: Desk) -> None:
    """Finished cells stand or fall by verdict and ``sweep.rerun``."""
    desk.sweep("one", "# One.\nname: one\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [cpu50]\n")
    shaky = "measure.limits.load_points=1e-9"
    reused = []
    for rerun in ("none", "none", "failed"):
        outcome = desk("+sweep=one", f"sweep.rerun={rerun}", shaky)
        assert outcome.status == 0
        assert "INVALID tiny / share100 / cpu50: load missed" in outcome.err
        reused.append("1 finished before" in outcome.out)
    assert reused == [False, True, False]
    for _ in range(2):
        assert "0 finished before" in desk("+sweep=one", "sweep.rerun=all").out


@pytest.mark.slow
def test_a_failing_cell_does_not_stop_the_sweep(desk: Desk) -> None:
    desk.sweep(
        "mixed", "# Mixed.\nname: mixed\naxes:\n  model: [corrupt, endless, tiny, unknown]\n  load: [idle, cpu50]\n"
    )
    command = ("+sweep=mixed", "device=share50", "measure.time_limit_seconds=2")
    outcome = desk(*command)
    assert outcome.status == 1
    runs = desk.runs()
    by_status = {
        status: sorted(run.data.params["model"] for run in runs if run.info.status == status)
        for status in ("FINISHED", "FAILED")
    }
    assert by_status == {
        "FINISHED": ["tiny", "tiny"],
        "FAILED": ["corrupt", "corrupt", "endless", "endless", "unknown", "unknown"],
    }
    reasons = {"corrupt": "corrupt or truncated", "endless": "hung", "unknown": "Frobnicate"}
    listed = [line for line in outcome.err.splitlines() if line.startswith("FAILED ")]
    assert len(listed) == 6
    for run in runs:
        if run.info.status == "FAILED":
            reason = run.data.tags["pepper.reasons"]
            assert reasons[run.data.params["model"]] in reason
            assert "\n" not in reason
            assert any(run.info.run_name in line and reason in line for line in listed)
    (parent,) = desk.runs("sweep")
    assert parent.info.status == "FAILED"
    assert parent.data.metrics["cells_failed"] == 6
    assert "Frobnicate" in parent.data.tags["mlflow.note.content"]
    again = desk(*command, "load=idle")
    assert again.status == 1
    assert "4 cells, 1 finished before" in again.out, "failed cells are tried again, finished ones are not"


LONG = lasting(1.5)


def start_and_wait_for_a_cell(desk: Desk, *overrides: str) -> subprocess.Popen[str]:
    """Start the sweep of four long cells; return while the second is measured."""
    desk.sweep("four", FOUR)
    process = desk.start("+sweep=four", *LONG, *overrides)
    assert process.stderr is not None
    line = ""
    while "[1/4]" not in line:
        line = process.stderr.readline()
        assert line, "it ended before its first cell"
    time.sleep(0.3)
    return process


def cgroups_of(pid: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/pepper-{pid}-*"))


def can_make_cgroups() -> bool:
    probe = Path("/sys/fs/cgroup/cpu/pepper-0-0")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "throttle"), [(signal.SIGINT, 130, "suspend"), (signal.SIGTERM, 143, "cgroup")]
)
def test_a_signal_in_mid_sweep(
    desk: Desk, started: list[psutil.Process], number: int, status: int, throttle: str
) -> None:
    if throttle == "cgroup" and not can_make_cgroups():
        throttle = "suspend"
    process = start_and_wait_for_a_cell(desk, f"device.throttle={throttle}")
    started += descendants(process.pid)
    assert len(started) >= 2, "worker and load generator"
    if throttle == "cgroup":
        assert cgroups_of(process.pid)
    process.send_signal(number)
    outcome = desk.finish(process)
    assert outcome.status == status
    assert "finished cells are kept" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert alive(started) == []
    assert cgroups_of(process.pid) == []
    runs = {run.info.status: run for run in desk.runs()}
    assert len(desk.runs()) == 2
    assert set(runs) == {"FINISHED", "KILLED"}
    assert runs["KILLED"].data.tags["pepper.reasons"] == "interrupted"
    (parent,) = desk.runs("sweep")
    assert parent.info.status == "KILLED"
    assert parent.data.metrics["cells_valid"] == 1
    assert parent.data.metrics["cells_killed"] == 3
    assert not desk.pending


@pytest.mark.slow
def test_kill_9_in_mid_sweep(desk: Desk, started: list[psutil.Process]) -> None:
    process = start_and_wait_for_a_cell(desk)
    started += descendants(process.pid)
    assert len(started) >= 4, "worker, load generator, suspender, filler"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(started), timeout_s=5)
    assert len(desk.pending) + len(desk.runs()) == 1, "the finished cell is kept"
    outcome = desk("+sweep=four", *LONG)
    assert outcome.status == 0
    assert "4 cells, 1 finished before" in outcome.out
    assert len(desk.runs()) == 4
    assert not desk.pending
