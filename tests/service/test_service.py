"""Models, what they are and how long they take, over HTTP; and who may ask."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, free_port

import pepper
from pepper.config import HostsConfig, ServeConfig
from pepper.hosts.bundles import issue
from pepper.service.shelf import Shelf
from tests.service.conftest import Client, served


def test_alive_ready_and_counted(client: Client) -> None:
    assert client("GET", "/healthz").json() == client("GET", "/readyz").json() == {"status": "ok"}
    shown = client("GET", "/metrics").text
    assert 'pepper_requests_total{method="GET",route="/healthz",status="200"}' in shown
    assert "pepper_champion_version 1.0" in shown
    assert client("GET", "/openapi.json").json()["info"]["title"] == "pepper"


def test_from_an_upload_to_what_a_model_is_and_takes(client: Client, desk: Desk) -> None:
    file = desk.folder / "net.onnx"
    kind = {"Content-Type": "application/octet-stream"}
    client("DELETE", f"/v1/models/{hashlib.sha256(file.read_bytes()).hexdigest()}")
    first = client("POST", "/v1/models", data=file.read_bytes(), headers=kind)
    again = client("POST", "/v1/models", data=file.read_bytes(), headers=kind)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    model = first.json()["model"]
    assert first.json()["operators"] == 12
    assert first.json()["inputs"] == [{"name": "input", "dtype": "float", "shape": [1, 3, 64, 64]}]
    assert model in [kept["model"] for kept in client("GET", "/v1/models").json()]
    assert client("GET", f"/v1/models/{model}").json() == first.json()

    cuts = client("POST", f"/v1/models/{model}/cuts", json={"kind": "bridges", "bridge_dist": 3}).json()["cuts"]
    printed = desk("task=cuts", "model=net", "cuts=bridges", "cuts.bridge_dist=3", "output=json")
    assert cuts == json.loads(printed.out)["cuts"]
    described = client("POST", f"/v1/models/{model}/characteristics", json={}).json()
    assert described["characteristics"]["operators"] == 12

    cell = {"model": model, "device": "share100", "load": "cpu25"}
    said = client("POST", "/v1/predict", json=cell).json()
    printed = desk("task=predict", "model=net", "device=share100", "load=cpu25", "output=json")
    assert said["p50_ms"] == pytest.approx(json.loads(printed.out)["p50_ms"])
    assert set(said) == set(json.loads(printed.out)) - {"task", "status"}
    cells = [cell, {**cell, "load": "cpu52"}, {**cell, "model": "0" * 64}, {**cell, "load": "idle"}]
    rows = client("POST", "/v1/predict/batch", json={"cells": cells}).json()["predictions"]
    assert rows[0] == said
    assert (rows[1]["status"], rows[2]["status"]) == (422, 404)
    assert "no such option" in rows[1]["detail"]
    assert rows[3]["p50_ms"] < said["p50_ms"]

    assert client("GET", "/v1/champion").json() == {"registered_model": "pepper-latency", "champion": 1}
    assert client("GET", "/v1/champion/history").json()["history"][0]["why"] == "first"
    assert client("DELETE", f"/v1/models/{model}").status_code == 204
    assert client("POST", "/v1/predict", json=cell).status_code == 404


def test_sizes_are_given_where_a_model_leaves_them_open(client: Client, models: dict[str, Path]) -> None:
    model = client.upload(models["dynamic"])
    cuts = client("POST", f"/v1/models/{model}/cuts", json={"dims": {"N": 4}}).json()["cuts"]
    assert cuts[0]["shapes"] == [[4, 16]]
    wrong = client("POST", f"/v1/models/{model}/cuts", json={"dims": {"M": 4}})
    assert wrong.status_code == 422
    assert wrong.headers["Content-Type"] == "application/problem+json"
    assert wrong.json()["key"] == "model.dims.M"


def test_what_is_no_model_is_refused_in_a_line(client: Client, models: dict[str, Path], tmp_path: Path) -> None:
    good = models["tiny"].read_bytes()
    bad = {"half": good[: len(good) // 2], "empty": b"", "noise": b"\xff" * 1000, "large": bytes(1_000_001)}
    for name, content in bad.items():
        answer = client("POST", "/v1/models", data=content, headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code == (413 if name == "large" else 422), name
        assert "\n" not in answer.json()["detail"]
        assert str(tmp_path.parent.parent) not in answer.text
    assert client("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/predict", {"model": "../../etc/passwd"}, 422),
        ("POST", "/v1/predict", {"model": "0" * 64, "device": "../local"}, 422),
        ("POST", "/v1/predict", {"model": "0" * 64}, 404),
        ("POST", "/v1/predict", {"model": "0" * 64, "tracking": "x"}, 422),
        ("POST", "/v1/predict/batch", {"cells": []}, 422),
        ("POST", "/v1/models/" + "0" * 64 + "/cuts", {}, 404),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/models", None, 405),
    ],
)
def test_problems(client: Client, method: str, path: str, body: object, status: int) -> None:
    answer = client(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"title", "status", "detail", "key", "fix"} <= set(answer.json())
    assert answer.json()["status"] == status
    assert answer.json()["fix"]


def test_tokens_and_their_scopes(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    base = ("task=serve", f"serve.folder={desk.folder}/service")
    assert "serve.token=NAME" in desk(*base).error
    made = desk(*base, "serve.token=reader", "serve.scopes=[read]", "output=json")
    token = json.loads(made.out)["token"]
    asker = json.loads(desk(*base, "serve.token=asker", "output=json").out)["token"]
    assert "there is one already" in desk(*base, "serve.token=asker").error
    kept = desk.folder / "service" / "tokens.json"
    assert token not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    with served(desk) as client:
        assert client("GET", "/healthz").status_code == 200
        unknown = client("GET", "/v1/models")
        assert (unknown.status_code, unknown.headers["WWW-Authenticate"]) == (401, "Bearer")
        client.token = "pepper_guessed"
        assert client("GET", "/v1/models").status_code == 401
        client.token = token
        assert client("GET", "/v1/models").status_code == 200
        forbidden = client("POST", "/v1/predict", json={"model": "0" * 64})
        assert forbidden.status_code == 403
        assert "serve.scopes=[predict]" in forbidden.json()["fix"]
        client.token = asker
        assert client("POST", "/v1/predict", json={"model": "0" * 64}).status_code == 404
        desk(*base, "serve.revoke=asker")
        assert client("GET", "/v1/models").status_code == 401
    log = capfd.readouterr().err
    assert token not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"token": "reader", "status": 403, "path": "/v1/predict", "method": "POST"}.items() <= lines[4].items()
    assert "did you mean 'reader'" in desk(*base, "serve.revoke=raeder").error
    os.truncate(kept, 2**40)
    assert "is no list of tokens (more than 32 MiB)" in desk(*base, "serve.revoke=reader").error


@pytest.mark.parametrize("damage", [lambda file: file.write_text("{}"), lambda file: os.truncate(file, 2**40)])
def test_a_model_whose_facts_are_damaged_is_not_there(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    facts = tmp_path / f"{'0' * 64}.json"
    facts.touch()
    damage(facts)
    assert Shelf(tmp_path, ServeConfig()).all() == []


def test_what_is_open_is_open_to_this_machine_only(client: Client, desk: Desk) -> None:
    assert client("GET", "/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert client("GET", "/v1/models", headers={"Origin": "http://evil.example"}).status_code == 403
    assert "serve.token=NAME" in desk("task=serve", "serve.open=true", "serve.host=0.0.0.0").error


def test_without_a_champion_the_shipped_model_answers(desk: Desk, models: dict[str, Path]) -> None:
    with served(desk, "serve.open=true", "latency.registered_model=other") as client:
        model = client.upload(models["tiny"])
        answer = client("POST", "/v1/predict", json={"model": model})
        assert answer.status_code == 200
        said = answer.json()
        assert said["version"] == 0
        assert any("the model that pepper ships" in line for line in said["warnings"])
        assert client("GET", "/readyz").status_code == 200
        assert client("GET", "/v1/champion").json()["champion"] is None


@pytest.mark.slow
def test_hosts_that_are_not_there_are_a_problem(desk: Desk, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    address = f"127.0.0.1:{free_port()}"
    issue(HostsConfig(folder=str(tmp_path), address=address))
    fleet = (
        "fleet=three_shares",
        "fleet.devices.server.overrides={host:far}",
        f"hosts.folder={tmp_path}",
        "hosts.patience_seconds=1",
    )
    with served(desk, "serve.open=true", *fleet) as client:
        gone = client("GET", "/v1/fleet")
        assert (gone.status_code, gone.headers["Content-Type"]) == (503, "application/problem+json")
        assert address in gone.json()["detail"]
        assert gone.json()["fix"]
        assert client("GET", "/healthz").status_code == 200


@pytest.mark.slow
def test_the_command_serves_alone_until_it_is_ended(desk: Desk) -> None:
    begun = desk.start("task=serve", "serve.open=true", "serve.port=0", f"serve.folder={desk.folder}/alone")
    assert begun.stdout is not None
    found = re.search(r"http://\S+(?=,)", begun.stdout.readline())
    assert found
    asking = Client(found[0])
    assert asking("GET", "/openapi.json").json()["info"]["version"] == pepper.__version__
    other = desk("task=serve", "serve.open=true", "serve.port=0", f"serve.folder={desk.folder}/alone")
    assert "another service uses it" in other.error
    port = found[0].rpartition(":")[2]
    taken = desk("task=serve", "serve.open=true", f"serve.port={port}", f"serve.folder={desk.folder}/other")
    assert "cannot be listened at" in taken.error
    begun.terminate()
    ended = desk.finish(begun)
    assert ended.status == 143, ended.err
    assert ended.err.splitlines()[-1] == "terminated"
