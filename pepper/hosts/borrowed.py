"""Devices of another host in use here: what is asked of them and of their programs goes over connections of their own.

What programs say of a time is by their host's clock; how far that is ahead is measured (`Borrowed.ahead_ns`).
"""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from pepper import errors
from pepper.devices.device import Command, Device, DeviceSpec, Program
from pepper.devices.protocol import Arrays, GarbledError, Json, receive, send
from pepper.errors import ConfigError, DeviceError, MeasureError
from pepper.hosts.channel import HostChannel
from pepper.hosts.host import CoreUse, UseMeter
from pepper.hosts.remote import Joined, there
from pepper.interrupts import wait_readable

_ANSWER_S = 30.0
_WAY_S = 5.0  # what the way there and back may add to a program's own time limit
_TRIPS = 8


class Borrowed:
    """The devices of a host that joined, lent to this process, used as a context.

    Args:
        joined: The hosts of its head.
        name: The host's.
        specs: The devices; their names differ.

    Attributes:
        name: The host's.
        address: Where it is, as others reach it.
        ports: At which its programs may listen for others, the first and the last.
        own_address: Where this machine is, as that host reaches it.
        devices: The devices, by name.

    Raises:
        ConfigError: They cannot be used at the same time.
        DeviceError: The host is lost, or cannot be reached straight.
    """

    def __init__(self, joined: Joined, name: str, specs: Sequence[DeviceSpec]) -> None:
        self.name = name
        self._joined = joined
        self._lock = threading.Lock()
        self._stack = ExitStack()
        loan = joined.ask(name, "lend", specs=[asdict(there(spec)) for spec in specs])
        self._port, (low, high) = int(loan["port"]), loan["ports"]
        self.ports = int(low), int(high)
        try:
            peer = self._stack.enter_context(joined.stream(name, self._port))
        except OSError as error:
            raise DeviceError(
                f"host {name}: cannot be reached straight ({errors.refusal(error)}); open the way to it (hosts.ports)"
            ) from error
        self.address, self.own_address = str(peer.getpeername()[0]), str(peer.getsockname()[0])
        self._channel = HostChannel(peer, _ANSWER_S)
        self.devices = {spec.name: BorrowedDevice(self, spec) for spec in specs}

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask something of the devices.

        Raises:
            DeviceError: The host is lost.
        """
        try:
            with self._lock:
                send(self._channel, {"op": op, **fields})
                message, _ = receive(self._channel)
        except (OSError, EOFError, GarbledError) as error:
            raise DeviceError(f"host lost: {self.name} does not answer") from error
        if "error" in message:
            raise DeviceError(f"host {self.name}: {message['error']}")
        return dict(message["result"])

    def connect(self) -> tuple[HostChannel, ExitStack]:
        """Return one more connection, and what ends it.

        Raises:
            OSError: There is none to be had.
            DeviceError: The host is lost.
        """
        stack = ExitStack()
        return HostChannel(stack.enter_context(self._joined.stream(self.name, self._port)), _ANSWER_S), stack

    def ahead_ns(self) -> tuple[int, int]:
        """Return how far the host's monotonic clock is ahead of this one's, ns, and how far off that may be: half of
        the shortest of some round trips.

        Raises:
            DeviceError: The host is lost.
        """
        trips = []
        for _ in range(_TRIPS):
            sent = time.monotonic_ns()
            at = int(self.ask("clock")["at_ns"])
            got = time.monotonic_ns()
            trips.append((got - sent, at - (sent + got) // 2))
        trip, ahead = min(trips)
        return ahead, trip // 2

    def meter(self) -> UseMeter:
        """Watch the cores of the devices from now on."""
        return _Meter(self)

    def close(self) -> None:
        """Give the devices back: their programs end."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Meter(UseMeter):
    def __init__(self, borrowed: Borrowed) -> None:
        self._borrowed = borrowed
        self._number = borrowed.ask("meter")["meter"]

    def read(self) -> dict[str, CoreUse]:
        """Return what became of the devices' cores; nothing did where the host is lost."""
        try:
            return {name: CoreUse(**use) for name, use in self._borrowed.ask("read", meter=self._number).items()}
        except DeviceError:
            return dict.fromkeys(self._borrowed.devices, CoreUse(1.0, 0.0, 0.0, 0.0, 0))


