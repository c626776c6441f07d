"""How many predictions a second does the service answer, and how soon? Beside ``mlflow models serve``.

Both serve the same champion of the store in this folder, on the same cores. pepper is asked about a model on a device
and looks the features up that it has made before; MLflow is sent the features themselves. Reference: MLflow.
"""

import argparse
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from benchmarks.common import composed, print_table
from pepper.graph.load import load_graph
from pepper.graph.source import resolve_path
from pepper.latency.features import FEATURES, Setting, rows
from pepper.planning.predicting import whole_part

_START_S = 120.0


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server meanwhile."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it was killed
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def ask(port: int, path: str, body: bytes, kind: str = "application/json") -> dict[str, object]:
    """Ask once, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content: dict[str, object] = json.loads(answer.read())
    if answer.status not in (200, 201):
        raise SystemExit(f"{path}: {answer.status} {content}")
    return content


def load(port: int, path: str, body: bytes, clients: int, seconds: float) -> tuple[float, np.ndarray]:
    """Ask from several clients at a time, each on one connection; returns requests a second, and their times (ms)."""
    times: list[list[float]] = [[] for _ in range(clients)]
    ends = time.perf_counter() + seconds

    def client(own: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (started := time.perf_counter()) < ends:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                own.append(1000 * (time.perf_counter() - started))

    threads = [threading.Thread(target=client, args=(own,)) for own in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = np.concatenate([np.array(own) for own in times])
    return len(every) / seconds, every


def await_port(port: int) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ping")
            connection.getresponse()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clients", type=int, default=16, help="requests at a time")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="of both, in turn")
    parser.add_argument("--port", type=int, default=5007, help="of MLflow")
    options = parser.parse_args()
    config = composed()
    file = resolve_path(config.model.path)
    part, _ = whole_part(load_graph(file))
    row = [None if math.isnan(value) else value for value in rows(part, Setting())[0].tolist()]
    frame = json.dumps({"dataframe_split": {"columns": list(FEATURES), "data": [row]}}).encode()
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, "-m", "pepper.run", "task=serve", "serve.open=true", "serve.port=0"]
        theirs = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--port", str(options.port)),
            *("--model-uri", f"models:/{config.latency.registered_model}@champion"),
        ]
        with running([*own, f"serve.folder={folder}"]) as pepper:
            assert pepper.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", pepper.stdout.readline())
            if found is None:
                raise SystemExit("the service did not start; try its command by hand")
            port = int(found[1])
            model = ask(port, "/v1/models", file.read_bytes(), "application/octet-stream")["model"]
            cell = json.dumps({"model": model, "device": "local"}).encode()
            ask(port, "/v1/predict", cell)
            with running(theirs, MLFLOW_TRACKING_URI=config.tracking.uri):
                await_port(options.port)
                ask(options.port, "/invocations", frame)
                asked = {"mlflow": (options.port, "/invocations", frame), "pepper": (port, "/v1/predict", cell)}
                measured: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in asked}
                for _ in range(options.repeats):
                    for name, what in asked.items():
                        measured[name].append(load(*what, options.clients, options.seconds))
    lines = []
    for name, found_rates in measured.items():
        rates = [rate for rate, _ in found_rates]
        times = np.concatenate([each for _, each in found_rates])
        p50, p99 = np.quantile(times, [0.5, 0.99])
        spread = f"{min(rates):.0f} .. {max(rates):.0f}"
        lines.append([name, f"{np.median(rates):.0f}", spread, f"{p50:.1f}", f"{p99:.1f}"])
    title = f"one prediction a request, {options.clients} clients"
    print_table(title, ["server", "requests/s", "range", "p50 ms", "p99 ms"], lines)


if __name__ == "__main__":
    main()
