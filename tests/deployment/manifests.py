"""What ``deploy/`` holds, as it is written."""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from harness import ROOT

DEPLOY = ROOT / "deploy"
GIVEN = {"HOST_NAMES": "[node1,node2]", "HEAD_ADDRESS": "192.168.1.2", "NODE_NAME": "node1", "POSTGRES_PASSWORD": "x"}


def manifests(folder: str) -> Iterator[dict[str, Any]]:
    for file in sorted((DEPLOY / "k3s").glob(folder)):
        if file.name != "kustomization.yaml":
            yield from yaml.safe_load_all(file.read_text())


def pods() -> Iterator[dict[str, Any]]:
    for document in (*manifests("base/*.yaml"), *manifests("*.yaml")):
        if "template" in document.get("spec", {}):
            yield document["spec"]["template"]["spec"]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def filled(argument: str) -> str:
    return re.sub(r"\$[({](\w+)(?::\?[^}]*)?[)}]", lambda found: GIVEN[found[1]], argument)


def command_lines() -> list[list[str]]:
    """What the containers run, without their image's entry point."""
    lines = [service.get("entrypoint", []) + service.get("command", []) for service in services().values()]
    for pod in pods():
        (container,) = pod["containers"]
        lines.append([*container.get("command", []), *container.get("args", [])])
    return [[filled(argument) for argument in line] for line in lines]