class BorrowedDevice(Device):
    """A device of another host; it is given back with all others of that host."""

    def __init__(self, borrowed: Borrowed, spec: DeviceSpec) -> None:
        self.spec, self.host = spec, borrowed.name
        self.lender = borrowed
        self._programs: list[BorrowedProgram] = []

    def start(self, module: str, core: int | None = None) -> Program:
        """Start a program there."""
        self._programs.append(BorrowedProgram(self.lender, self.spec.name, module, core))
        return self._programs[-1]

    def run(self, command: Sequence[str], cores: int) -> Command:
        """Refuse: only pepper's own programs are started for others.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{command[0]}: cannot be started on the host {self.host} for a plan; choose a load of"
            " load.generator=pepper, or idle"
        )

    @property
    def throttle_method(self) -> str:
        """What holds the programs to the share there."""
        return str(self.lender.ask("throttle", device=self.spec.name)["method"])

    def given(self) -> tuple[float, float] | None:
        """Return how long its programs were let run, and that span; None, too, where the host is lost."""
        try:
            found = self.lender.ask("given", device=self.spec.name)["given"]
        except DeviceError:
            return None
        return None if found is None else (float(found[0]), float(found[1]))

    def close(self) -> None:
        """End its programs."""
        for program in self._programs:
            program.end()


class BorrowedProgram(Program):
    """A program at work on another host: a connection stands for it, and is closed there when it ends."""

    def __init__(self, borrowed: Borrowed, device: str, module: str, core: int | None) -> None:
        self.module = module
        self._host = borrowed.name
        self._channel: HostChannel | None = None
        try:
            self._channel, self._stack = borrowed.connect()
            send(self._channel, {"device": device, "module": module, "core": core})
        except (OSError, DeviceError):
            self.end()

    def request(
        self, op: str, *, timeout_s: float, arrays: Arrays | None = None, **fields: Any
    ) -> tuple[Json, dict[str, Any]]:
        """Send a request and wait for its answer, as a program on this machine does."""
        given = {"wanted": op, "timeout_s": timeout_s, "fields": fields}
        return self._asked("request", op, timeout_s + _WAY_S, given, arrays)

    def _asked(
        self, what: str, op: str, wait_s: float, given: dict[str, Any], arrays: Arrays | None = None
    ) -> tuple[Json, dict[str, Any]]:
        if self._channel is None:
            raise MeasureError(f"{self.module}: host lost: {self._host} does not answer {op!r}")
        try:
            send(self._channel, {"op": what, **given}, arrays)
            if not wait_readable([self._channel.fileno()], round(1000 * wait_s)):
                raise TimeoutError
            message, answered = receive(self._channel)
        except (OSError, EOFError, GarbledError) as error:
            self.end()
            raise MeasureError(f"{self.module}: host lost: {self._host} does not answer {op!r}") from error
        if isinstance(result := message.get("result"), dict):
            return result, answered
        kind, _, said = str(message.get("error")).partition(": ")
        raise getattr(errors, kind, MeasureError)(f"host {self._host}: {said}")

    def confine(self, wants: float | None = None) -> None:
        """Hold it to the device's limits from now on."""
        self._asked("confine", "confine", _ANSWER_S, {"wants": wants})

    def pause(self) -> None:
        """Let it take no time of the device until it is confined again."""
        if self.alive:
            try:
                self._asked("pause", "pause", _ANSWER_S, {})
            except MeasureError:  # whoever wants it next will notice
                self.end()

    @property
    def alive(self) -> bool:
        """Whether nothing was heard of its end: between requests nothing else comes."""
        return self._channel is not None and not self._channel.ready()

    def ends(self) -> list[int]:
        """Return the connection's descriptor."""
        return [] if self._channel is None else [self._channel.fileno()]

    def end(self) -> None:
        """End it now, by closing its connection."""
        if self._channel is not None:
            self._channel = None
            self._stack.close()
