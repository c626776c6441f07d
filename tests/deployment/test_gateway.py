"""An exported pipeline at work: its own command lines, and clients that nobody here wrote."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import requests
from harness import ROOT, Desk, MakeDesk, make_model, wait_until
from onnx import helper

from pepper.config.cutting import CutKind
from pepper.config.placing import PlanGraph
from pepper.execution.message import Message, encode
from pepper.execution.queues import TCP, open_sink
from pepper.execution.standing_files import keys_of
from pepper.placement.plan import Plan
from tests.deployment.standing import Command, Standing, at_work, keys, of_compose, of_manifests, of_units
from tests.tasks.plans import make_plan, save, shares

IN_FLIGHT = 4
INPUT = np.random.default_rng(7).random((1, 24), dtype=np.float32)

if not find_spec("prometheus_client"):
    pytest.skip("the extra service is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("gateway") / "desk")


@pytest.fixture(scope="module")
def plan(models: dict[str, Path]) -> Plan:
    return make_plan(str(models["small"]), ["camera", "edge"], shares(camera=0.5, edge=0.5))


@pytest.fixture(scope="module")
def whole(models: dict[str, Path]) -> np.ndarray:
    session = ort.InferenceSession(models["small"], providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": INPUT})[0]
    return found


def exported(desk: Desk, plan: Plan, name: str, *overrides: str) -> tuple[Path, int]:
    folder = desk.folder / name
    folder.mkdir()
    port, out = ports(), folder / "small"
    outcome = desk(
        "task=export",
        f"export.plan={save(plan, folder)}",
        f"export.out={out}",
        f"export.at={folder}",
        "export.name=small",
        f"export.python={sys.executable}",
        f"export.port={port}",
        f"export.in_flight={IN_FLIGHT}",
        "export.time_limit_seconds=4",
        *overrides,
    )
    assert outcome.status == 0, outcome.err
    return out, port


def ports() -> int:
    """A port that is free, as those behind it are, below those that the system hands out to whoever asks for any."""
    while True:
        first = random.randrange(12000, 30000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + 16):
                taken = stack.enter_context(socket.socket())
                taken.bind(("127.0.0.1", port))
            return first


@pytest.fixture(scope="module")
def standing(desk: Desk, plan: Plan) -> Iterator[Standing]:
    out, port = exported(desk, plan, "units")
    with at_work(of_units(out), port, "small") as found:
        yield found


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 24], "data": INPUT.ravel().tolist()}
    return {"id": "one", "inputs": [{**tensor, **changes}]}


def assert_answers(standing: Standing, whole: np.ndarray) -> None:
    (output,) = standing.post(request()).json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "FP32", [1, 24])
    np.testing.assert_allclose(np.float32(output["data"]), whole.ravel(), rtol=1e-5)


def test_json_in_json_out(standing: Standing, whole: np.ndarray) -> None:
    assert_answers(standing, whole)
    said = standing.post(request()).json()
    assert (said["id"], said["model_name"], said["model_version"]) == ("one", "small", "1")


def test_bytes_in_bytes_out(standing: Standing, whole: np.ndarray) -> None:
    body: dict[str, Any] = request(parameters={"binary_data_size": INPUT.nbytes})
    del body["inputs"][0]["data"]
    body["parameters"] = {"binary_data_output": True}
    head = json.dumps(body).encode()
    answer = standing.post(head + INPUT.tobytes(), **{"Inference-Header-Content-Length": str(len(head))})
    size = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.content[:size])["outputs"]
    assert output["parameters"] == {"binary_data_size": whole.nbytes}
    np.testing.assert_allclose(np.frombuffer(answer.content[size:], np.float32), whole.ravel(), rtol=1e-5)


def test_what_serves_here(standing: Standing) -> None:
    assert standing.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert standing.get("/v2/health/live").status_code == 200
    assert standing.get("/v2/models/small/versions/1/ready").json() == {"name": "small", "ready": True}
    metadata = standing.get("/v2/models/small").json()
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 24]}
    assert (metadata["versions"], metadata["inputs"]) == (["1"], [tensor])
    assert standing.get("/v2/models/large").json()["error"] == "model 'large': 'small' is served here"
    assert standing.get("/v1").status_code == 404


def test_triton_s_client(standing: Standing, whole: np.ndarray) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    utilities = pytest.importorskip("tritonclient.utils")
    with client_of.InferenceServerClient(standing.address.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("small")
        assert client.get_model_metadata("small")["outputs"][0]["name"] == "output"
        for as_bytes in (True, False):
            given = client_of.InferInput("input", list(INPUT.shape), "FP32")
            given.set_data_from_numpy(INPUT, binary_data=as_bytes)
            wanted = [client_of.InferRequestedOutput("output", binary_data=as_bytes)]
            for outputs in (wanted, None):
                found = client.infer("small", [given], outputs=outputs, request_id="7").as_numpy("output")
                np.testing.assert_allclose(found, whole, rtol=1e-5)
        other = client_of.InferInput("other", [1], "FP32").set_data_from_numpy(np.zeros(1, np.float32))
        with pytest.raises(utilities.InferenceServerException, match="input 'other': the model takes input"):
            client.infer("small", [other])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the request: no JSON"),
        (b"[" * 1000, "the request: no JSON"),
        ({}, "input 'input': is missing"),
        ({"inputs": [3]}, "inputs: must be a list of tensors"),
        (request(name="x"), "input 'x': the model takes input"),
        (request(shape=[1, -24]), "shape must be a list of numbers from 0"),
        (request(shape=[24, 1]), "input 'input': is 'FP32' [24, 1]; the model takes FP32 [1, 24]"),
        (request(datatype="INT8"), "the model takes FP32"),
        (request(data=[1] * 23), "data are not FP32 [1, 24]"),
        (request(data=["a"] * 24), "data are not FP32 [1, 24]"),
        (request(data=[[1], [2, 3]]), "data are not FP32 [1, 24]"),
        (request(parameters={"binary_data_size": 96}), "binary_data_size is 96, of 0 bytes there"),
        ({**request(), "outputs": [{"name": "y"}]}, "output 'y': the model gives output"),
    ],
)
def test_what_is_no_request(standing: Standing, body: Any, said: str) -> None:
    answer = standing.post(body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


def test_what_is_too_large_or_packed(standing: Standing) -> None:
    assert standing.post(bytes(2**20)).status_code == 413
    assert standing.post(b"", **{"Content-Encoding": "gzip"}).status_code == 415


def test_measured_beside_predicted(standing: Standing, plan: Plan) -> None:
    standing.post(request())
    shown = standing.get("/metrics").text
    assert f"pepper_pipeline_predicted_seconds {plan.latency_ms / 1000}" in shown
    assert 'pepper_stage_predicted_seconds{device="edge",stage="2"} 0.001' in shown
    counted = [line for line in shown.splitlines() if line.startswith('pepper_stage_seconds_count{device="edge"')]
    assert float(counted[0].split()[-1]) >= 1
    assert 'pepper_gateway_answers_total{status="200"}' in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stage-1", "stage-2", "gateway"])
def test_what_is_killed_and_started_again_comes_back(standing: Standing, whole: np.ndarray, name: str) -> None:
    """Whoever asks meanwhile is answered: by the model, or that it is not at work; the others run on."""
    others = {each: process.pid for each, process in standing.processes.items() if each != name}
    statuses = []

    def ask() -> int:
        try:
            return standing.post(request()).status_code
        except requests.ConnectionError:
            return 0

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for round_ in range(6):
            asked = [pool.submit(ask) for _ in range(IN_FLIGHT)]
            if round_ == 2:
                standing.start_again(name)
            statuses += [each.result(30) for each in asked]
    assert set(statuses) <= ({200, 503, 504} | ({0} if name == "gateway" else set())), statuses
    wait_until(standing.is_ready)
    assert_answers(standing, whole)
    assert {each: standing.processes[each].pid for each in others} == others


@pytest.mark.slow
def test_beyond_what_may_be_under_way_requests_are_refused_at_once(standing: Standing, whole: np.ndarray) -> None:
    wait_until(standing.is_ready)
    standing.send("stage-2", signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(3 * IN_FLIGHT) as pool:
            statuses = [each.status_code for each in pool.map(standing.post, [request()] * 3 * IN_FLIGHT)]
        assert sorted(set(statuses)) == [429, 504], statuses
        assert statuses.count(504) == IN_FLIGHT
        refused = standing.post(request())
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "nothing has come through the stages" in refused.json()["error"]
        assert standing.get("/v2/health/live").status_code == 200
        assert standing.get("/v2/health/ready").status_code == 503
    finally:
        standing.send("stage-2", signal.SIGCONT)
    wait_until(standing.is_ready)
    assert_answers(standing, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compose", "k3s"])
def test_the_command_lines_of_containers(desk: Desk, plan: Plan, whole: np.ndarray, kind: str) -> None:
    out, port = exported(desk, plan, kind, f"export.kind={kind}")
    if kind == "k3s":  # names that a cluster's DNS knows
        for file in out.glob("*.json"):
            text = file.read_text()
            for name in ("stage-1", "stage-2", "gateway"):
                text = text.replace(f"small-{name}:", "127.0.0.1:")
            file.write_text(text)
    with at_work(of_compose(out) if kind == "compose" else of_manifests(out), port, "small") as containers:
        assert_answers(containers, whole)


@dataclass(frozen=True)
class Twofold:
    """Parts side by side at work: two ways lead into the second stage, and into the gateway."""

    standing: Standing
    out: Path
    session: ort.InferenceSession

    def ask(self, number: int) -> int:
        given = np.full((1, 24), number, np.float32)
        answer = self.standing.post(request(data=given.ravel().tolist()))
        if answer.status_code == 200:
            found = {each["name"]: np.float32(each["data"]) for each in answer.json()["outputs"]}
            for name, expected in zip(("r", "output"), self.session.run(None, {"input": given}), strict=True):
                np.testing.assert_allclose(found[name], expected.ravel(), rtol=1e-4)
        return answer.status_code

    def all_answered(self) -> bool:
        return [self.ask(number) for number in range(IN_FLIGHT)] == [200] * IN_FLIGHT

    @contextmanager
    def strayed(self, program: str, ahead_s: float) -> Iterator[None]:
        """Bring a message of an earlier gateway, whose clock was ahead, by one of the ways into a program."""
        told = json.loads((self.out / f"{program}.json").read_text())
        assert len(told["receive"]) == 2
        message = Message(time.time_ns() + round(ahead_s * 1e9), {"probe": np.zeros(1, np.uint8)}, probe=True)
        with closing(open_sink(TCP + told["receive"][0], told["queue"], keys_of(keys(self.out)))) as sink:
            wait_until(sink.ready)
            sink.send(encode(message))
            time.sleep(0.5)
            yield


@pytest.fixture(scope="module")
def twofold(desk: Desk) -> Iterator[Twofold]:
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("MatMul", ["input", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["m"]),
        helper.make_node("Add", ["m", "input"], ["output"]),
    ]
    weights = {name: rng.random((24, 24), dtype=np.float32) for name in ("w1", "w2")}
    model = desk.folder / "twofold.onnx"
    onnx.save(make_model(nodes, {"input": [1, 24]}, {"r": [1, 24], "output": [1, 24]}, weights), model)
    fleet = shares(camera=0.5, edge=0.5)
    out, port = exported(
        desk, make_plan(str(model), ["camera", "edge"], fleet, CutKind.frontiers, graph=PlanGraph.dag), "dag"
    )
    with at_work(of_units(out), port, "small") as standing:
        yield Twofold(standing, out, ort.InferenceSession(model, providers=["CPUExecutionProvider"]))


@pytest.mark.slow
def test_parts_side_by_side_lose_requests_but_mix_none_up(twofold: Twofold) -> None:
    """The first stage sends to the second and to the gateway: after a loss, what is of one request comes together."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        asked = []
        for number in range(60):
            asked.append(pool.submit(twofold.ask, number))
            if number in (10, 30):
                twofold.standing.start_again("stage-2")
            if number % 20 == 19:
                wait_until(twofold.standing.is_ready)
        statuses = [each.result(30) for each in asked]
    assert set(statuses) <= {200, 503, 504}
    wait_until(twofold.standing.is_ready)
    assert twofold.all_answered()


