"""What versions before left to be logged is logged, each thing once: entries as they wrote them."""

import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Desk

from pepper.tracking.earlier import adopt
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import flush
from pepper.tracking.record import Record
from pepper.tracking.runs import LOGGED_METRIC, SWEEP
from pepper.tracking.store import Store
from pepper.tracking.writer import begin

KEPT = Path(__file__).parent / "data" / "kept"
FINISHED, FAILED = "4adcf4998a1542c2a2718b5107150d7b", "bf8983450cbb4238896c89e16679f366"

Damage = Callable[[Path], object]
"""Damages an entry, given its folder."""


def lay_out(store: Store) -> None:
    """Put what was kept into a store's folder, and begin the sweep there that has ended."""
    shutil.copytree(KEPT, store.folder, dirs_exist_ok=True)
    run_id = begin(store, Record(kind=SWEEP, name="two", params={"cells": 2}, tags={"pepper.sweep": "two"}))
    (end,) = (store.folder / "ends").iterdir()
    facts = json.loads((end / "sweep.json").read_text())
    (end / "sweep.json").write_text(json.dumps({**facts, "run_id": run_id}))


def test_each_is_logged_once_as_it_was_by_the_version_that_kept_it(desk: Desk) -> None:
    from mlflow import MlflowClient

    from pepper.config import TrackingConfig

    mlruns = f"{desk.folder}/mlruns"
    lay_out(Store(TrackingConfig(desk.uri, "pepper/profiles", mlruns, f"{mlruns}/artifacts")))
    for count in (4, 0):
        outcome = desk("task=import")
        assert (outcome.status, outcome.out) == (0, f"logged {count} waiting results to {desk.uri}\n"), outcome.err
    client = MlflowClient(desk.uri)
    expected = json.loads((KEPT.parent / "logged.json").read_text())
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert sorted(run.info.run_name for run in found) == sorted(each["name"] for each in expected)
    for each in expected:
        (run,) = (run for run in found if run.info.run_name == each["name"])
        assert client.get_experiment(run.info.experiment_id).name == each["experiment"]
        assert (run.info.status, run.info.end_time) == (each["status"], each["end"])
        assert run.data.params == each["params"]
        assert {k: v for k, v in run.data.metrics.items() if k != LOGGED_METRIC} == each["metrics"]
        tags = {k: v for k, v in run.data.tags.items() if k in each["tags"]}
        assert tags == each["tags"]
        artifacts = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        assert artifacts == each["artifacts"]
    assert not list(Path(mlruns).glob("*/*/*.json"))


def test_an_end_in_mid_work_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(store)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            adopt(store.folder)
    assert adopt(store.folder) == []
    assert adopt(store.folder) == []
    assert sorted(each.record.kind for each in Outbox(store.folder).all()) == ["cell", "cell", "execution", "sweep"]


def says(**changes: Any) -> Damage:
    """Other values for some of a cell's keys (``profile__status`` is nested)."""

    def damage(entry: Path) -> None:
        facts = json.loads((entry / "record.json").read_text())
        for path, value in changes.items():
            *outer, name = path.split("__")
            within = facts
            for key in outer:
                within = within[key]
            within.pop(name) if value is ... else within.update({name: value})
        (entry / "record.json").write_text(json.dumps(facts))

    return damage


def samples(content: bytes) -> Damage:
    return lambda entry: (entry / "samples.npz").write_bytes(content)


def arrays(compressed: bool = False, **named: np.ndarray) -> Damage:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, allow_pickle=True, **named)  # type: ignore[arg-type]
    return samples(stream.getvalue())


def header(descr: str, shape: str, count: int = 3) -> Damage:
    """Samples whose header claims another type or shape than what follows."""

    def array() -> bytes:
        line = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line.encode() + bytes(8 * count)

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("start_ns", "latency_ns"):
            archive.writestr(f"{name}.npy", array())
    return samples(stream.getvalue())


def linked(name: str) -> Damage:
    def damage(entry: Path) -> None:
        (entry / name).unlink()
        (entry / name).symlink_to("/etc/hostname")

    return damage


