"""Is a link in software what the kernel makes of the same one?

For each link, a tensor goes from one stage of pepper to another over pepper's link in software, and over a TCP socket
from one network namespace to another, between which the kernel holds the same bandwidth and latency: tc-netem(8)
where the kernel has it; else tc-tbf(8), which knows no latency, so that both sides then have none. Reference: the
kernel's link. Single messages on an idle link, in interleaved rounds, timed from before the sender lets go to when the
receiver has all of it.

The bandwidth of pepper's links is that of payload; the kernel's counts the headers, and gets that much more.

Needs root and iproute2.

    python -m benchmarks.links
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median

from benchmarks.common import composed, print_table
from benchmarks.namespaces import BURST_BYTES, FRAME, LIMIT_BYTES, PAYLOAD
from benchmarks.transport import SIZES, Hop, stages
from pepper.devices import host
from pepper.fleet import Link

LINKS = ("ethernet_1gbit", "ethernet_100mbit", "wifi", "lte")
ADDRESSES = ("10.83.0.1", "10.83.0.2")
PORT = 5000
PAUSE_S = 0.02  # between messages: the link is idle, and its bucket full


class Namespaces:
    """Two hosts on this machine, joined by a pair of virtual Ethernet devices.

    Args:
        stack: Takes them away.

    Raises:
        OSError: There is no ip(8), or it may not do that.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.names = tuple(f"pepper{os.getpid()}{end}" for end in "ab")
        for name in self.names:
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        a, b = self.names
        _run("ip", "link", "add", "eth", "netns", a, "type", "veth", "peer", "name", "eth", "netns", b)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth")
            _run("ip", "-n", name, "link", "set", "eth", "up")
        self.netem = self._has_netem()

    def _has_netem(self) -> bool:
        with contextlib.suppress(OSError):
            self._shape("netem", "delay", "1ms")
            return True
        return False

    def shape(self, link: Link) -> None:
        """Give both directions the link's bandwidth and, with netem, its latency."""
        assert link.bandwidth_mbit_s is not None
        rate = f"{link.bandwidth_mbit_s * FRAME / PAYLOAD:.6f}mbit"
        if self.netem:
            self._shape("netem", "rate", rate, "delay", f"{link.latency_ms}ms", "limit", f"{LIMIT_BYTES // FRAME}")
        else:
            self._shape("tbf", "rate", rate, "burst", f"{BURST_BYTES}", "limit", f"{LIMIT_BYTES}")

    def _shape(self, *discipline: str) -> None:
        for name in self.names:
            _run("tc", "-n", name, "qdisc", "replace", "dev", "eth", "root", *discipline)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class End:
    """A process in a namespace that sends or receives what it is asked to.

    Args:
        stack: Ends it.
        namespace: Where it is.
        core: Its core.
        role: ``send`` or ``receive``.
    """

    def __init__(self, stack: ExitStack, namespace: str, core: int, role: str) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "benchmarks.links"]
        self._process = subprocess.Popen(
            [*command, "--role", role, "--core", f"{core}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.enter_context(self._process)
        stack.callback(self._process.terminate)
        self.answer()

    def ask(self, count: int) -> None:
        """Have it send or receive this many bytes."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)

    def answer(self) -> int:
        """Return when it began to send, or had received all (ns)."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def kernel(stack: ExitStack, cores: tuple[int, int], namespaces: Namespaces) -> Hop:
    """A TCP socket from the one namespace to the other."""
    receiver = End(stack, namespaces.names[1], cores[1], "receive")
    sender = End(stack, namespaces.names[0], cores[0], "send")

    def hop(count: int) -> float:
        receiver.ask(count)
        sender.ask(count)
        return (receiver.answer() - sender.answer()) / 1e6

    return hop


def _end(role: str, core: int) -> None:
    """Be an end: read sizes from standard input, and write times to standard output."""
    os.sched_setaffinity(0, {core})
    if role == "send":
        connection = socket.create_connection((ADDRESSES[1], PORT))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(time.monotonic_ns(), flush=True)
    else:
        server = socket.create_server((ADDRESSES[1], PORT))
        print(time.monotonic_ns(), flush=True)
        connection, _ = server.accept()
    for line in sys.stdin:
        count = int(line)
        data = memoryview(bytearray(count))
        at_ns = time.monotonic_ns()
        if role == "send":
            connection.sendall(data)
        else:
            connection.recv_into(data, count, socket.MSG_WAITALL)
            at_ns = time.monotonic_ns()
        print(at_ns, flush=True)


def _measure(hop: Hop, count: int, messages: int) -> float:
    hop(count)  # windows open, buffers are there
    times = []
    for _ in range(messages):
        time.sleep(PAUSE_S)
        times.append(hop(count))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", nargs="+", default=list(LINKS), help=f"options of link (default: {' '.join(LINKS)})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=3, help="a round, of each link, size and way")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        return _end(options.role, options.core)
    allowed = host.allowed_cores()
    cores = (allowed[0], allowed[-1])
    rows = []
    with ExitStack() as stack:
        try:
            namespaces = Namespaces(stack)
        except OSError as error:
            sys.exit(f"no network namespaces here ({error}); run this as root where iproute2 is installed")
        namespaces.shape(Link(bandwidth_mbit_s=1000.0))
        through_kernel = kernel(stack, cores, namespaces)
        for name in options.links:
            config = composed(f"link={name}").link
            link = Link(config.bandwidth_mbit_s, config.latency_ms if namespaces.netem else 0.0)
            namespaces.shape(link)
            with ExitStack() as inner:
                ways: dict[str, Hop] = {"kernel": through_kernel, "pepper": stages(inner, cores, link)}
                rows += _rows(name, link, ways, options.rounds, options.messages)
    discipline = "netem" if namespaces.netem else "tbf (this kernel has no netem: no latency)"
    print_table(
        f"the kernel's links by {discipline}, medians of {options.rounds} rounds",
        ["link", "size", "by bandwidth ms", "kernel ms", "pepper ms", "to the kernel's", "range"],
        rows,
    )
    return None


def _rows(name: str, link: Link, ways: dict[str, Hop], rounds: int, messages: int) -> list[list[str]]:
    rows = []
    for count in SIZES:
        found = [{way: _measure(hop, count, messages) for way, hop in ways.items()} for _ in range(rounds)]
        ratios = sorted(times["pepper"] / times["kernel"] for times in found)
        rows.append(
            [
                name,
                f"{count / 1000:,.0f} kB",
                f"{link.transfer_ms(count):.2f}",
                *(f"{median(times[way] for times in found):.2f}" for way in ways),
                f"{median(ratios):.2f}",
                f"{ratios[0]:.2f} .. {ratios[-1]:.2f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