@pytest.mark.slow
def test_what_an_earlier_gateway_sent_by_a_clock_that_was_ahead_blocks_nothing(twofold: Twofold) -> None:
    wait_until(twofold.standing.is_ready)
    with twofold.strayed("gateway", 600):
        assert twofold.all_answered()
    with twofold.strayed("stage-2", 600):
        wait_until(lambda: not twofold.standing.is_ready())
        wait_until(twofold.standing.is_ready)
        assert twofold.all_answered()


def run(command: Command, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command.argv,
        cwd=command.folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.strip()


def test_a_stage_that_cannot_work_says_why_in_a_line(desk: Desk, plan: Plan) -> None:
    out, _ = exported(desk, plan, "broken")
    command = of_units(out)["stage-1"]
    assert run(command) == (
        2,
        "error: PEPPER_PUBLIC_KEY: is not set; give this program the variables of keys.env that task=export wrote",
    )
    part = out / "parts" / "part_1.onnx"
    part.write_bytes(part.read_bytes() + b"\0")
    status, said = run(command, **keys(out))
    assert status == 2
    assert said.startswith(f"error: {part}: has sha256 ")
    assert said.endswith("as exported; copy the export again")
    (out / "stage-1.json").write_text("{}")
    assert run(command, **keys(out)) == (2, f"error: {out}/stage-1.json: format is missing; export the plan again")


def test_a_stage_tells_its_supervisor(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    """As sd_notify(3) has it: ready, and then again and again that it works."""

    out, port = exported(desk, plan, "told")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        standing = Standing(of_units(out), f"http://127.0.0.1:{port}", "small")
        standing.start("stage-1", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        try:
            assert supervisor.recv(100) == b"READY=1"
            assert [supervisor.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            health = json.loads((out / "stage-1.json").read_text())["health"]
            assert requests.get(f"http://{health}/", timeout=10).text == "ok\n"
        finally:
            standing.send("stage-1", signal.SIGKILL)
            standing.processes["stage-1"].communicate()
