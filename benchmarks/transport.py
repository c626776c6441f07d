"""One hop of a tensor between two stages, against a raw TCP socket and shared memory on the same machine.

All three go from a process on one core to a process on another, in interleaved rounds, and are timed from before the
sender lets go to when the receiver has an array of its own. Reference: the raw socket, which sends sixteen bytes
and the array's memory, and receives into a new array. Shared memory copies the array into a segment, tells by a pipe,
and copies it out, so that the segment is free for the next.

Copies of the array: a socket's are made by the kernel (into its buffers and out of them), the others in user space. A
stage sends from the memory of the inference's output, and runs on the memory that the stage before has written
(tests/execution/test_queues.py holds that).

    python -m benchmarks.transport
"""

import argparse
import contextlib
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, LoadConfig
from pepper.devices import host
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.fleet import Fleet, FleetDevice, Link, connected
from pepper.graph.cuts import cut_behind
from pepper.graph.load import load_graph
from pepper.graph.split import split

SIZES = (50_000, 800_000, 3_200_000)
PAUSE_S = 0.003  # between messages: each is alone on its way
FREE = Link()
Hop = Callable[[int], float]
"""Move this many bytes once; returns how long that took, in ms."""


def stages(stack: ExitStack, cores: tuple[int, int], link: Link = FREE) -> Hop:
    """Two stages of pepper, and a link; the hop between them is timed, not the driver's."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    shape = [1]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "two.onnx")
    loaded = load_graph(folder / "two.onnx")
    manifest = split(loaded, [cut_behind(loaded, 1)], folder / "parts")
    devices = {
        name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1), LoadConfig(percent=0))
        for name, core in zip("ab", cores, strict=True)
    }
    fleet = Fleet(devices, connected({("a", "b"): link}))
    pool = stack.enter_context(StagePool(fleet, composed().measure.session, 30.0))
    network = Network(pool.fleet, folder)
    stack.callback(network.close)
    runner = stack.enter_context(
        Runner(pool, network, Layout.of(manifest, folder / "parts", ["a", "b"]), time_limit_s=30.0)
    )

    def hop(count: int) -> float:
        stamps = runner.probe(count).message.stamps
        return (stamps[2].arrived - stamps[1].sent) / 1e6

    return hop


class Peer:
    """A receiver in a process of its own, and the socket or pipe to it.

    Args:
        stack: Ends it.
        cores: The sender's core (this process takes it while it sends) and the receiver's.
        target: What the receiver runs.
    """

    def __init__(self, stack: ExitStack, cores: tuple[int, int], target: Callable[[Connection, int], None]) -> None:
        self._cores = cores
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, cores[1]), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(self.pipe.close)  # which ends it
        self.hello = self.pipe.recv()
        self._arrays = {count: np.random.default_rng(0).random(count // 8) for count in SIZES}
        self._rest = os.sched_getaffinity(0)

    def timed(self, send: Callable[[np.ndarray], None], count: int) -> float:
        """Send an array of this size and ask when it was there."""
        os.sched_setaffinity(0, {self._cores[0]})
        start = time.monotonic_ns()
        send(self._arrays[count])
        end = self.pipe.recv()
        os.sched_setaffinity(0, self._rest)
        return float(end - start) / 1e6


def raw_socket(stack: ExitStack, cores: tuple[int, int]) -> Hop:
    """A TCP socket of the standard library."""
    peer = Peer(stack, cores, _receive_socket)
    connection = stack.enter_context(socket.create_connection(peer.hello))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(array: np.ndarray) -> None:
        connection.sendall(array.nbytes.to_bytes(16, "little"))
        connection.sendall(array.view(np.uint8).data)

    return lambda count: peer.timed(send, count)


def _receive_socket(pipe: Connection, core: int) -> None:
    os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname())
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := connection.recv(16, socket.MSG_WAITALL):
            array = np.empty(int.from_bytes(header, "little") // 8)
            connection.recv_into(array.data, array.nbytes, socket.MSG_WAITALL)
            pipe.send(time.monotonic_ns())


def shared_memory(stack: ExitStack, cores: tuple[int, int]) -> Hop:
    """A segment that both processes map, and a pipe to say that it is full."""
    peer = Peer(stack, cores, _receive_shared)
    segment = SharedMemory(peer.hello)
    stack.callback(segment.close)

    def send(array: np.ndarray) -> None:
        np.ndarray(array.shape, array.dtype, segment.buf)[:] = array
        peer.pipe.send_bytes(array.nbytes.to_bytes(16, "little"))

    return lambda count: peer.timed(send, count)


def _receive_shared(pipe: Connection, core: int) -> None:
    os.sched_setaffinity(0, {core})
    segment = SharedMemory(create=True, size=max(SIZES))
    try:
        pipe.send(segment.name)
        with contextlib.suppress(EOFError):  # the sender is done
            while True:
                count = int.from_bytes(pipe.recv_bytes(), "little")
                np.ndarray(count // 8, np.float64, segment.buf).copy()
                pipe.send(time.monotonic_ns())
    finally:
        segment.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=60, help="a round, of each size and way")
    options = parser.parse_args()
    allowed = host.allowed_cores()
    cores = (allowed[0], allowed[-1])
    times: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        ways = {
            "raw TCP socket": raw_socket(stack, cores),
            "shared memory": shared_memory(stack, cores),
            "pepper": stages(stack, cores),
        }
        for number in range(options.rounds + 1):
            for count in SIZES:
                for name, hop in ways.items():
                    taken = []
                    for _ in range(options.messages):
                        time.sleep(PAUSE_S)
                        taken.append(hop(count))
                    if number:  # the first round warms up
                        times.setdefault((name, count), []).append(median(taken))
    rows = []
    for count in SIZES:
        raw = times["raw TCP socket", count]
        for name, copies in (("raw TCP socket", 2), ("shared memory", 2), ("pepper", 1)):
            found = times[name, count]
            ratios = sorted(a / b for a, b in zip(found, raw, strict=True))
            rows.append(
                [
                    f"{count / 1000:,.0f} kB",
                    name,
                    f"{median(found):.3f}",
                    f"{median(ratios):.2f}",
                    f"{ratios[0]:.2f} .. {ratios[-1]:.2f}",
                    f"{copies}",
                ]
            )
    print_table(
        f"one hop between processes on cores {cores[0]} and {cores[1]}, medians of {options.rounds} rounds",
        ["size", "way", "ms", "to the raw socket", "range", "copies"],
        rows,
    )


if __name__ == "__main__":
    main()
