"""The store on PostgreSQL, as teams have it: a server and a database of the tests' own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from harness import Desk, MakeDesk, free_port, lasting, server, wait_until

psycopg2 = pytest.importorskip("psycopg2")

pytestmark = pytest.mark.slow

TWO = "# Two.\nname: two\naxes:\n  model: [tiny, small]\n  device: [share100]\n"


class Cluster:
    """A server in a folder of its own, of a user who may run one: it refuses root.

    Args:
        programs: Where PostgreSQL's programs are.
        folder: The user's.
        user: Who runs it.
    """

    def __init__(self, programs: Path, folder: Path, user: str) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        settings = ("--auth=trust", "--username=pepper", "--no-sync", "--encoding=UTF8", "--locale=C")
        subprocess.run([programs / "initdb", f"--pgdata={folder}/data", *settings], check=True, **self._as_user())

    def _as_user(self) -> dict[str, object]:
        mine = pwd.getpwuid(os.getuid()).pw_name == self._user
        whose = {} if mine else {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._folder, **whose}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = ("-D", f"{self._folder}/data", "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder), "-F")
        self._server = subprocess.Popen([self._programs / "postgres", *places], **self._as_user())
        wait_until(self._answers)

    def _answers(self) -> bool:
        with suppress(psycopg2.OperationalError), closing(self._connection()):
            return True
        return False

    def _connection(self) -> "psycopg2.extensions.connection":
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="pepper", dbname="postgres")

    def end(self, number: int = signal.SIGQUIT) -> None:
        """End it; by SIGQUIT at once, whoever is at work."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait()
            self._server = None

    def database(self, name: str, template: str = "template1") -> str:
        """Make a database, and return its address."""
        with closing(self._connection()) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg2://pepper@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server that runs, with a database of MLflow's tables as a template."""
    found = [Path(where).parent for where in (shutil.which("initdb"),) if where]
    found += sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's programs are not here: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to other users
        shutil.chown(folder, user)
        cluster = Cluster(found[-1], Path(folder), user)
        try:
            cluster.start()
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(cluster.database("made"), folder).engine.dispose()
            yield cluster
        finally:
            cluster.end()


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
