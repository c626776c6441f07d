"""``deploy/`` at work: the manifests' own command lines as processes, each where the names that it calls are known."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import ROOT, stop, wait_until
from manifests import manifests
from postgresql import running

from benchmarks.namespaces import Namespace, linked

pytestmark = pytest.mark.slow

NODE, PASSWORD = "node1", "secret1"
GIVEN = {"NODE_NAME": NODE, "POSTGRES_PASSWORD": PASSWORD, "HOST_NAMES": f"[{NODE}]"}
ENTRYPOINT = ["python", "-m", "pepper.run"]
"""Of the head's image."""


@dataclass
class Cluster:
    """What stands in for a cluster: volumes are folders, and every pod but the host's runs in one network namespace.

    Attributes:
        folder: Has the volumes, by the names of claims and secrets.
        inside: Where the pods run.
        node: Where the host does.
    """

    folder: Path
    inside: Namespace
    node: Namespace
    programs: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        found = self.folder / "volumes" / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    def start(self, name: str) -> None:
        """Start the pod of this name, as its manifest says."""
        (container,) = pod_named(name)["containers"]
        command = [*container.get("command", []), *container["args"]]
        self.programs[name] = subprocess.Popen(
            **self._within(name, command if "command" in container or name == "host" else [*ENTRYPOINT, *command]),
            stdout=(self.folder / f"{name}.txt").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def execute(self, name: str, *command: str) -> str:
        """Run a command in a pod, as ``kubectl exec`` does, and return what it says."""
        done = subprocess.run(**self._within(name, command), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _within(self, name: str, command: Sequence[str]) -> dict[str, Any]:
        pod = pod_named(name)
        (container,) = pod["containers"]
        held = {each["name"]: each for each in pod["volumes"]}
        places = {each["mountPath"]: self._kept(held[each["name"]]) for each in container["volumeMounts"]}
        given = {each["name"]: filled(each["value"], GIVEN, places) for each in container["env"] if "value" in each}
        return {
            "args": [
                *(self.node if name == "host" else self.inside).within,
                *(filled(word, GIVEN, places) for word in command),
            ],
            "cwd": self.volume("tmp"),
            "env": {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                **given,
            },
        }

    def _kept(self, volume: dict[str, Any]) -> Path:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        return self.volume(claim or volume.get("secret", {}).get("secretName") or volume["name"])

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def await_said(self, name: str, words: str) -> None:
        wait_until(lambda: words in self.said(name) or self.programs[name].poll() is not None, 120)
        assert words in self.said(name), self.said(name)

    def end(self) -> None:
        for program in self.programs.values():
            stop(program)


def filled(text: str, given: dict[str, str], places: dict[str, Path]) -> str:
    """Put values in the place of variables, and folders in that of mounted volumes."""
    text = re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], text)
    mounted = "|".join(map(re.escape, places))
    return re.sub(rf"(^|=)({mounted})(?=/|$)", lambda found: f"{found[1]}{places[found[2]]}", text)


def pod_named(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        document["spec"]["template"]["spec"]
        for document in (*manifests("base/*.yaml"), *manifests("*.yaml"))
        if document["metadata"]["name"] == name and "template" in document.get("spec", {})
    )
    return found


@contextmanager
def known_as(space: Namespace, names: dict[str, str]) -> Iterator[None]:
    """Let names stand for addresses in a namespace: ip(8) puts this file in the place of /etc/hosts there."""
    folder = Path("/etc/netns") / space.name
    folder.mkdir(parents=True)
    try:
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        yield
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            inside, node = (stack.enter_context(linked()) for _ in range(2))
        except OSError as error:
            pytest.skip(f"namespaces are not allowed: {error}")
        database = stack.enter_context(running(inside.here, 5432))
        database.do(f"CREATE ROLE mlflow LOGIN PASSWORD '{PASSWORD}'")
        database.do("CREATE DATABASE mlflow OWNER mlflow")
        names = {"head": inside.there, "mlflow": inside.there, "postgres": inside.here, "localhost": "127.0.0.1"}
        for space in (inside, node):
            stack.enter_context(known_as(space, names))
        cluster = Cluster(tmp_path, inside, node)
        stack.callback(cluster.end)
        yield cluster


def test_from_the_manifests_to_a_model_that_was_measured_on_a_node(cluster: Cluster, models: dict[str, Path]) -> None:
    """In the order of docs/deployment.md: head, bundles, token; then the service measures on the node that joined."""
    for name in ("mlflow", "head"):
        cluster.start(name)
    cluster.await_said("head", "head at")
    fleet = cluster.volume("fleet")
    shutil.copy(fleet / f"{NODE}.json", cluster.volume("bundles"))
    shutil.copy(fleet / "head.json", cluster.volume("head-bundle"))
    cluster.start("host")
    cluster.start("token")
    cluster.programs["token"].wait(60)
    (token,) = re.findall(r"pepper_[\w-]+", cluster.said("token"))
    mlflow, service = f"http://{cluster.inside.there}:5000", f"http://{cluster.inside.there}:8780"
    wait_until(lambda: answers(f"{mlflow}/health"), 120)
    cluster.start("service")
    cluster.await_said("service", "serving at")
    cluster.await_said("host", f"as {NODE}")
    assert requests.get(f"{service}/readyz", timeout=60).json() == {"status": "ok"}
    asked = requests.Session()
    asked.headers["Authorization"] = f"Bearer {token}"
    kind = {"Content-Type": "application/octet-stream"}
    sent = asked.post(f"{service}/v1/models", data=models["conv"].read_bytes(), headers=kind, timeout=60)
    assert sent.status_code == 201, sent.text
    model = sent.json()["model"]
    refused = asked.post(f"{service}/v1/profile", json={"model": model}, timeout=60)
    assert refused.status_code == 403, "the job's token may not measure"
    wait_until(lambda: f'pepper_host_up{{host="{NODE}"}} 1.0' in asked.get(f"{service}/metrics", timeout=60).text, 60)
    assert json.loads(cluster.said("service").splitlines()[-1])["token"] == "first"
    store = ("tracking=server", "tracking.uri=http://mlflow:5000", "tracking.folder=/tmp")
    cell = ("model=squeezenet", f"device.host={NODE}", "measure=quick", "hosts.bundle=/bundle/head.json")
    measured = json.loads(cluster.execute("service", *ENTRYPOINT, *cell, *store, "output=json"))
    run = requests.get(
        f"{mlflow}/api/2.0/mlflow/runs/get",
        params={"run_id": measured["run_id"]},
        headers={"Host": "mlflow:5000"},
        timeout=60,
    ).json()["run"]
    assert run["info"]["status"] == "FINISHED"


def answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.ConnectionError:
        return False
