"""What cannot be logged is set aside with its reason; all else is logged, and nothing outside is touched."""

import io
import json
import math
import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.measure.profile import Profile
from pepper.tracking.outbox import UnusableError
from pepper.tracking.posting import flush
from pepper.tracking.records import Pending
from pepper.tracking.starting import MOST_NAME, shortened
from pepper.tracking.store import Store
from pepper.tracking.sweeps import Ends, SweepEnd, start_sweep
from tests.tracking.recorded import a_record

Damage = Callable[[Path], object]
"""Damages an entry, given its folder."""


def says(**changes: Any) -> Damage:
    """Other values for some of a record's keys (``profile__status`` is nested)."""

    def damage(entry: Path) -> None:
        file = entry / "record.json"
        facts = json.loads(file.read_text())
        for path, value in changes.items():
            *outer, name = path.split("__")
            within = facts
            for key in outer:
                within = within[key]
            within.pop(name) if value is ... else within.update({name: value})
        file.write_text(json.dumps(facts))

    return damage


def text(content: str | bytes) -> Damage:
    return lambda entry: (entry / "record.json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


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


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Something else where a file belongs."""

    def damage(entry: Path) -> None:
        (entry / name).unlink()
        make(entry / name)

    return damage


THREE = np.array([1, 2, 3])
DAMAGES: dict[str, Damage] = {
    "empty": text(""),
    "cut off": text("{"),
    "no object": text("[]"),
    "null": text("null"),
    "binary": text(bytes(range(256))),
    "not UTF-8": text(b'{"schema": 1, "name": "\xff"}'),
    "nothing but a schema": text('{"schema": 1}'),
    "deep": text("[" * 100_000),
    "deep objects": text('{"a":' * 50_000),
    "a long number": text('{"schema": ' + "9" * 10_000 + "}"),
    "another schema": says(schema=99),
    "no schema": says(schema=...),
    "schema as text": says(schema="1"),
    "unknown key": says(colour="red"),
    "no name": says(name=...),
    "empty name": says(name=""),
    "list for a name": says(name=["a"]),
    "number for a name": says(name=3),
    "NUL in the name": says(name="a\0b"),
    "half a character in the name": says(name="\ud800"),
    "cell null": says(cell=None),
    "no cell": says(cell=...),
    "params a list": says(params=[1, 2]),
    "params null": says(params=None),
    "a param that is a list": says(params={"model": ["a"]}),
    "no params": says(params=...),
    "config a dict": says(config={}),
    "parent a number": says(parent=5),
    "uri a list": says(uri=["sqlite:///x"]),
    "experiment a number": says(experiment=0),
    "profile null": says(profile=None),
    "profile a list": says(profile=[]),
    "profile empty": says(profile={}),
    "no profile": says(profile=...),
    "another status": says(profile__status="DONE"),
    "status null": says(profile__status=None),
    "start NaN": says(profile__started_s=math.nan),
    "end infinite": says(profile__ended_s=math.inf),
    "start before time": says(profile__started_s=-1),
    "end after all": says(profile__ended_s=1e300),
    "start as text": says(profile__started_s="now"),
    "another verdict": says(profile__verdict="MAYBE"),
    "no verdict": says(profile__verdict=""),
    "reasons a text": says(profile__reasons="because"),
    "reasons of numbers": says(profile__reasons=[1]),
    "metrics a list": says(profile__metrics=[1.0]),
    "a metric NaN": says(profile__metrics__latency_p50_ms=math.nan),
    "a metric infinite": says(profile__metrics__samples=math.inf),
    "a metric as text": says(profile__metrics__samples="3"),
    "a metric null": says(profile__metrics__samples=None),
    "a metric missing": says(profile__metrics__latency_p50_low_ms=...),
    "environment a list": says(profile__environment=[]),
    "worker a text": says(profile__environment__worker="1.0"),
    "onnxruntime a list": says(profile__environment__worker={"onnxruntime": [1]}),
    "operators a dict": says(profile__operators={}),
    "unknown in the profile": says(profile__colour="red"),
    "samples in the facts": says(profile__samples={"latency_ns": [1]}),
    "samples empty": samples(b""),
    "samples cut off": lambda entry: os.truncate(entry / "samples.npz", 300),
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
    "a folder for the record": instead("record.json", Path.mkdir),
    "a FIFO for the record": instead("record.json", os.mkfifo),
    "a FIFO for the samples": instead("samples.npz", os.mkfifo),
    "a folder for the samples": instead("samples.npz", Path.mkdir),
    "a link for the record": instead("record.json", lambda file: file.symlink_to("/etc/hostname")),
    "a link in a loop": instead("record.json", lambda file: file.symlink_to(file)),
    "a link for the samples": instead("samples.npz", lambda file: file.symlink_to("/etc/hostname")),
    "a record of some gigabytes": lambda entry: os.truncate(entry / "record.json", 2**33),
    "samples of some gigabytes": lambda entry: os.truncate(entry / "samples.npz", 2**33),
}


def test_every_kind_of_damage_is_set_aside_and_the_rest_goes_on(store: Store) -> None:
    pending = Pending(store.folder)
    good = [a_record() for _ in range(3)]
    kinds = {}
    for record in good[:2]:
        pending.add(record)
    for kind, damage in DAMAGES.items():
        record = a_record()
        pending.add(record)
        damage(pending.folder / record.key)
        kinds[record.key] = kind
    (pending.folder / "a file").touch()
    (pending.folder / "a folder").mkdir()
    pending.add(good[2])
    posted = flush(store)
    assert posted.failure is None
    assert set(posted.cells) == {record.key for record in good}
    found = {kinds.get(each.name, each.name) for each in posted.set_aside}
    assert found == {*DAMAGES, "a file", "a folder"}
    assert list(pending.folder.iterdir()) == []
    for each in posted.set_aside:
        assert each.reason
        assert "\n" not in each.reason
        assert os.path.lexists(each.folder / each.name), "nothing is lost"
        assert (each.folder / "reason.txt").read_text() == f"{each.reason}\n"
    assert len(store.client.search_runs([store.experiment_id])) == 3
    assert flush(store).set_aside == [], "said once"


@pytest.mark.parametrize("name", ["{outside}", "../../outside", "../outside", "", ".", "..", "a/../../outside"])
def test_a_key_out_of_a_file_is_no_path(store: Store, name: str) -> None:
    outside = store.folder.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    pending = Pending(store.folder)
    records = [a_record(), a_record()]
    for record in records:
        pending.add(record)
    says(key=name.format(outside=outside))(pending.folder / records[0].key)
    posted = flush(store)
    assert [each.name for each in posted.set_aside] == [records[0].key]
    assert list(posted.cells) == [records[1].key]
    assert (outside / "file").exists()
    assert (store.folder / "mlflow.db").exists()


def test_links_among_what_waits_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    record = a_record()
    Pending(outside).add(record)
    (outside / "pending" / record.key).rename(outside / record.key)
    box = Pending(store.folder)
    box.folder.mkdir()
    (box.folder / record.key).symlink_to(outside / record.key)
    ends = Ends(store.folder)
    parent = start_sweep(store, "s", 1, "")
    files = tmp_path / "files"
    files.mkdir()
    entry = ends.add(SweepEnd(parent, "FINISHED", {}, "", files, store.uri, store.config.experiment))
    (entry / "artifacts" / "secret").symlink_to("/etc/hostname")
    posted = flush(store)
    assert [each.name for each in posted.set_aside] == [record.key, entry.name]
    assert (outside / record.key / "record.json").exists()
    assert (posted.set_aside[0].folder / record.key).is_symlink()
    assert store.client.get_run(parent).info.status == "RUNNING"


def test_what_the_store_refuses_is_set_aside(store: Store) -> None:
    """A name that MLflow does not take; the half-made run goes, the others are logged."""
    good, bad = a_record(), a_record(params={"what?": 1})
    for record in (bad, good):
        Pending(store.folder).add(record)
    posted = flush(store)
    assert list(posted.cells) == [good.key]
    (refused,) = posted.set_aside
    assert refused.name == bad.key
    assert "the store refuses it" in refused.reason
    assert "what?" in refused.reason
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.run_id == posted.cells[good.key]


def test_what_was_set_aside_can_be_moved_back(store: Store) -> None:
    pending, record = Pending(store.folder), a_record()
    pending.add(record)
    facts = json.loads((pending.folder / record.key / "record.json").read_text())
    says(cell=None)(pending.folder / record.key)
    (found,) = flush(store).set_aside
    shutil.move(found.folder / record.key, pending.folder)
    text(json.dumps(facts))(pending.folder / record.key)
    assert list(flush(store).cells) == [record.key]


def test_a_damaged_record_does_not_end_a_run_that_measures_well(desk: Desk) -> None:
    pending, record = Pending(desk.folder / "mlruns"), a_record()
    pending.add(record)
    text("{")(pending.folder / record.key)
    outcome = desk("model=tiny", "device=share100")
    assert outcome.status == 0
    assert f"warning: a waiting result cannot be logged and no longer waits ({record.key}: record.json" in outcome.error
    assert len(desk.runs()) == 1
    pending.add(record)
    text("{")(pending.folder / record.key)
    imported = desk("task=import")
    assert imported.status == 1
    assert "logged 0 waiting results" in imported.out
    assert "1 cannot be logged" in imported.out
    assert desk("task=import").status == 0


def test_long_names_are_shortened_in_view_and_kept_whole(store: Store) -> None:
    name = "m" * 300 + " / share100 / idle / 1t"
    Pending(store.folder).add(a_record(name=name, params={"model": "m" * 300}))
    (run_id,) = flush(store).cells.values()
    run = store.client.get_run(run_id)
    assert len(run.info.run_name) == MOST_NAME
    assert "…" in run.info.run_name
    assert run.info.run_name.endswith("/ share100 / idle / 1t")
    assert run.data.tags["pepper.name"] == name
    assert run.data.params["model"] == "m" * 300


@settings(max_examples=50, deadline=None)
@given(st.text(), st.integers(1, 300))
def test_a_shortened_text_has_its_beginning_and_its_end(whole: str, most: int) -> None:
    shown = shortened(whole, most)
    assert len(shown) == min(len(whole), most)
    if shown != whole:
        before, _, after = shown.partition("…")
        assert whole.startswith(before)
        assert whole.endswith(after)


def test_figures_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    record = a_record()
    record.profile.metrics["drift_percent"] = math.nan
    Pending(tmp_path).add(replace(record, params={"device_gflops": math.inf, "model": "a"}))
    (read,) = Pending(tmp_path).all()
    assert "drift_percent" not in read.profile.metrics
    assert read.params == {"model": "a"}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_record_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("changed")
    pending, record = Pending(folder), a_record()
    pending.add(record)
    entry = pending.folder / record.key
    if data.draw(st.booleans()):
        facts = json.loads((entry / "record.json").read_text())
        within = facts
        while True:
            key = data.draw(st.sampled_from(sorted(within)))
            if not isinstance(within[key], dict) or not within[key] or data.draw(st.booleans()):
                break
            within = within[key]
        within[key] = data.draw(JSON)
        (entry / "record.json").write_text(json.dumps(facts))
    else:
        content = bytearray((entry / "samples.npz").read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (entry / "samples.npz").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read = pending.read(entry)
    except UnusableError:
        return
    assert read is not None
    assert isinstance(read.profile, Profile)
    assert read.key == record.key


def test_readers_beside_a_writer_see_whole_records_only(tmp_path: Path) -> None:
    pending, done = Pending(tmp_path), threading.Event()

    def write() -> None:
        for _ in range(150):
            pending.add(a_record())
            for entry in pending.entries()[:-3]:
                pending.remove(entry)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        for entry in pending.entries():
            pending.read(entry)  # raises where a record is seen in part
            reads += 1
    writer.join()
    assert reads
