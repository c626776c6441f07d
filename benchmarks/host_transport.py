"""One hop of a tensor between two hosts, against a raw TCP socket with TLS on the same path.

A host in a network namespace has joined a head here, and the kernel (tc-tbf) holds the link to each of --rates. A
message goes from this process to a stage on the host and back; what the stage took itself is taken off, and the rest
halved: so no clock is held against another. Reference: a socket of the standard library, with TLS 1.3 and the fleet's
certificates at both ends; a process on the stage's core sends back what it has received. In interleaved rounds.

Needs root and iproute2.

    python -m benchmarks.host_transport
"""

import argparse
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.common import composed, print_table
from benchmarks.joined import ROOT, JoinedHosts, joined
from benchmarks.namespaces import Namespace, linked, narrowed
from benchmarks.transport import PAUSE_S, Hop
from pepper.config import DeviceConfig, HostsConfig, LoadConfig
from pepper.devices import host
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.fleet import Fleet, FleetDevice
from pepper.graph.load import load_graph
from pepper.graph.split import split
from pepper.hosts import reach
from pepper.hosts.bundles import read_bundle
from pepper.hosts.trust import Trust

NAME = "host"
SIZES = (50_000, 3_200_000)
RATES = (0.0, 1000.0, 100.0)
AIM = 1.3


def stage(stack: ExitStack, folder: Path, core: int) -> Hop:
    """A stage of pepper on the host."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "one.onnx")
    manifest = split(load_graph(folder / "one.onnx"), [], folder / "parts")
    device = DeviceConfig(name=NAME, cores=[core], threads=1, host=NAME)
    fleet = Fleet({NAME: FleetDevice(device, LoadConfig(percent=0))})
    reach.use(HostsConfig(f"{folder}/fleet"))
    pool = stack.enter_context(StagePool(fleet, composed().measure.session, 30.0))
    network = Network(fleet, folder)
    stack.callback(network.close)
    layout = Layout.of(manifest, folder / "parts", [NAME])
    runner = stack.enter_context(Runner(pool, network, layout, time_limit_s=30.0))

    def hop(count: int) -> float:
        message, at_ns = runner.probe(count)
        sent, there = message.stamps
        return (at_ns - sent.sent - (there.sent - there.arrived)) / 2e6

    return hop


def raw_socket(stack: ExitStack, folder: Path, core: int, space: Namespace, there: JoinedHosts) -> Hop:
    """A socket with TLS, of the standard library."""
    command = [
        *space.within,
        sys.executable,
        "-m",
        "benchmarks.host_transport",
        "--echo",
        f"{folder}/fleet/{NAME}.json",
    ]
    echo = subprocess.Popen([*command, "--core", f"{core}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    stack.enter_context(echo)
    stack.callback(echo.kill)
    assert echo.stdout is not None
    peer = stack.enter_context(there.hosts.stream(NAME, int(echo.stdout.readline())))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    arrays = {count: np.random.default_rng(0).integers(0, 256, count, np.uint8) for count in SIZES}

    def hop(count: int) -> float:
        begun_ns = time.monotonic_ns()
        _send(peer, arrays[count])
        _receive(peer)
        return (time.monotonic_ns() - begun_ns) / 2e6

    return hop


def _send(peer: ssl.SSLSocket, array: np.ndarray) -> None:
    peer.sendall(array.nbytes.to_bytes(8, "little"))
    peer.sendall(array.data)


def _receive(peer: ssl.SSLSocket) -> np.ndarray:
    """Return what comes, in new memory.

    Raises:
        EOFError: Nothing does any more.
    """
    count = int.from_bytes(_filled(peer, np.empty(8, np.uint8)).tobytes(), "little")
    return _filled(peer, np.empty(count, np.uint8))


def _filled(peer: ssl.SSLSocket, array: np.ndarray) -> np.ndarray:
    left = array.data
    while left:
        count = peer.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
    return array


def _echo(bundle: Path, core: int) -> None:
    """Be the host's end of the socket: send back what comes."""
    os.sched_setaffinity(0, {core})
    with socket.create_server(("", 0)) as server:
        print(server.getsockname()[1], flush=True)
        with server.accept()[0] as plain, Trust(read_bundle(bundle)).listening.wrap_socket(plain, True) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                _send(peer, _receive(peer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of the link, Mbit/s; 0 is unlimited")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20, help="a round, of each size and way")
    parser.add_argument("--echo", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.echo:
        return _echo(options.echo, options.core)
    core, rows = host.allowed_cores()[-1], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            space = stack.enter_context(linked())
        except OSError as error:
            sys.exit(f"no network namespaces here ({error}); run this as root where iproute2 is installed")
        there = stack.enter_context(joined(folder, [NAME], [space]))
        ways = {"raw": raw_socket(stack, folder, core, space, there), "pepper": stage(stack, folder, core)}
        for rate in sorted(options.rates, key=lambda rate: rate > 0):  # what was narrowed once stays narrow
            if rate:
                narrowed(space, rate)
            rows += _rows(rate, ways, options.rounds, options.messages)
    print_table(
        f"one hop between hosts, medians of {options.rounds} rounds; aim: within {AIM}",
        ["link", "size", "raw socket with TLS ms", "pepper ms", "to the raw socket", "range"],
        rows,
    )
    return None


def _rows(rate: float, ways: dict[str, Hop], rounds: int, messages: int) -> list[list[str]]:
    rows = []
    for count in SIZES:
        found: list[dict[str, float]] = []
        for _ in range(rounds + 1):
            found.append({})
            for name, hop in ways.items():
                taken = []
                for _ in range(messages):
                    time.sleep(PAUSE_S)
                    taken.append(hop(count))
                found[-1][name] = median(taken)
        del found[0]  # it warms up
        ratios = sorted(each["pepper"] / each["raw"] for each in found)
        rows.append(
            [
                f"{rate:,.0f} Mbit/s" if rate else "unlimited",
                f"{count / 1000:,.0f} kB",
                *(f"{median(each[name] for each in found):.3f}" for name in ways),
                f"{median(ratios):.2f}",
                f"{ratios[0]:.2f} .. {ratios[-1]:.2f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
