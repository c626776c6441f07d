"""``task=compare`` on logged profiles and sweeps: exit statuses, matching and refusals."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import Desk
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pepper.config import TrackingConfig
from pepper.devices.host import cpu_facts
from pepper.measure.profile import Profile
from pepper.tracking import profiles, runs
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.record import Record
from pepper.tracking.runs import SWEEP
from pepper.tracking.store import Store
from pepper.tracking.writer import begin, write


@pytest.fixture
def store(desk: Desk) -> Store:
    folder = f"{desk.folder}/mlruns"
    return Store(TrackingConfig(desk.uri, "pepper/profiles", folder, f"{folder}/artifacts"))


def log(store: Store, latency_ms: float, seed: int = 0, model: str = "m", **changes: Any) -> str:
    """Log a profile whose samples scatter by 2 % around a latency, and return its run."""
    samples = latency_ms * np.random.default_rng(seed).lognormal(0, 0.02, 100)
    profile = Profile(
        status="FINISHED",
        started_s=time.time() - 1,
        ended_s=time.time(),
        verdict=changes.pop("verdict", "VALID"),
        reasons=changes.pop("reasons", []),
        metrics={"logged": 1.0},
        samples={"start_ns": np.arange(100), "latency_ns": samples * 1e6},
        environment={
            "host": {**cpu_facts(), **changes.pop("host", {})},
            "worker": {"onnxruntime": changes.pop("onnxruntime", "1.0")},
        },
    )
    params = {"model": model, "device": "d", "load": "idle", "threads": 1, "model_sha256": changes.pop("file", model)}
    cell = changes.pop("cell", f"cell of {model}")
    with tempfile.TemporaryDirectory() as scratch:
        write_artifacts(profile, "", Path(scratch))
        record = record_profile(f"{model} / d / idle / 1t", cell, params, profile, artifacts=Path(scratch), **changes)
        return write(store, record).run_id


def start_sweep(store: Store, name: str) -> str:
    return begin(store, Record(kind=SWEEP, name=name))


def compare(desk: Desk, baseline: str, candidate: str, *more: str) -> Any:
    return desk("task=compare", f"compare.baseline={baseline}", f"compare.candidate={candidate}", *more)


@pytest.mark.parametrize(
    ("candidate_ms", "status", "says"),
    [(10.0, 0, "not slower"), (8.0, 0, "faster"), (10.2, 0, "not slower"), (12.0, 3, "slower beyond 5 %")],
)
def test_two_profiles(desk: Desk, store: Store, candidate_ms: float, status: int, says: str) -> None:
    done = compare(desk, log(store, 10.0), log(store, candidate_ms, seed=1))
    assert done.status == status, done.err
    assert says in done.out


def test_the_threshold_is_the_users(desk: Desk, store: Store) -> None:
    old, new = log(store, 10.0), log(store, 12.0, seed=1)
    assert compare(desk, old, new, "compare.threshold_percent=30").status == 0
    assert compare(desk, new, old).status == 0, "the other way round it is faster"


def test_as_json(desk: Desk, store: Store) -> None:
    done = compare(desk, log(store, 10.0), log(store, 12.0, seed=1), "output=json")
    found = json.loads(done.out)
    assert (found["status"], found["slower"]) == (3, ["m / d / idle / 1t"])
    (row,) = found["comparisons"]
    assert row["low_percent"] < 20 < row["high_percent"]
    assert row["change_percent"] == pytest.approx(20, abs=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": {"cpu_model": "Other"}}, "another machine (Other"),
        ({"onnxruntime": "2.0"}, "onnxruntime 2.0, not 1.0"),
        ({"verdict": "INVALID", "reasons": ["unstable"]}, "is INVALID (unstable)"),
    ],
)
def test_unlike_runs_are_refused_unless_forced(desk: Desk, store: Store, changes: dict[str, Any], says: str) -> None:
    old, new = log(store, 10.0), log(store, 12.0, seed=1, **changes)
    refused = compare(desk, old, new)
    assert refused.status == 2
    assert says in refused.error
    assert "compare.force=true" in refused.error
    assert compare(desk, old, new, "compare.force=true").status == 3


def test_what_is_no_profile_is_refused(desk: Desk, store: Store) -> None:
    old = log(store, 10.0)
    assert "compare.candidate" in desk("task=compare", f"compare.baseline={old}").error
    assert "not in sqlite" in compare(desk, old, "f" * 32).error
    sweep = start_sweep(store, "empty")
    assert "holds no finished profile" in compare(desk, old, sweep).error
    other = store.client.create_run(store.experiment_id).info.run_id
    assert "is no profile" in compare(desk, old, other).error


def test_two_sweeps_cell_by_cell(desk: Desk, store: Store) -> None:
    old, new = (start_sweep(store, name) for name in ("old", "new"))
    for seed, (model, before_ms, after_ms) in enumerate([("a", 5.0, 4.0), ("b", 0.01, 0.01), ("c", 100.0, 130.0)]):
        log(store, before_ms, seed, model, parent=old)
        log(store, after_ms, seed + 10, model, parent=new, cell=f"another cell of {model}")  # the model changed
    log(store, 1.0, 0, "only here", parent=new)
    done = compare(desk, old, new)
    assert done.status == 3
    assert "slower beyond 5 %: c / d / idle / 1t; 3 compared" in done.out
    assert "1 cells are in one of the two only" in done.err


def test_models_are_told_by_their_files_then_by_their_names(desk: Desk, store: Store) -> None:
    old, new = (start_sweep(store, name) for name in ("old", "new"))
    files = {"model": ("first", "second"), "exported": ("before", "after"), "unclear": ("x", "y")}
    for name, (one, other) in files.items():
        log(store, 10.0, 0, name, parent=old, file=one, cell=f"{name} {one}")
        log(store, 10.0 if name == "exported" else 30.0, 1, name, parent=new, file=other, cell=f"{name} {other}")
    log(store, 30.0, 2, "model", parent=old, file="second", cell="model second")
    log(store, 10.0, 3, "renamed", parent=new, file="first", cell="model first")
    log(store, 10.0, 3, "unclear", parent=new, file="z", cell="unclear z")
    done = compare(desk, old, new, "output=json")
    rows = {row["name"].replace(" / d / idle / 1t", ""): row for row in json.loads(done.out)["comparisons"]}
    assert set(rows) == {"model", "model -> renamed", "exported"}
    assert all(abs(row["change_percent"]) < 5 for row in rows.values()), "each file against itself"
    assert "exported: another file in the candidate" in done.err
    assert "unclear: several files have this name" in done.err


def test_sweeps_of_many_cells_ask_for_many_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were reused, too, and one that was deleted since; nothing is asked of the store for each cell."""
    monkeypatch.setattr(profiles, "CHUNK", 2)
    sweep = start_sweep(store, "new")
    others = [log(store, 1.0, seed) for seed in range(4)]
    own = [log(store, 1.0, seed, parent=sweep) for seed in range(2)]
    store.client.delete_run(others[1])
    with runs.artifacts(store, sweep) as folder:
        cells = [*((run_id, True) for run_id in others), *((run_id, False) for run_id in own)]
        runs.write_table(pd.DataFrame(cells, columns=["run_id", "reused"]), folder)
    asked: list[str] = []
    get_run = SqlAlchemyStore.get_run

    def watched(self: SqlAlchemyStore, run_id: str) -> Any:
        asked.append(run_id)
        return get_run(self, run_id)

    monkeypatch.setattr(SqlAlchemyStore, "get_run", watched)
    found = [profile.run_id for profile in profiles.logged_profiles(store, sweep)]
    assert sorted(found[:2]) == sorted(own)
    assert found[2:] == others
    assert set(asked) == {sweep, others[1]}


