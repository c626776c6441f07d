"""What cannot be logged is set aside with its reason; all else is logged, and nothing outside is touched."""

import json
import math
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.tracking.entries import UnusableError
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import flush
from pepper.tracking.record import Record
from pepper.tracking.store import Store
from pepper.tracking.writer import MOST_NAME, shortened
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


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Something else where a file belongs."""

    def damage(entry: Path) -> None:
        (entry / name).unlink()
        make(entry / name)

    return damage


SAMPLES = "artifacts/samples.parquet"
DAMAGES: dict[str, Damage] = {
    "empty": text(""),
    "cut off": text("{"),
    "no object": text("[]"),
    "null": text("null"),
    "binary": text(bytes(range(256))),
    "not UTF-8": text(b'{"schema": 2, "record": {"name": "\xff"}}'),
    "nothing but a schema": text('{"schema": 2}'),
    "deep": text("[" * 100_000),
    "deep objects": text('{"a":' * 50_000),
    "a long number": text('{"schema": ' + "9" * 10_000 + "}"),
    "another schema": says(schema=99),
    "no schema": says(schema=...),
    "schema as text": says(schema="2"),
    "unknown key": says(colour="red"),
    "uri a list": says(uri=["sqlite:///x"]),
    "experiment a number": says(experiment=0),
    "no record": says(record=...),
    "record a list": says(record=[]),
    "unknown in the record": says(record__colour="red"),
    "no kind": says(record__kind=...),
    "no name": says(record__name=...),
    "empty name": says(record__name=""),
    "list for a name": says(record__name=["a"]),
    "number for a name": says(record__name=3),
    "NUL in the name": says(record__name="a\0b"),
    "half a character in the name": says(record__name="\ud800"),
    "params a list": says(record__params=[1, 2]),
    "params null": says(record__params=None),
    "a param that is a list": says(record__params={"model": ["a"]}),
    "tags of lists": says(record__tags={"pepper.cell": []}),
    "parent a number": says(record__parent=5),
    "a run that is a path": says(record__run_id="../../outside"),
    "another status": says(record__status="DONE"),
    "status null": says(record__status=None),
    "start NaN": says(record__started_s=math.nan),
    "end infinite": says(record__ended_s=math.inf),
    "start before time": says(record__started_s=-1),
    "end after all": says(record__ended_s=1e300),
    "start as text": says(record__started_s="now"),
    "metrics a list": says(record__metrics=[1.0]),
    "a metric NaN": says(record__metrics__latency_p50_ms=math.nan),
    "a metric infinite": says(record__metrics__samples=math.inf),
    "a metric as text": says(record__metrics__samples="3"),
    "a metric null": says(record__metrics__samples=None),
    "a child without a name": says(record__children=[{"kind": "trial"}]),
    "a dataset without columns": says(record__dataset={"name": "profiles"}),
    "a dataset elsewhere": says(record__dataset={"name": "a", "digest": "", "file": "/x", "columns": [], "rows": 1}),
    "a version of no model": says(record__version={"model": "", "tags": {}}),
    "artifacts elsewhere": says(record__artifacts="/etc"),
    "artifacts below nothing": says(record__below="../.."),
    "no hashes": says(files={}),
    "a file too much in the hashes": says(files__more="0" * 64),
    "a hash that is none": says(files={"samples.parquet": "0"}),
    "samples empty": lambda entry: os.truncate(entry / SAMPLES, 0),
    "samples cut off": lambda entry: os.truncate(entry / SAMPLES, 300),
    "samples of some gigabytes": lambda entry: os.truncate(entry / SAMPLES, 2**33),
    "samples gone": lambda entry: (entry / SAMPLES).unlink(),
    "a file more": lambda entry: (entry / "artifacts" / "more").touch(),
    "artifacts gone": lambda entry: shutil.rmtree(entry / "artifacts"),
    "a FIFO for the samples": instead(SAMPLES, os.mkfifo),
    "a folder for the samples": instead(SAMPLES, Path.mkdir),
    "a link for the samples": instead(SAMPLES, lambda file: file.symlink_to("/etc/hostname")),
    "a folder for the record": instead("record.json", Path.mkdir),
    "a FIFO for the record": instead("record.json", os.mkfifo),
    "a link for the record": instead("record.json", lambda file: file.symlink_to("/etc/hostname")),
    "a link in a loop": instead("record.json", lambda file: file.symlink_to(file)),
    "a record of some gigabytes": lambda entry: os.truncate(entry / "record.json", 2**33),
}


def test_every_kind_of_damage_is_set_aside_and_the_rest_goes_on(store: Store) -> None:
    outbox = Outbox(store.folder)
    good = [a_record(store.folder.parent) for _ in range(3)]
    kinds = {}
    for record in good[:2]:
        outbox.add(record)
    for kind, damage in DAMAGES.items():
        record = a_record(store.folder.parent)
        outbox.add(record)
        damage(outbox.folder / record.key)
        kinds[record.key] = kind
    (outbox.folder / "a file").touch()
    (outbox.folder / "a folder").mkdir()
    outbox.add(good[2])
    posted = flush(store)
    assert posted.failure is None
    assert set(posted.written) == {record.key for record in good}
    found = {kinds.get(each.name, each.name) for each in posted.set_aside}
    assert found == {*DAMAGES, "a file", "a folder"}
    assert list(outbox.folder.iterdir()) == []
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
    outbox = Outbox(store.folder)
    records = [a_record(store.folder.parent) for _ in range(2)]
    for record in records:
        outbox.add(record)
    says(record__key=name.format(outside=outside))(outbox.folder / records[0].key)
    posted = flush(store)
    assert [each.name for each in posted.set_aside] == [records[0].key]
    assert list(posted.written) == [records[1].key]
    assert (outside / "file").exists()
    assert (store.folder / "mlflow.db").exists()


def test_links_among_what_waits_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    record = a_record(tmp_path)
    Outbox(outside).add(record)
    (outside / "pending" / record.key).rename(outside / record.key)
    outbox = Outbox(store.folder)
    outbox.folder.mkdir()
    (outbox.folder / record.key).symlink_to(outside / record.key)
    other = a_record(tmp_path)
    entry = outbox.add(other)
    (entry / "artifacts" / "secret").symlink_to("/etc/hostname")
    posted = flush(store)
    assert {each.name for each in posted.set_aside} == {record.key, entry.name}
    assert (outside / record.key / "record.json").exists()
    (linked,) = (each for each in posted.set_aside if each.name == record.key)
    assert (linked.folder / record.key).is_symlink()
    assert store.client.search_runs([store.experiment_id]) == []


def test_what_the_store_refuses_is_set_aside(store: Store) -> None:
    """A name that MLflow does not take; the half-made run goes, the others are logged."""
    good, bad = a_record(store.folder.parent), a_record(store.folder.parent, params={"what?": 1})
    for record in (bad, good):
        Outbox(store.folder).add(record)
    posted = flush(store)
    assert list(posted.written) == [good.key]
    (refused,) = posted.set_aside
    assert refused.name == bad.key
    assert "the store refuses it" in refused.reason
    assert "what?" in refused.reason
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.run_id == posted.written[good.key].run_id


def test_what_was_set_aside_can_be_moved_back(store: Store) -> None:
    outbox, record = Outbox(store.folder), a_record(store.folder.parent)
    outbox.add(record)
    facts = json.loads((outbox.folder / record.key / "record.json").read_text())
    says(record=None)(outbox.folder / record.key)
    (found,) = flush(store).set_aside
    shutil.move(found.folder / record.key, outbox.folder)
    text(json.dumps(facts))(outbox.folder / record.key)
    assert list(flush(store).written) == [record.key]


def test_a_damaged_record_does_not_end_a_run_that_measures_well(desk: Desk) -> None:
    outbox, record = Outbox(desk.folder / "mlruns"), a_record(desk.folder)
    outbox.add(record)
    text("{")(outbox.folder / record.key)
    outcome = desk("model=tiny", "device=share100")
    assert outcome.status == 0
    assert f"warning: a waiting result cannot be logged and no longer waits ({record.key}: record.json" in outcome.error
    assert len(desk.runs()) == 1
    outbox.add(record)
    text("{")(outbox.folder / record.key)
    imported = desk("task=import")
    assert imported.status == 1
    assert "logged 0 waiting results" in imported.out
    assert "1 cannot be logged" in imported.out
    assert desk("task=import").status == 0


def test_long_names_are_shortened_in_view_and_kept_whole(store: Store) -> None:
    name = "m" * 300 + " / share100 / idle / 1t"
    Outbox(store.folder).add(a_record(store.folder.parent, name=name, params={"model": "m" * 300}))
    (written,) = flush(store).written.values()
    run = store.client.get_run(written.run_id)
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
    metrics, params = {"drift_percent": math.nan, "samples": 3}, {"device_gflops": math.inf, "model": "a"}
    Outbox(tmp_path).add(Record(kind="lap", name="one", metrics=metrics, params=params))
    (read,) = Outbox(tmp_path).all()
    assert (read.record.metrics, read.record.params) == ({"samples": 3.0}, {"model": "a"})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_record_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("changed")
    outbox, record = Outbox(folder), a_record(folder)
    outbox.add(record)
    entry = outbox.folder / record.key
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
        content = bytearray((entry / SAMPLES).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (entry / SAMPLES).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read = outbox.read(entry)
    except UnusableError:
        return
    assert read is not None
    assert read.record.key == record.key


def test_readers_beside_a_writer_see_whole_records_only(tmp_path: Path) -> None:
    outbox, done = Outbox(tmp_path), threading.Event()
    records = [a_record(tmp_path) for _ in range(100)]

    def write() -> None:
        for record in records:
            outbox.add(record)
            for entry in outbox.entries()[:-3]:
                outbox.remove(entry)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        for entry in outbox.entries():
            outbox.read(entry)  # raises where a record is seen in part
            reads += 1
    writer.join()
    assert reads