THREE = np.array([1, 2, 3])
DAMAGES: dict[str, Damage] = {
    "another key": says(key="f" * 32),
    "unknown key": says(colour="red"),
    "no name": says(name=...),
    "cell null": says(cell=None),
    "a param that is a list": says(params={"model": ["a"]}),
    "config a dict": says(config={}),
    "profile a list": says(profile=[]),
    "another status": says(profile__status="DONE"),
    "start NaN": says(profile__started_s=math.nan),
    "no verdict": says(profile__verdict=""),
    "a metric as text": says(profile__metrics__samples="3"),
    "a metric missing": says(profile__metrics__latency_p50_low_ms=...),
    "worker a text": says(profile__environment__worker="1.0"),
    "samples in the facts": says(profile__samples={"latency_ns": [1]}),
    "a link for the samples": linked("samples.npz"),
    "samples empty": samples(b""),
    "samples cut off": lambda entry: os.truncate(entry / "samples.npz", 300),
    "samples of some gigabytes": lambda entry: os.truncate(entry / "samples.npz", 2**33),
    "samples no archive": samples(b"not an archive" * 100),
    "samples gone": lambda entry: (entry / "samples.npz").unlink(),
    "samples pickled": arrays(start_ns=np.array([{}, {}, {}], object), latency_ns=np.array([[], [], {}], object)),
    "samples compressed": arrays(compressed=True, start_ns=THREE, latency_ns=np.zeros(2**20)),
    "samples of two lengths": arrays(start_ns=THREE, latency_ns=THREE[:2]),
    "samples of two dimensions": arrays(start_ns=np.ones((3, 3)), latency_ns=np.ones((3, 3))),
    "samples without a dimension": arrays(start_ns=np.array(1), latency_ns=np.array(1)),
    "no samples": arrays(start_ns=THREE[:0], latency_ns=THREE[:0]),
    "samples NaN": arrays(start_ns=THREE, latency_ns=np.array([1, math.nan, 3])),
    "samples as text": arrays(start_ns=np.array(["a", "b", "c"]), latency_ns=THREE),
    "one series": arrays(latency_ns=THREE),
    "a series more": arrays(start_ns=THREE, latency_ns=THREE, more=THREE),
    "samples that claim to be many": header("'<i8'", "(1000000000000,)"),
    "samples that claim a negative number": header("'<i8'", "(-1,)"),
    "samples of a type that is none": header("'<z9'", "(3,)"),
    "samples of a type with a name too long": header("[('" + "a" * 30 + "', '<i8')]", "(3,)"),
    "a header that is code": header("__import__('os')", "(3,)"),
}


def test_what_is_damaged_is_set_aside_and_the_rest_goes_on(store: Store) -> None:
    kinds = {}
    for number, (kind, damage) in enumerate(DAMAGES.items()):
        entry = store.folder / "pending" / f"{number:032x}"
        shutil.copytree(KEPT / "pending" / FINISHED, entry)
        says(key=entry.name)(entry)
        damage(entry)
        kinds[entry.name] = kind
    for name, file in (("ends", "sweep.json"), ("unlogged", "execution.json")):
        shutil.copytree(KEPT / name, store.folder / name)
        (entry,) = (store.folder / name).iterdir()
        shutil.copytree(entry, entry.with_name(f"{name} empty"))
        (entry.with_name(f"{name} empty") / file).write_text("{}")
        shutil.copytree(entry, entry.with_name(f"{name} linked"))
        (entry.with_name(f"{name} linked") / "artifacts" / "secret").symlink_to("/etc/hostname")
    shutil.copytree(KEPT / "pending" / FAILED, store.folder / "pending" / FAILED)
    posted = flush(store)
    assert posted.failure is None
    ours = {f"{name} {how}" for name in ("ends", "unlogged") for how in ("empty", "linked")}
    (end,) = (each.name for each in (KEPT / "ends").iterdir())  # of a sweep that this store does not know
    assert {kinds.get(each.name, each.name) for each in posted.set_aside} - {end} >= {*DAMAGES, *ours}
    assert FAILED not in {each.name for each in posted.set_aside}
    for each in posted.set_aside:
        assert "\n" not in each.reason
        assert os.path.lexists(each.folder / each.name), "nothing is lost"