def test_repeated_measurements_are_one_comparison(desk: Desk, store: Store) -> None:
    """Processes differ by 10 %: one of each side looks slower beyond doubt, three do not."""
    old, new = (start_sweep(store, name) for name in ("old", "new"))
    single = {}
    for parent, times_ms in ((old, (10.0, 11.0, 10.5)), (new, (11.0, 10.2, 10.6))):
        for seed, latency_ms in enumerate(times_ms):
            run_id = log(store, latency_ms, seed, parent=parent, cell=f"seed {seed}")
            single.setdefault(parent, run_id)
    assert compare(desk, single[old], single[new]).status == 3
    assert "repeat with sweep axis measure.seed" in compare(desk, single[old], single[new]).out
    done = compare(desk, old, new, "output=json")
    assert done.status == 0
    (row,) = json.loads(done.out)["comparisons"]
    assert len(row["baseline_runs"]) == len(row["candidate_runs"]) == 3
    assert row["low_percent"] < 0 < row["high_percent"]


@pytest.mark.slow
def test_a_measured_sweep_and_one_that_reused_it_are_alike(desk: Desk) -> None:
    desk.sweep("pair", "# Two.\nname: pair\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [idle, cpu50]\n")
    first = json.loads(desk("+sweep=pair", "load=idle", "output=json").out)["run_id"]
    second = json.loads(desk("+sweep=pair", "output=json").out)["run_id"]
    done = compare(desk, first, second, "output=json", "compare.force=true")
    assert done.status == 0
    (row,) = json.loads(done.out)["comparisons"]
    assert row["baseline_runs"] == row["candidate_runs"]
