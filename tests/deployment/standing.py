"""Exports at work: the command lines that they hold, started as processes and started again, as a supervisor would."""

import configparser
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml
from harness import ROOT, wait_until


@dataclass(frozen=True)
class Command:
    """How a supervisor starts a program."""

    argv: list[str]
    folder: Path
    environment: Mapping[str, str]


@dataclass
class Standing:
    """The programs of an export."""

    commands: dict[str, Command]
    address: str
    model: str
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, **environment: str) -> None:
        command = self.commands[name]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.processes[name] = subprocess.Popen(
            command.argv,
            cwd=command.folder,
            env={"PATH": path, "PYTHONPATH": str(ROOT), **command.environment, **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def send(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def start_again(self, name: str) -> None:
        self.send(name, signal.SIGKILL)
        self.processes[name].wait()
        self.start(name)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.address + path, timeout=30)

    def post(self, body: Any, **headers: str) -> requests.Response:
        path = f"{self.address}/v2/models/{self.model}/infer"
        if isinstance(body, bytes):
            return requests.post(path, data=body, headers=headers, timeout=60)
        return requests.post(path, json=body, headers=headers, timeout=60)

    def is_ready(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AssertionError(f"{name}: {process.communicate()[1]}")
        try:
            return self.get("/v2/health/ready").status_code == 200
        except requests.ConnectionError:
            return False


@contextmanager
def at_work(commands: dict[str, Command], port: int, model: str) -> Iterator[Standing]:
    """Start all programs, and wait until requests come through them."""
    standing = Standing(commands, f"http://127.0.0.1:{port}", model)
    try:
        for name in commands:
            standing.start(name)
        wait_until(standing.is_ready)
        yield standing
    finally:
        for process in standing.processes.values():
            with process:  # closes its pipes, which may have been read already
                process.kill()


def keys(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "keys.env").read_text().splitlines())


def units(folder: Path) -> dict[str, configparser.ConfigParser]:
    """The units of an export for systemd, by the program's name."""
    found = {}
    for file in sorted(folder.glob("systemd/*/*.service")):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(file)
        found[Path(shlex.split(parser["Service"]["ExecStart"])[-1]).stem] = parser
    return found


def of_units(folder: Path) -> dict[str, Command]:
    return {
        name: Command(
            shlex.split(unit["Service"]["ExecStart"]), Path("/"), keys(Path(unit["Service"]["EnvironmentFile"]).parent)
        )
        for name, unit in units(folder).items()
    }


def of_compose(folder: Path) -> dict[str, Command]:
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    return {name: Command(service["command"], folder, keys(folder)) for name, service in services.items()}


def of_manifests(folder: Path) -> dict[str, Command]:
    """The commands of the pods, which find each other at this machine's own addresses."""
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                found[file.stem] = Command(container["command"], folder, keys(folder))
    return found
