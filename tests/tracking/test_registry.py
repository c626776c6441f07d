"""Training, registering and promoting on a real MLflow store."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Desk, convnet, ends_what_was_abandoned, mlp, wait_until

from pepper.config import TrackingConfig
from pepper.errors import TrackingError
from pepper.latency.features import FEATURES
from pepper.measure.profile import Profile
from pepper.tracking.outbox import Outbox
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.record import Child, Dataset, NewVersion, Record
from pepper.tracking.registry import CHAMPION, Registry, promotion, write_signature
from pepper.tracking.store import Store
from pepper.tracking.user import user
from pepper.tracking.writer import write

NAME = "pepper-latency"
QUICK = ("tuning.trials=2", "tuning.folds=2")


@pytest.fixture
def store(tmp_path: Path, fresh_database: Path) -> Store:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(fresh_database, folder / "mlflow.db")
    return Store(
        TrackingConfig(f"sqlite:///{folder}/mlflow.db", "pepper/latency", str(folder), str(folder / "artifacts"))
    )


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, NAME)


def register(store: Store, registry: Registry, tmp_path: Path) -> int:
    folder = tmp_path / "model"
    (folder / "model").mkdir(parents=True, exist_ok=True)
    write_signature(folder / "model", ["macs"], ["p50_ms"])
    training = Record(
        kind="training",
        name="test",
        params={"rounds": 1},
        metrics={"mape": 0.1},
        children=(
            Child("trial", "trial 0", params={"rounds": 1}, metrics={"mape": 0.1}),
            Child("trial", "trial 1", "KILLED", {"rounds": 2}),
        ),
        dataset=Dataset("profiles", "abc", "dataset/rows.parquet", ("macs",), 3),
        version=NewVersion(registry.name, {"dataset_digest": "abc"}),
        note="note",
        artifacts=folder,
    )
    version = write(store, training).version
    assert version is not None
    return version


def test_a_version_carries_its_run_signature_and_tags(store: Store, registry: Registry, tmp_path: Path) -> None:
    assert registry.champion() is None
    assert registry.versions() == []
    version = register(store, registry, tmp_path)
    assert registry.versions() == [version] == [1]
    assert registry.tags(1)["dataset_digest"] == "abc"
    run = store.client.get_run(store.client.get_model_version(NAME, "1").run_id)
    assert run.inputs.dataset_inputs[0].dataset.digest == "abc"
    children = store.client.search_runs([store.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    assert sorted(child.info.status for child in children) == ["FINISHED", "KILLED"]
    with registry.artifacts(1, "model") as folder:
        assert "macs" in (folder / "MLmodel").read_text()
    with pytest.raises(TrackingError, match=r"no version 7 \(versions: 1\)"):
        registry.tags(7)


def test_history_is_read_back_and_a_moved_alias_honoured(store: Store, registry: Registry, tmp_path: Path) -> None:
    for _ in range(3):
        register(store, registry, tmp_path)
    registry.promote(promotion(1, None, "first"))
    registry.promote(promotion(2, 1, "better", 0.1, 0.2))
    assert registry.champion() == 2
    assert registry.before(2) == 1
    assert [(p.version, p.previous, p.why, p.error) for p in registry.history()] == [
        (1, None, "first", None),
        (2, 1, "better", 0.1),
    ]
    store.client.set_registered_model_alias(NAME, CHAMPION, "3")
    assert registry.champion() == 3
    assert registry.before(3) == 2
    registry.promote(promotion(1, 3, "better"))
    assert registry.before(1) == 3, "a person's champion counts"
    registry.promote(promotion(3, 1, "rollback", rollback=True))
    assert registry.before(3) == 2
    registry.promote(promotion(2, 3, "rollback", rollback=True))
    assert registry.before(2) == 1


def test_a_tag_that_says_no_promotion_is_left_out(
    store: Store, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(store, registry, tmp_path)
    registry.promote(promotion(1, None, "first"))
    for number, value in enumerate(("{", "[]", '{"version": "1"}')):
        store.client.set_model_version_tag(NAME, "1", f"pepper.promotion.{number}", value)
    assert [p.why for p in registry.history()] == ["first"]
    said = capsys.readouterr().err.splitlines()
    assert [f"tag pepper.promotion.{number} says no promotion" in line for number, line in enumerate(said)] == 3 * [
        True
    ]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # no such entry in the password database
    assert user() == "uid 54321"
    assert promotion(1, None, "first").who == "uid 54321"


def log_cells(desk: Desk, slower: float = 1.0, seed: int = 0) -> None:
    """Log what would have been measured of five models on two devices under two loads."""
    import onnx

    from pepper.config import ModelConfig
    from pepper.graph.model import find_model

    folder = desk.folder / "networks"
    folder.mkdir(exist_ok=True)
    protos = {"conv": convnet(), **{f"mlp{width}": mlp(width) for width in (16, 64, 128, 256)}}
    rng = np.random.default_rng(seed)
    outbox = Outbox(desk.folder / "mlruns")
    for name, proto in protos.items():
        file = folder / f"{name}.onnx"
        onnx.save(proto, file)
        model = find_model(ModelConfig(path=str(file)))
        for device, gflops in (("fast", 50.0), ("slow", 10.0)):
            for percent in (0.0, 50.0):
                size = 3e5 if name == "conv" else 2.0 * int(name[3:]) ** 2
                latency_ms = slower * (size / gflops / 1e3 + 0.01) * (1 + percent / 50) * rng.uniform(0.98, 1.02)
                params: dict[str, Any] = {
                    "model": name,
                    "device": device,
                    "load": f"cpu{percent:.0f}",
                    "load_percent": percent,
                    "load_cores": int(percent > 0),
                    "threads": 1,
                    "optimization": "all",
                    "model_path": str(file),
                    "model_sha256": model.content_hash,
                    "input_shapes": json.dumps(model.shapes),
                    "device_gflops": gflops,
                    "device_gflops_single": gflops,
                    "device_memory_gbps": gflops / 5,
                }
                scale = {"p50": 1.0, "p50_low": 0.99, "p50_high": 1.01, "p95": 1.2}
                metrics = {f"latency_{key}_ms": latency_ms * factor for key, factor in scale.items()}
                metrics |= {"throughput_per_s": 1000 / latency_ms, "samples": 100.0}
                samples = {"start_ns": np.arange(3), "latency_ns": np.full(3, round(latency_ms * 1e6))}
                profile = Profile("FINISHED", 1e9, 1e9 + 1, "VALID", metrics=metrics, samples=samples)
                cell = f"{name}{device}{percent}{seed}"
                outbox.add(
                    record_profile(name, cell, params, profile), fill=partial(write_artifacts, profile, "config")
                )
    assert desk("task=import").status == 0


@pytest.mark.slow
def test_from_measurements_to_a_prediction(desk: Desk) -> None:
    assert "no VALID measurement" in desk("task=train").error
    shipped = desk("task=predict", "model=tiny")
    assert "by the latency model that pepper ships" in shipped.out, shipped.err
    assert "warning: the model that pepper ships answers" in shipped.err
    assert "has no version; train one" in desk("task=promote").error
    log_cells(desk)

    with ends_what_was_abandoned(desk.uri, "pepper/latency"):
        trained = desk("task=train", *QUICK)
    assert trained.status == 0, trained.err
    assert "20 measurements of 5 models on 2 devices under 2 loads" in trained.out
    assert "version 1 of pepper-latency is registered" in trained.out
    waiting = desk("task=predict", "model=tiny")
    assert "by the latency model that pepper ships" in waiting.out
    assert "version 1 of pepper-latency awaits promotion: task=promote" in waiting.err
    assert "task=train" not in waiting.err

    assert "version 1 is the champion: the first" in desk("task=promote").out
    assert "already" in desk("task=promote").out
    again = desk("task=train", *QUICK)
    assert again.status == 0
    refused = desk("task=promote")
    assert refused.status == 3
    assert "version 1 stays the champion" in refused.out
    assert "needs a reason" in desk("task=promote", "promote.force=true").error
    forced = desk("task=promote", "promote.force=true", "promote.reason=looks right")
    assert forced.status == 0
    assert desk("task=promote", "promote.rollback=true").status == 0
    history = desk("task=promote", "promote.history=true").out.splitlines()
    assert [line.split("version ")[1][0] for line in history] == ["1", "2", "1"]
    assert "looks right" in history[1]
    assert "rollback" in history[2]

    predicted = desk("task=predict", "model=conv", "device=share100", "latency.version=2")
    assert predicted.status == 0, predicted.err
    assert "median" in predicted.out
    assert "by pepper-latency version 2" in predicted.out
    assert "what was trained on" in predicted.err  # neither this machine nor convolutions are
    assert "no version 9" in desk("task=predict", "latency.version=9").error


@pytest.mark.slow
def test_a_training_that_the_store_misses_is_registered_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    log_cells(desk)
    for step in ("create_model_version", "create_run"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, away)
            outcome = desk("task=train", *QUICK)
        assert outcome.status == 2
        (entry,) = desk.pending
        assert outcome.err.endswith(f"; what was learned is in {entry}: log it with task=import\n")
        if step == "create_model_version":
            imported = json.loads(desk("task=import", "output=json").out)
            assert imported["registered"] == [{"registered_model": NAME, "version": 1}]
    assert "version 3 of pepper-latency is registered" in desk("task=train", *QUICK).out, "the one that waits is before"
    client = MlflowClient(desk.uri)
    assert sorted(int(version.version) for version in client.search_model_versions(f"name='{NAME}'")) == [1, 2, 3]
    version = client.get_model_version(NAME, "2")
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.tags["pepper.record"]) == ("FINISHED", entry.name)
    assert f"run_uuid={run.info.run_id}" in version.description
    assert {"model", "dataset", "report.html"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert desk("task=promote", "promote.version=2").status == 0
    assert desk("task=predict", "model=tiny", "device=share100").status == 0


@pytest.mark.slow
def test_a_better_model_is_promoted_and_an_old_one_refused(desk: Desk) -> None:
    log_cells(desk, slower=5.0)
    assert desk("task=train", *QUICK).status == 0
    assert desk("task=promote").status == 0
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    cells = client.search_runs(
        [client.get_experiment_by_name("pepper/profiles").experiment_id], "tags.`pepper.kind` = 'cell'"
    )
    for run in cells:
        client.delete_run(run.info.run_id)
    log_cells(desk, seed=1)
    assert desk("task=train", *QUICK).status == 0
    promoted = desk("task=promote")
    assert promoted.status == 0, promoted.out
    assert "better beyond noise" in promoted.out
    champion = client.get_model_version_by_alias(NAME, CHAMPION)
    assert int(champion.version) == 2

    artifacts = client.get_run(champion.run_id).info.artifact_uri.removeprefix("file://")
    file = Path(artifacts) / "model" / "latency_model.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "features_digest": "old", "features": FEATURES[1:]}))
    error = desk("task=predict", "model=tiny").error
    assert "pepper-latency version 2: trained on another feature list (operators)" in error
    assert "task=train" in error


@pytest.mark.slow
def test_a_new_device_is_adapted_to(desk: Desk) -> None:
    log_cells(desk)
    assert desk("task=train", *QUICK).status == 0
    assert desk("task=promote").status == 0
    desk.sweep("mine", "name: mine\naxes:\n  model: [tiny, small, conv]\n  load: [idle, cpu50]\n")
    command = ("task=adapt", "device=share100", "+sweep=mine", "adapt.measurements=4")
    adapted = desk(*command)
    assert adapted.status == 0, adapted.err
    assert "4 measurements, each left out" in adapted.out
    assert "version 2 of pepper-latency is version 1 adapted to share100" in adapted.out
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    tags = client.get_model_version(NAME, "2").tags
    assert (tags["adapted_from"], tags["device"]) == ("1", "share100")
    assert int(client.get_model_version_by_alias(NAME, CHAMPION).version) == 1
    cells = len(desk.runs())
    predicted = desk("task=predict", "model=conv", "device=share100", "latency.version=2").out
    assert "adapted to this device with 4 measurements" in predicted
    assert "warning: device_" not in predicted
    elsewhere = [desk("task=predict", "model=conv", "device=share25", f"latency.version={v}").out for v in (1, 2)]
    assert elsewhere[0].splitlines()[0] == elsewhere[1].splitlines()[0]

    again = json.loads(desk(*command, "output=json").out)
    assert [cell["reused"] for cell in again["cells"]] == [True] * 4
    assert len(desk.runs()) == cells
    assert (again["version"], again["adapted_from"]) == (3, 1)
    assert again["errors"][0]["title"] == "4 measurements, each left out"
    assert {"before", "after"} <= set(again["errors"][0])
    assert again["run_id"] == client.get_model_version(NAME, "3").run_id
    assert desk(*command, "latency.version=2").status == 0
    digests = [client.get_model_version(NAME, version).tags["dataset_digest"] for version in ("2", "4")]
    assert digests[0] == digests[1], "no row is there twice"
    two = desk("task=adapt", "+sweep=mine", "+sweep.axes.device=[share100,share50]")
    assert "one device at a time" in two.error
    assert "must be at least 3" in desk(*command[:3], "adapt.measurements=2").error


@pytest.mark.slow
def test_a_killed_training_goes_on(desk: Desk) -> None:
    log_cells(desk)
    command = ("task=train", "tuning.trials=40", "tuning.folds=2")
    storage = desk.folder / "mlruns" / "tuning.db"

    def states() -> list[str]:
        with contextlib.closing(sqlite3.connect(f"file:{storage}?mode=ro", uri=True)) as database:
            return [str(state) for (state,) in database.execute("SELECT state FROM trials")]

    def some_ended(number: int) -> bool:
        with contextlib.suppress(sqlite3.OperationalError):  # no tables yet
            return len([state for state in states() if state in ("COMPLETE", "PRUNED")]) >= number
        return False

    ended = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = desk.start(*command)
        wait_until(lambda ended=ended: some_ended(ended + 1), 60)
        second = desk(*command).error if number == signal.SIGINT else ""
        assert number != signal.SIGINT or "in use by another training (process" in second
        process.send_signal(number)
        outcome = desk.finish(process)
        assert outcome.status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        assert "Traceback" not in outcome.err
        now = len([state for state in states() if state in ("COMPLETE", "PRUNED")])
        assert now > ended  # nothing lost
        ended = now
    result = desk("task=train", f"tuning.trials={ended + 1}", "tuning.folds=2")
    assert result.status == 0, result.err
    assert "RUNNING" not in states()
    assert len([state for state in states() if state in ("COMPLETE", "PRUNED")]) == ended + 1


def test_a_registry_out_of_reach_is_said_in_a_line(desk: Desk) -> None:
    away = ("tracking.uri=http://localhost:1", "tracking.timeout_seconds=2")
    for task in ("train", "promote", "predict", "adapt"):
        error = desk(f"task={task}", *away).error
        assert "tracking.uri=http://localhost:1: the store does not answer" in error


def test_a_dataset_of_other_units_or_features_is_refused(tmp_path: Path) -> None:
    from pyarrow import parquet

    from pepper.caches import hash_file
    from pepper.errors import LatencyError
    from pepper.latency import collect
    from tests.latency.measured import measured

    file = tmp_path / "rows.parquet"
    collect.write(measured(models=1), file)
    hash_file(file).unlink()  # as of versions that were saved without
    table = parquet.read_table(file)
    for key, value in (("pepper.latency_unit", "s"), ("pepper.features", "older")):
        changed = {**table.schema.metadata, key.encode(): value.encode()}
        parquet.write_table(table.replace_schema_metadata(changed), file)
        with pytest.raises(LatencyError, match=rf"{key} is {value}, not .*task=train"):
            collect.read(file)
    for unlike in (table.drop_columns(["p50_ms"]), table.set_column(0, table.column_names[0], [["x"] * len(table)])):
        parquet.write_table(unlike, file)
        with pytest.raises(LatencyError, match="no dataset that can be read"):
            collect.read(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(LatencyError, match="no dataset that can be read"):
        collect.read(file)
