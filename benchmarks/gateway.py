"""What does the gateway of an exported pipeline cost? Beside the same stages under ``task=execute``'s own driver.

Each model is cut into two parts of nearly equal work, one a core. Reference: the saturated stream of ``task=execute``,
with its stages joined by shared memory (the default) and by TCP, as between hosts. The export runs the command lines of
its own units, and is asked by a client in a process of its own, over HTTP with tensors as bytes, as many requests at a
time as the reference has in flight. Client, gateway and both stages share the two cores: what the client takes of them,
the reference has not to give. In turns; the ratio is that of each round.

    python -m benchmarks.gateway --models resnet50
"""

import argparse
import configparser
import http.client
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, ExportConfig, PepperConfig
from pepper.deployment.export import PARTS, write_export
from pepper.deployment.standing import standing_pipeline
from pepper.devices import host
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE, StagePool, specs
from pepper.execution.runner import Runner
from pepper.execution.trials import Sample, saturated
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.gateway.inference import DATATYPES
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split
from pepper.placement.plan import Plan, PlannedModel, PlannedPart

DEVICES = ("first", "second")
_START_S = 60.0


class Case:
    """A model in two parts.

    Args:
        config: The default measurement, with the model.
        folder: For the export and sockets.
        in_flight: Most requests at a time.
        port: First port of the export.
    """

    def __init__(self, config: PepperConfig, folder: Path, in_flight: int, port: int) -> None:
        self._config, self._folder, self._in_flight, self._port = config, folder, in_flight, port
        graph = load_graph(config.model.path)
        macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
        cuts = balanced_cuts(graph, find_cuts(graph), len(DEVICES), macs)
        self._manifest = split(graph, cuts, folder / "out" / PARTS)
        cores = host.allowed_cores()
        devices = {
            name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1), IDLE)
            for name, core in zip(DEVICES, (cores[0], cores[-1]), strict=True)
        }
        fleet = Fleet(devices, everywhere(DEVICES, Link()))
        ends = [0, *(cut.position for cut in cuts), len(graph.operators)]
        parts = tuple(PlannedPart(ends[k], ends[k + 1], device, 0, 0, 0, 0, 0) for k, device in enumerate(DEVICES))
        model = PlannedModel(str(config.model.name), str(config.model.path), self._manifest.source_sha256, {})
        self._plan = Plan(model, fleet, "throughput", parts, 0, 0, 0, 0, 0, 0, "by hand")
        self._layout = Layout.of(self._manifest, folder / "out" / PARTS, DEVICES)
        inputs = random_inputs(graph)
        self._sample = Sample(inputs, run_whole(graph, inputs, 1))

    def stream(self, port: int | None, seconds: float) -> float:
        """Return the answers a second of ``task=execute``'s stream, over shared memory or (with a port) TCP."""
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
            pool = stack.enter_context(StagePool(self._plan.fleet, self._config.measure.session, 60.0))
            network = Network(pool.fleet, home, port=port)
            stack.callback(network.close)
            runner = stack.enter_context(
                Runner(pool, network, self._layout, time_limit_s=60.0, in_flight=self._in_flight)
            )
            saturated(runner, [self._sample], 0.3, self._in_flight)
            stream = saturated(runner, [self._sample], seconds, 2 * self._in_flight)
        if stream.difference > 1e-4 or stream.failures:
            raise SystemExit(f"{self._config.model.name}: the parts do not compute what the whole does")
        return stream.throughput_per_s

    def exported(self, seconds: float) -> tuple[float, float, float, float]:
        """Return the answers a second of the export, and CPU time of each (ms): the client, the gateway, the stages."""
        out, name = self._folder / "out", "pipeline"
        options = ExportConfig(python=sys.executable, port=self._port, in_flight=self._in_flight, here="here")
        pipeline = standing_pipeline(
            name,
            self._plan,
            self._manifest,
            out / PARTS,
            specs(self._plan.fleet),
            self._config.measure.session,
            replace(options, time_limit_seconds=60.0),
        )
        write_export(pipeline, self._plan, options, out)
        keys = dict(line.split("=", 1) for line in (out / "keys.env").read_text().splitlines())
        programs: dict[str, psutil.Process] = {}
        with ExitStack() as stack:
            for file in sorted((out / "systemd" / "here").glob("*.service")):
                unit = configparser.ConfigParser(interpolation=None, strict=False)
                unit.read(file)
                *command, told = shlex.split(unit["Service"]["ExecStart"])
                cores = unit["Service"].get("CPUAffinity")
                process = _running([*command, str(out / Path(told).name)], keys, cores)
                programs[Path(told).stem] = psutil.Process(stack.enter_context(process).pid)
            _await_ready(self._port)
            body, json_bytes = _request(self._sample)
            with multiprocessing.get_context("spawn").Pool(1) as client:
                asked = (self._port, name, body, json_bytes, self._in_flight)
                client.apply(ask, (*asked, 0.5))
                before_ms = {each: _cpu_ms(program) for each, program in programs.items()}
                rate, client_ms = client.apply(ask, (*asked, seconds))
                used = {each: _cpu_ms(program) - before_ms[each] for each, program in programs.items()}
                gateway_ms, count = used.pop("gateway"), rate * seconds
                return rate, client_ms, gateway_ms / count, sum(used.values()) / count


