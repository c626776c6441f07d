"""Does the service withstand what clients send, and its own death? Counts what must not be; all should be 0.

Each is done to a service of its own, in a folder and a store of its own, with the model that pepper ships. Reference:
the service's OpenAPI document for ``--examples``; what was asked of it for ``--kills``.
"""

import argparse
import http.client
import io
import itertools
import json
import random
import re
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import psutil
from onnx import TensorProto, helper

from benchmarks.common import print_table
from benchmarks.service import running

_MOST_MODEL_BYTES = 2**20
_ENDS_S = 30.0
"""A process that lives longer than its service is left over."""
_JOBS_S = 600.0
_LOOK_S = 0.1


@dataclass
class Service:
    """A service under way.

    Attributes:
        process: Its process.
        port: Where it listens.
        folder: Where its files and its store are.
        peak_bytes: Most memory that it and its children took together.
    """

    process: psutil.Process
    port: int
    folder: Path
    peak_bytes: int = 0
    _watched: threading.Event = field(default_factory=threading.Event)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Ask once; returns the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # it is refused before it was sent to its end
            connection.request(method, path, sent, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def upload(self, content: bytes) -> tuple[int, bytes]:
        """Send a file as a model."""
        return self.ask("POST", "/v1/models", content, "application/octet-stream")

    def processes(self) -> list[psutil.Process]:
        """Return its process and those that it started."""
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def watch(self) -> None:
        """Note its memory until it is told to stop."""
        while not self._watched.wait(_LOOK_S):
            total = 0
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.peak_bytes = max(self.peak_bytes, total)

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except OSError:
            return False


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    """Serve meanwhile."""
    command = [
        *(sys.executable, "-m", "pepper.run", "task=serve", "serve.open=true", "serve.port=0", "measure=quick"),
        *(f"serve.folder={folder}/service", f"serve.max_model_bytes={_MOST_MODEL_BYTES}", "serve.job_seconds=120"),
        *(f"tracking.uri=sqlite:///{folder}/store.db", f"tracking.artifacts={folder}/artifacts", "serve.queue=1000"),
    ]
    with running(command) as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        if found is None:
            raise SystemExit("the service did not start; try its command by hand")
        service = Service(psutil.Process(process.pid), int(found[1]), folder)
        watcher = threading.Thread(target=service.watch)
        watcher.start()
        try:
            yield service
        finally:
            service._watched.set()
            watcher.join()


def model(width: int = 8) -> bytes:
    """Return a small model of a few operators."""
    names = ["x", *(f"h{number}" for number in range(5)), "y"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [width, width], [0.1] * width**2)
    nodes = [
        helper.make_node("MatMul" if number % 2 == 0 else "Relu", [name, "w"] if number % 2 == 0 else [name], [after])
        for number, (name, after) in enumerate(itertools.pairwise(names))
    ]
    first, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "small", [first], [last], [weight])
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(made.SerializeToString())


