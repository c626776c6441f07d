"""What do hosts that joined cost? Time a block beyond a local one, shipping a model, and scheduling for many hosts.

Block: one cell, in turn by this process and by a host on this machine that holds the model. Model: random weights, sent
to a host behind a link of a given rate (a network namespace with `tbf`; needs the rights for that); reference: the same
bytes over a plain TCP socket on the same link, in the same run. Hosts: many that joined, several in a process, are
listed and given a block each, which does nothing, twice: at first their programs load what they need. The aims: 0.5 s a
block, 90 % of the socket's rate and once only, and 20 ms a block.

    python -m benchmarks.remote_overhead --hosts 200 --rate 1gbit
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import composed, print_table
from benchmarks.joined import JoinedHosts, joined
from benchmarks.namespaces import linked, shaped
from benchmarks.remote_fidelity import once
from pepper.config import ModelConfig
from pepper.graph.model import ModelFile, find_model
from pepper.hosts.local import here
from pepper.measure.block import Block
from pepper.measure.sent import ship

_RECEIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as peer:
    while peer.recv(2**20):
        pass
"""


def blocks(folder: Path, rounds: int) -> list[str]:
    """Return what a block costs, locally and on a host."""
    with joined(folder, ["host"]) as there:
        config = composed("model=squeezenet", "device.threads=1", "measure=quick")
        device = here().resolve(config.device)
        local = Block(find_model(config.model), device, config.measure, (config.load,))
        away = replace(local, device=replace(device, host="host"))
        once(away, there.hosts)
        beyond = []
        for _ in range(rounds):
            walls = []
            for block, hosts in ((local, None), (away, there.hosts)):
                begun_s = time.perf_counter()
                profile = once(block, hosts)
                timed_s = profile.metrics["timed_s"] + profile.metrics["warmup_s"]
                walls.append(time.perf_counter() - begun_s - timed_s)
            beyond.append(walls)
        here_s, there_s = (median(each[side] for each in beyond) for side in (0, 1))
    return ["a block, s beyond warm-up and timing", f"{here_s:.3f}", f"{there_s:.3f}", f"{there_s - here_s:+.3f} s"]


def model(folder: Path, megabytes: int) -> ModelFile:
    """Write a model of random weights."""
    weight = np.random.default_rng(0).random((megabytes * 250, 1000), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, megabytes * 250])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
        [numpy_helper.from_array(weight, "w")],
    )
    file = folder / "heavy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return find_model(ModelConfig(str(file)))


def shipping(folder: Path, megabytes: int, rate: str) -> list[str]:
    """Return how fast a model reaches a host behind a link, and a plain socket's rate there."""
    heavy = model(folder, megabytes)
    size = heavy.file.stat().st_size
    with linked() as space, joined(folder, ["host"], [space]) as there:
        shaped(space.device, rate)
        with socket.create_server((space.here, 0)) as server:
            port = str(server.getsockname()[1])
            receive = [*space.within, sys.executable, "-c", _RECEIVE, space.here, port]
            with subprocess.Popen(receive) as reader:
                peer, _ = server.accept()
                begun_s = time.perf_counter()
                with peer, heavy.file.open("rb") as stream:
                    peer.sendfile(stream)
                reader.wait()
            raw_s = time.perf_counter() - begun_s
        begun_s = time.perf_counter()
        ship(there.hosts, "host", heavy)
        first_s = time.perf_counter() - begun_s
        begun_s = time.perf_counter()
        ship(there.hosts, "host", heavy)
        again_s = time.perf_counter() - begun_s
    rates = [size / 1e6 / seconds for seconds in (raw_s, first_s)]
    said = f"{100 * rates[1] / rates[0]:.0f} %; again {1000 * again_s:.0f} ms"
    return [f"{megabytes} MB over {rate}, MB/s", *(f"{each:.1f}" for each in rates), said]


def many(folder: Path, count: int) -> list[str]:
    """Return what listing many hosts takes, and giving each a block."""
    names = [f"host{number}" for number in range(count)]
    with joined(folder, names) as there:
        begun_s = time.perf_counter()
        listed = len(there.hosts.present())
        list_s = time.perf_counter() - begun_s
        first_ms, later_ms = (_block_ms(there, names) for _ in range(2))
    said = f"listed in {1000 * list_s:.0f} ms", f"{first_ms:.1f} ms a block, then {later_ms:.1f}"
    return [f"{listed} hosts, a block each, twice", "", *said]


def _block_ms(there: JoinedHosts, names: list[str]) -> float:
    """Return how long an empty block takes, of one for each host at the same time."""
    begun_s = time.perf_counter()
    with ThreadPoolExecutor(len(names)) as pool:
        asked = [pool.submit(there.hosts.ask, name, "cores", once=uuid.uuid4().hex) for name in names]
        if not all(each.result() for each in asked):
            raise SystemExit("a host has no cores")
    return 1000 * (time.perf_counter() - begun_s) / len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="of local and remote blocks")
    parser.add_argument("--megabytes", type=int, default=100, help="of the model")
    parser.add_argument("--rate", default="1gbit", help="of the link that the model goes over, as tc writes it")
    parser.add_argument("--hosts", type=int, default=200, help="that join at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("block", "model", "hosts")]
        for folder in folders:
            folder.mkdir()
        lines = [
            blocks(folders[0], options.rounds),
            shipping(folders[1], options.megabytes, options.rate),
            many(folders[2], options.hosts),
        ]
    print_table("hosts that joined", ["", "reference", "hosts", "difference"], lines)


if __name__ == "__main__":
    main()
