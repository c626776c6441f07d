"""Logged cells are read by their identity: what is missing is read, what is gone is dropped, whatever clocks say."""

import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepper.tracking import history as module
from pepper.tracking.history import history, store_identity
from pepper.tracking.runs import LOGGED_METRIC
from pepper.tracking.store import Store
from pepper.tracking.writer import write
from tests.tracking.recorded import a_record


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What thousands of runs need, with a few."""
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "MOST_EXCLUDED", 2)


def log(store: Store, number: int = 1, **changes: Any) -> list[str]:
    return [write(store, a_record(store.folder.parent, **changes)).run_id for _ in range(number)]


def read(store: Store) -> list[str]:
    return sorted(history(store)["run_id"])


@pytest.fixture
def asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the store gave each run."""
    given: Counter[str] = Counter()
    search = store.client.search_runs

    def watched(*args: Any, **options: Any) -> Any:
        found = search(*args, **options)
        given.update(run.info.run_id for run in found)
        return found

    monkeypatch.setattr(store.client, "search_runs", watched)
    return given


def test_a_cell_as_a_row(store: Store) -> None:
    assert history(store).empty
    record = a_record(store.folder.parent)
    write(store, record)
    for _ in range(2):
        table = history(store)
        assert list(table["cell"]) == [record.tags["pepper.cell"]]
        assert table["metrics.latency_p50_ms"].tolist() == [2.5]
        assert table["params.model"].tolist() == ["a"]


def test_what_is_known_is_not_read_again(store: Store, asked: Counter[str]) -> None:
    known = log(store, 10)
    assert read(store) == sorted(known)
    new = log(store, 2)
    asked.clear()
    assert read(store) == sorted([*known, *new])
    assert set(new) <= set(asked)
    assert sum(asked[run_id] for run_id in known) <= 4, "one of each chunk"
    asked.clear()
    assert read(store) == sorted([*known, *new])
    assert sum(asked.values()) <= 4


@pytest.mark.parametrize("ahead_s", [300.0, 1e9, -1e9])
def test_a_writer_with_a_wrong_clock_hides_nobodys_runs(store: Store, ahead_s: float) -> None:
    then_s = time.time() + ahead_s
    wrong = log(store, 4, started_s=then_s, ended_s=then_s, metrics={LOGGED_METRIC: then_s})
    assert read(store) == sorted(wrong)
    right = log(store, 4)
    assert read(store) == sorted([*wrong, *right])


def test_a_run_that_ends_later_is_read_again(store: Store) -> None:
    others = log(store, 6)
    (run_id,) = log(store)
    for status in ("RUNNING", "KILLED", "FINISHED"):  # KILLED: as another machine took it to be
        store.client.set_terminated(run_id, status)
        table = history(store).set_index("run_id")
        assert table["status"][run_id] == status
        assert set(table.index) == {run_id, *others}


def test_a_run_that_is_being_logged_is_none_yet(store: Store) -> None:
    known = log(store, 3)
    half = store.client.create_run(store.experiment_id, tags={"pepper.kind": "cell"})
    assert read(store) == sorted(known)
    store.client.log_metric(half.info.run_id, LOGGED_METRIC, 1.0)
    assert read(store) == sorted([*known, half.info.run_id])


def test_deleted_runs_are_left_out_and_come_back(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = log(store, 7)
    assert len(read(store)) == 7
    store.client.delete_run(first)
    assert read(store) == sorted(others)
    assert "1 of the runs that were read before are no longer in" in capsys.readouterr().err
    assert read(store) == sorted(others)
    assert capsys.readouterr().err == "", "said once"
    store.client.restore_run(first)
    assert read(store) == sorted([first, *others])


def test_runs_that_were_deleted_for_good_are_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner
    from mlflow.cli import gc

    purged, restored, *kept = log(store, 8)
    assert len(read(store)) == 8
    for run_id in (purged, restored):
        store.client.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.config.uri)
    done = CliRunner().invoke(gc, ["--backend-store-uri", store.config.uri, "--run-ids", purged])
    assert done.exit_code == 0, done.output
    assert read(store) == sorted(kept)
    store.client.restore_run(restored)
    for _ in range(2):
        assert read(store) == sorted([restored, *kept])


def database(store: Store) -> Path:
    return Path(store.config.uri.removeprefix("sqlite:///"))


def test_a_restored_backup_holds_what_it_holds(store: Store, tmp_path: Path) -> None:
    kept = log(store, 5)
    shutil.copy(database(store), tmp_path / "backup")
    lost = log(store, 4)
    assert read(store) == sorted([*kept, *lost])
    shutil.copy(tmp_path / "backup", database(store))
    assert read(store) == sorted(kept)
    later = log(store, 2)
    assert read(store) == sorted([*kept, *later])


def test_another_store_at_the_address_is_another_store(
    store: Store, fresh_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(store, 4)
    identity = store_identity(store)
    assert len(read(store)) == 4
    database(store).write_bytes(fresh_database.read_bytes())
    begun_anew = Store(store.config)
    assert read(begun_anew) == []
    assert "another store is at this address now" in capsys.readouterr().err
    assert store_identity(begun_anew) != identity
    new = log(begun_anew, 4)
    for _ in range(2):
        assert read(begun_anew) == sorted(new)
    assert capsys.readouterr().err == ""


def test_a_relative_address_means_another_store_in_another_folder(
    store: Store, fresh_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both keep what they read in one folder."""
    found = {}
    for name, count in (("a", 4), ("b", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").write_bytes(fresh_database.read_bytes())
        monkeypatch.chdir(tmp_path / name)
        whole = Store(replace(store.config, uri=f"sqlite:///{tmp_path}/{name}/mlflow.db"))
        log(whole, count)
        whole.config = replace(store.config, uri="sqlite:///mlflow.db")
        found[name] = read(whole)
        assert read(whole) == found[name]
    assert [len(ids) for ids in found.values()] == [4, 5]
    assert not set(found["a"]) & set(found["b"])


def test_the_identity_is_written_once(store: Store) -> None:
    assert store_identity(store) == store_identity(Store(store.config))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no table", "another table", "no hash"])
def test_a_damaged_cache_is_read_anew(store: Store, damage: str) -> None:
    known = log(store, 5)
    assert read(store) == sorted(known)
    (file,) = (store.folder / "cache").glob("history-*.parquet")
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "no table":
        file.write_bytes(b"not parquet")
    elif damage == "another table":
        module.write_table(history(store)[["run_id"]], file)
    else:
        file.with_name(f"{file.name}.sha256").unlink()
    for _ in range(2):
        assert read(store) == sorted(known)
