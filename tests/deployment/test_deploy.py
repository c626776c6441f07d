"""``deploy/``: what Kubernetes, Compose and hadolint take, and command lines that pepper and MLflow take."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from harness import ROOT, composed
from manifests import DEPLOY, command_lines, manifests, pods


def test_manifests_are_what_kubernetes_takes() -> None:
    validation = pytest.importorskip("kubernetes_validate")
    kinds = set()
    for document in (*manifests("base/*.yaml"), *manifests("*.yaml")):
        validation.validate(document, validation.latest_version(), strict=True)
        kinds.add(document["kind"])
    assert kinds >= {"DaemonSet", "Deployment", "Service", "NetworkPolicy", "PersistentVolumeClaim"}


@pytest.mark.parametrize("name", ["base", "monitoring"])
def test_kustomizations_name_the_files_that_are_there(name: str) -> None:
    folder = DEPLOY / "k3s" / name
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {*named, "kustomization.yaml"} == {file.name for file in folder.glob("*.yaml")}


def test_the_compose_file_is_what_the_specification_has() -> None:
    specification = pytest.importorskip("compose_spec")
    plain = yaml.safe_dump(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))  # with what anchors stand for
    found = specification.PyCompose.from_yaml(plain).service_names()
    assert sorted(found) == ["head", "mlflow", "node-exporter", "postgres", "prometheus", "service"]


@pytest.mark.parametrize("name", ["head", "host"])
def test_dockerfiles(name: str) -> None:
    file = DEPLOY / "images" / f"{name}.Dockerfile"
    text = file.read_text()
    extras = re.findall(r"'\.\[([\w,]+)\]'", text)[0].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)
    assert re.search(r"^USER 10001", text, re.MULTILINE), "never root"
    assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in text.splitlines() if line.startswith("FROM")), "pinned"
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_runs_as_root_or_writes_where_it_must_not() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_hosts_ask_for_cores_of_their_own() -> None:
    (host,) = [each for each in manifests("base/*.yaml") if each["kind"] == "DaemonSet"]
    (container,) = host["spec"]["template"]["spec"]["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert str(resources["limits"]["cpu"]).isdecimal(), "whole cores are exclusive ones"


def test_command_lines_are_pepper_s() -> None:
    tasks = []
    for line in command_lines():
        options = line[3:] if line[:3] == ["python", "-m", "pepper.run"] else line
        if options and options[0].startswith("task="):
            tasks.append(composed(*options).task.name)
    assert sorted(tasks) == ["head", "head", "join", "serve", "serve", "serve"]


def test_command_lines_are_mlflow_s() -> None:
    from mlflow.cli import server

    lines = [line[2:] for line in command_lines() if line[:2] == ["mlflow", "server"]]
    assert len(lines) == 2
    for line in lines:
        assert server.make_context("server", line).params["port"] == 5000