def _cpu_ms(program: psutil.Process) -> float:
    times = program.cpu_times()
    return 1000 * float(times.user + times.system)


@contextmanager
def _running(command: list[str], keys: dict[str, str], cores: str | None) -> Iterator["subprocess.Popen[bytes]"]:
    pinned = ["taskset", "--cpu-list", cores.replace(" ", ","), *command] if cores else command
    process = subprocess.Popen(pinned, env={**os.environ, **keys}, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _await_ready(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the pipeline at port {port} does not get ready")


def _request(sample: Sample) -> tuple[bytes, int]:
    tensors = [np.asarray(tensor, order="C") for tensor in sample.inputs.values()]
    entries = [
        {
            "name": name,
            "shape": list(tensor.shape),
            "datatype": DATATYPES[tensor.dtype.name],
            "parameters": {"binary_data_size": tensor.nbytes},
        }
        for name, tensor in zip(sample.inputs, tensors, strict=True)
    ]
    head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(tensor.tobytes() for tensor in tensors), len(head)


def ask(port: int, model: str, body: bytes, json_bytes: int, clients: int, seconds: float) -> tuple[float, float]:
    """Ask from so many threads at a time; returns answers a second, and CPU time of each (ms)."""
    done: list[int] = []
    ends = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        count = 0
        while time.perf_counter() < ends:
            headers = {"Inference-Header-Content-Length": str(json_bytes)}
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"the gateway answers {answer.status}")
            count += time.perf_counter() < ends
        done.append(count)

    before_s = time.process_time()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) < clients:
        raise SystemExit("not every client got its answers")
    return sum(done) / seconds, 1000 * (time.process_time() - before_s) / max(1, sum(done))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the export's programs are ended
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["squeezenet", "googlenet", "resnet50"])
    parser.add_argument("--clients", type=int, default=16, help="requests at a time (16)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="of all three, in turn (3)")
    parser.add_argument("--port", type=int, default=8850, help="first port to use (8850)")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(composed(f"model={model}"), Path(folder), options.clients, options.port)
            rounds = [
                (
                    case.stream(None, options.seconds),
                    case.stream(options.port, options.seconds),
                    *case.exported(options.seconds),
                )
                for _ in range(options.rounds)
            ]
        shared, tcp, gateway, *used_ms = zip(*rounds, strict=True)
        rows.append(
            [
                model,
                *(f"{median(rates):.1f}" for rates in (shared, tcp, gateway)),
                f"{median(g / s for g, s in zip(gateway, shared, strict=True)):.1%}",
                f"{median(g / t for g, t in zip(gateway, tcp, strict=True)):.1%}",
                *(f"{median(each):.2f}" for each in used_ms),
            ]
        )
    print_table(
        f"answers a second, {options.clients} requests at a time, medians of {options.rounds} rounds",
        ["model", "execute", "execute, TCP", "gateway", "of execute", "of TCP", "client ms", "gateway ms", "stages ms"],
        rows,
    )


if __name__ == "__main__":
    main()