def examples(service: Service, count: int, seed: int) -> list[tuple[str, Any]]:
    """Ask whatever the OpenAPI document allows, and more; every other time of a model that is kept."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    address = f"http://127.0.0.1:{service.port}/openapi.json"
    loaded: Any = schemathesis.openapi.from_url(address)
    operations = [each.ok() for each in loaded.get_all_operations()]
    kept = json.loads(service.upload(model())[1])["model"]
    rng, asked, faults, undocumented = random.Random(seed), 0, 0, 0
    quickly = settings(
        max_examples=max(1, -(-count // len(operations))), deadline=None, suppress_health_check=list(HealthCheck),
        database=None,
    )  # fmt: skip
    for operation in operations:

        @seeded(seed)
        @quickly
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked, faults, undocumented
            if rng.random() < 0.5 and case.method != "DELETE":
                for holder in (case.path_parameters, case.body):
                    if isinstance(holder, dict) and "model" in holder:
                        holder["model"] = kept
            asked += 1
            answer = case.call()
            faults += answer.status_code >= 500
            try:
                case.validate_response(answer, checks=wanted)
            except FailureGroup as failures:
                undocumented += 1
                print(f"{case.method} {case.path}: {answer.status_code} {failures.exceptions[0]}", file=sys.stderr)

        ask()
    return [
        ("requests, over all routes", f"{asked} over {len(operations)}"),
        ("answers 5xx", faults),
        ("answers that the document does not name", undocumented),
        *_health(service),
    ]


def uploads(service: Service, count: int, seed: int) -> list[tuple[str, Any]]:
    """Send files that are no models, or dangerous ones."""
    rng, good = random.Random(seed), model()
    kinds = _mutations(good)
    statuses: dict[int, int] = {}
    wrong, long_lines = 0, 0
    for number in range(count):
        name = list(kinds)[number % len(kinds)]
        status, said = service.upload(kinds[name](rng))
        statuses[status] = statuses.get(status, 0) + 1
        if status not in (200, 201, 413, 422):
            wrong += 1
            print(f"{name}: {status} {said[:200]!r}", file=sys.stderr)
        elif status in (413, 422):
            detail = json.loads(said)["detail"]
            if "\n" in detail or str(service.folder) in detail:
                long_lines += 1
                print(f"{name}: {detail[:200]!r}", file=sys.stderr)
    drafts = list((service.folder / "service" / "models").glob(".*"))
    return [
        ("files, of kinds", f"{count} of {len(kinds)}"),
        ("refused, kept", f"{statuses.get(413, 0) + statuses.get(422, 0)}, {statuses.get(201, 0)}"),
        ("other answers", wrong),
        ("refused in more than a line, or with a path", long_lines),
        ("files left half received", len(drafts)),
        *_health(service),
    ]


def _mutations(good: bytes) -> dict[str, Callable[[random.Random], bytes]]:
    """Return what makes a file of each kind."""

    def place(rng: random.Random) -> tuple[int, int]:
        start, stop = sorted(rng.randrange(len(good)) for _ in range(2))
        return start, stop

    def outside(rng: random.Random) -> bytes:
        made = onnx.load_from_string(good)
        weight = made.graph.initializer[0]
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        path = rng.choice(["tokens.json", "../tokens.json", "/etc/passwd", "../../../../proc/self/mem", "jobs.db"])
        weight.external_data.add(key="location", value=path)
        return bytes(made.SerializeToString())

    def archive(rng: random.Random) -> bytes:
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as stream:
            stream.writestr("../model.onnx", good)
            stream.writestr("zeros", bytes(rng.randrange(2**24)))
        return written.getvalue()

    def large(rng: random.Random) -> bytes:
        made = onnx.load_from_string(good)
        made.graph.initializer[0].dims[:] = [2 ** rng.randrange(20, 62), 8]
        return bytes(made.SerializeToString())

    def deep(rng: random.Random) -> bytes:
        nested = b""
        for _ in range(rng.randrange(50, 2000)):
            nested = b"\x0a" + _varint(len(nested)) + nested
        return b"\x3a" + _varint(len(nested)) + nested

    def cut(rng: random.Random) -> bytes:
        return good[: rng.randrange(len(good))]

    def overwritten(rng: random.Random) -> bytes:
        start, _ = place(rng)
        return good[:start] + rng.randbytes(32) + good[start + 32 :]

    def repeated(rng: random.Random) -> bytes:
        start, stop = place(rng)
        return good[:stop] + good[start:]

    def dropped(rng: random.Random) -> bytes:
        start, stop = place(rng)
        return good[:start] + good[stop:]

    return {
        "truncated": cut,
        "overwritten": overwritten,
        "repeated": repeated,
        "dropped": dropped,
        "external data": outside,
        "zip": archive,
        "many empty nodes": lambda rng: (
            lambda body: b"\x3a" + _varint(len(body)) + body
        )(b"\x0a\x00" * rng.randrange(200_000, 520_000)),
        "huge dimensions": large,
        "deep": deep,
        "noise": lambda rng: rng.randbytes(rng.randrange(1, 4096)),
        "too large": lambda rng: bytes(_MOST_MODEL_BYTES + rng.randrange(1, 2**20)),
    }  # fmt: skip


def _varint(value: int) -> bytes:
    said = b""
    while value > 127:
        said, value = said + bytes([value & 127 | 128]), value >> 7
    return said + bytes([value])


def kills(folder: Path, count: int, seed: int) -> list[tuple[str, Any]]:
    """Kill the service at random moments with jobs under way; then let it do all that it was asked."""
    rng, jobs = random.Random(seed), dict[str, str]()
    left = amid = 0
    for number in range(count):
        with serving(folder) as service:
            known = json.loads(service.upload(model())[1])["model"]
            for task, more in (("split", {"parts": 2}), ("profile", {})):
                if task == "split" or number % 3 == 0:
                    status, said = service.ask("POST", f"/v1/{task}", {"model": known, **more})
                    if status == 202:
                        jobs[json.loads(said)["job"]] = task
            time.sleep(rng.uniform(0, 6))
            amid += b'"processing"' in service.ask("GET", "/v1/jobs")[1]
            started = service.processes()
            service.process.kill()
            _, living = psutil.wait_procs(started, timeout=_ENDS_S)
            left += len(living)
    with serving(folder) as service:
        ends = time.monotonic() + _JOBS_S
        while time.monotonic() < ends:
            found = {each["job"]: each for each in json.loads(service.ask("GET", "/v1/jobs")[1])}
            if all(each["ended"] for each in found.values()):
                break
            time.sleep(1)
        failed = [each for each in found.values() if each["state"] != "done"]
        for each in failed:
            print(f"{each['task']}: {each['state']} {each['problem']}", file=sys.stderr)
        half = sum(not _is_whole(service, job, task) for job, task in jobs.items() if job in found)
        runs = [_result(service, job)["run_id"] for job, task in jobs.items() if task == "profile" and job in found]
        drafts = list((folder / "service").rglob(".*.onnx"))
    return [
        ("kills, with a job amid its work", f"{count}, {amid}"),
        ("jobs taken", len(jobs)),
        ("jobs lost", len(jobs.keys() - found.keys())),
        ("jobs that did not end well", len(failed)),
        ("measurements logged twice", _finished(folder) - len(set(runs))),
        ("results and files half written", half + len(drafts)),
        ("processes left", left),
    ]


def _result(service: Service, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.ask("GET", f"/v1/jobs/{job}/result")[1])
    return found


def _is_whole(service: Service, job: str, task: str) -> bool:
    try:
        _result(service, job)
        if task == "split":
            content = service.ask("GET", f"/v1/jobs/{job}/parts")[1]
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    if name.endswith(".onnx"):
                        onnx.checker.check_model(onnx.load_from_string(archive.read(name)))
    except (ValueError, zipfile.BadZipFile, onnx.checker.ValidationError):
        return False
    return True


def _finished(folder: Path) -> int:
    """Return how many measurements have come to their end in the store."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/store.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    query = "attributes.status = 'FINISHED' and tags.`pepper.kind` = 'cell'"
    return len(client.search_runs(experiments, query, max_results=10_000))


def _health(service: Service) -> list[tuple[str, Any]]:
    return [
        ("peak memory of the service and its children, MiB", round(service.peak_bytes / 2**20)),
        ("alive at the end", "yes" if service.alive() else "no"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--examples", type=int, default=0, help="requests that schemathesis makes of the OpenAPI")
    parser.add_argument("--uploads", type=int, default=0, help="mutated files that are sent as models")
    parser.add_argument("--kills", type=int, default=0, help="times that the service is killed with jobs under way")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.examples or options.uploads or options.kills):
        parser.error("give --examples, --uploads or --kills")
    for name, what in (("examples", examples), ("uploads", uploads)):
        if count := getattr(options, name):
            with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch)) as service:
                _print(name, what(service, count, options.seed))
    if options.kills:
        with tempfile.TemporaryDirectory() as scratch:
            rows = kills(Path(scratch), options.kills, options.seed)
        _print("kills", rows)


def _print(title: str, rows: list[tuple[str, Any]]) -> None:
    print_table(title, ["what", "count"], [[what, str(count)] for what, count in rows])


if __name__ == "__main__":
    main()
