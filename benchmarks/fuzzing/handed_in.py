"""Files that other tools and other machines hand in: measurements, bundles of hosts, a service's tokens."""

from dataclasses import replace
from pathlib import Path

import onnx

from pepper.config.hosting import HostsConfig
from pepper.config.serving import Scope
from pepper.errors import PepperError
from pepper.hosts.bundles import issue, read_bundle, withdraw
from pepper.latency import elsewhere
from pepper.service.tokens import Tokens
from tests.graph import models


def make_measurements(folder: Path) -> None:
    model = folder.parent / "measured.onnx"
    onnx.save(models.chain(), model)
    (folder / "rows").mkdir()
    row = {"model": model, "latency": 1500, "unit": "us", "threads": 4, "load": "cpu50", "device_gflops": 12.5}
    rows = [{**row, "device": f"phone {number}", "samples": number} for number in range(1, 4)]
    elsewhere.write(rows, folder / "rows" / "rows.csv")


def enter_measurements(folder: Path) -> None:
    file = folder / "rows.csv"
    lines, bad = elsewhere.read(file)
    found, unknown = elsewhere.describe(lines, {})
    for line, model in found:
        elsewhere.params_of(line, model, file)
        elsewhere.identity(line, model)
    if bad or unknown:
        raise PepperError("; ".join([*bad, *unknown]))


def make_bundles(folder: Path) -> None:
    issue(_bundles(folder / "bundles", "camera"))


def enter_bundles(folder: Path) -> None:
    for file in sorted({*folder.glob("*.json")} - {folder / "issued.json"}):
        read_bundle(file)
    (folder / "server.json").unlink(missing_ok=True)
    issue(_bundles(folder, "camera", "server"))  # signed by the authority as it came
    withdraw(replace(_bundles(folder), withdraw=["server"]))


def _bundles(folder: Path, *names: str) -> HostsConfig:
    return HostsConfig(address="127.0.0.1:8786", folder=str(folder), names=list(names))


def make_tokens(folder: Path) -> None:
    (folder / "tokens").mkdir()
    for name, scope in (("reader", Scope.read), ("operator", Scope.admin)):
        Tokens(folder / "tokens").make(name, [scope])


def enter_tokens(folder: Path) -> None:
    tokens = Tokens(folder)
    assert tokens.find("pepper_unknown") is None, "lets in whom it does not know"
    if (made := "newcomer") in tokens.names():
        tokens.revoke(made)
    token = tokens.find(tokens.make(made, [Scope.read]))
    assert token is not None, "does not know a token that it made"
    assert not token.allows(Scope.measure), "allows more than a token's scopes"
