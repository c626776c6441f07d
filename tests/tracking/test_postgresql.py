"""The store on PostgreSQL, as teams have it: a server and a database of the tests' own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Desk, MakeDesk, free_port, lasting, server
from postgresql import Cluster, running

pytestmark = pytest.mark.slow

TWO = "# Two.\nname: two\naxes:\n  model: [tiny, small]\n  device: [share100]\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server that runs, with a database of MLflow's tables as a template."""
    with running() as cluster, tempfile.TemporaryDirectory() as folder:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(cluster.database("made"), folder).engine.dispose()
        yield cluster


@pytest.fixture
def uri(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """An empty store of the test's own."""
    return cluster.database(f"t{abs(hash(request.node.name))}", "made")


def cells(desk: Desk, uri: str) -> list[str]:
    return sorted(run.data.tags["pepper.cell"] for run in desk.runs(uri=uri) if run.info.status == "FINISHED")


@pytest.mark.parametrize("length", [240, 300])
def test_a_name_of_any_length_is_logged(desk: Desk, uri: str, length: int) -> None:
    name = "é" * length
    done = desk("model=tiny", f"model.name={name}", "device=share100", f"tracking.uri={uri}")
    assert done.status == 0, done.err
    (run,) = desk.runs(uri=uri)
    assert run.data.params["model"] == name
    assert not desk.pending


def test_a_sweep_goes_on_where_it_was(desk: Desk, uri: str) -> None:
    desk.sweep("two", TWO)
    first = desk("+sweep=two", "model=tiny", f"tracking.uri={uri}")
    assert first.status == 0, first.err
    done = desk("+sweep=two", f"tracking.uri={uri}")
    assert done.status == 0, done.err
    assert "2 cells, 1 finished before" in done.out
    assert len(set(cells(desk, uri))) == len(cells(desk, uri)) == 2
    assert {run.info.status for run in desk.runs("sweep", uri)} == {"FINISHED"}


def test_two_at_once_measure_each_cell_once(desk: Desk, uri: str) -> None:
    desk.sweep("two", TWO)
    both = [desk.start("+sweep=two", f"tracking.uri={uri}", *lasting(0.3)) for _ in range(2)]
    for outcome in [desk.finish(process, 120) for process in both]:
        assert outcome.status == 0, outcome.err
        assert outcome.out.count("VALID") == 2
    assert len(set(cells(desk, uri))) == len(cells(desk, uri)) == 2


def test_a_teams_server_takes_what_two_heads_measure_at_once(make_desk: MakeDesk, uri: str, tmp_path: Path) -> None:
    """Each head has a folder of its own, and nothing but the server in common with the other."""
    heads = {name: make_desk(tmp_path / name) for name in ("tiny", "small")}
    with server(tmp_path, uri, port := free_port()):
        for head in heads.values():
            head.sweep("mine", "# Mine.\nname: mine\naxes:\n  load: [idle, cpu50]\n")
        store = (f"tracking.uri=http://127.0.0.1:{port}", "tracking.artifacts=null", "sweep.retest=0")
        both = [head.start("+sweep=mine", f"model={name}", "device=share100", *store) for name, head in heads.items()]
        for head, process in zip(heads.values(), both, strict=True):
            outcome = head.finish(process, 120)
            assert outcome.status == 0, outcome.err
            assert not head.pending
    desk = heads["tiny"]
    assert len(set(cells(desk, uri))) == len(cells(desk, uri)) == 4
    assert {run.info.status for kind in ("sweep", "cell") for run in desk.runs(kind, uri)} == {"FINISHED"}
    assert len(desk.runs("sweep", uri)) == 2


def test_a_server_that_ends_in_mid_sweep_and_is_back(desk: Desk, uri: str, cluster: Cluster) -> None:
    desk.sweep("two", TWO)
    command = desk.start("+sweep=two", f"tracking.uri={uri}", *lasting(1))
    assert command.stderr is not None
    assert any("[1/2]" in line for line in iter(command.stderr.readline, ""))
    cluster.end()
    try:
        outcome = desk.finish(command)
    finally:
        cluster.start()
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    assert "the store does not answer" in outcome.err
    assert desk.pending
    again = desk("+sweep=two", f"tracking.uri={uri}", *lasting(1))
    assert again.status == 0, again.err
    assert "2 cells, 2 finished before" in again.out
    assert len(set(cells(desk, uri))) == len(cells(desk, uri)) == 2
    assert {run.info.status for run in desk.runs("sweep", uri)} == {"FINISHED"}
    assert not desk.pending
