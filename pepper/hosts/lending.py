"""Devices that a host lends to another one, for as long as it stays connected.

The first connection to the port of a loan is asked of the devices themselves, each further one starts a program and
hands on what is asked of that. With the first connection all ends.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from select import select
from typing import Any

from pydantic import TypeAdapter

from pepper.devices.device import Device, DeviceSpec, Program
from pepper.devices.protocol import Arrays, GarbledError, answer, receive, send
from pepper.errors import DeviceError, MeasureError
from pepper.hosts import engine, ports
from pepper.hosts.channel import HostChannel
from pepper.hosts.host import UseMeter
from pepper.hosts.local import here

WAIT_S = 10.0
PROGRAMS = ("pepper.execution.stage", "pepper.measure.generator")
"""What may be started on a device that is lent."""


_SPEC = TypeAdapter(DeviceSpec)
_lending: list[str] = []


def lent() -> list[str]:
    """Return, in words, what is lent right now."""
    return list(_lending)


def lend(specs: list[dict[str, Any]]) -> dict[str, Any]:
    """Lend devices to whoever connects first, over TLS with certificates on both sides.

    Args:
        specs: The devices; their names differ.

    Returns:
        ``port``: where to connect to; ``ports``: those at which programs may listen, the first and the last.

    Raises:
        ConfigError: They cannot be used at the same time.
        DeviceError: No port is free.
    """
    found = [_SPEC.validate_python(spec) for spec in specs]
    devices = {device.spec.name: device for device in here().devices(found)}
    server = ports.listening(16)
    server.settimeout(WAIT_S)
    threading.Thread(target=_lent, args=(server, engine.own_listening(), devices), daemon=True).start()
    return {"port": server.getsockname()[1], "ports": ports.allowed()}


def _lent(server: socket.socket, tls: ssl.SSLContext, devices: Mapping[str, Device]) -> None:
    """Serve a loan to its end."""
    with server, contextlib.suppress(OSError), ExitStack() as stack:
        first = _channel(server.accept()[0], tls)
        stack.callback(first.close)
        words = f"lends {', '.join(devices)}"
        _lending.append(words)
        stack.callback(_lending.remove, words)
        # The kernel ends a process with the thread that has started it: this one lasts as long as the loan.
        hand = stack.enter_context(ThreadPoolExecutor(1, "pepper-lent"))
        for device in devices.values():
            stack.enter_context(device)
        asked = _Asked(devices)
        while True:
            ready, _, _ = select([server.fileno(), first.fileno()], [], [])
            if server.fileno() in ready:
                threading.Thread(target=_runs, args=(server.accept()[0], tls, devices, hand), daemon=True).start()
            if first.fileno() in ready and not _answered(first, asked.handlers):
                return


def _channel(plain: socket.socket, tls: ssl.SSLContext) -> HostChannel:
    plain.settimeout(WAIT_S)
    return HostChannel(tls.wrap_socket(plain, server_side=True), WAIT_S)


def _answered(channel: HostChannel, handlers: Mapping[str, Any]) -> bool:
    """Answer a request; returns whether there can be another one."""
    try:
        return answer(channel, handlers)
    except (OSError, SystemExit):  # the other end is lost, or sends what is no request
        return False


class _Asked:
    """Answers what is asked of the devices of a loan."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = devices
        self._meters: list[UseMeter] = []
        names = ("clock", "given", "throttle", "meter", "read")
        self.handlers = {name: getattr(self, name) for name in names}

    def clock(self) -> dict[str, Any]:
        """Return this host's monotonic clock, ns."""
        return {"at_ns": time.monotonic_ns()}

    def given(self, device: str) -> dict[str, Any]:
        """Return how long the device's programs were let run, and that span; see `Device.given`."""
        return {"given": self._devices[device].given()}

    def throttle(self, device: str) -> dict[str, Any]:
        """Return what holds the device's programs to its share."""
        return {"method": self._devices[device].throttle_method}

    def meter(self) -> dict[str, Any]:
        """Watch the cores of all devices from now on; returns the number of the meter."""
        self._meters.append(here().meter([device.spec for device in self._devices.values()], own=True))
        return {"meter": len(self._meters) - 1}

    def read(self, meter: int) -> dict[str, Any]:
        """Return what became of the devices' cores since the meter was read last."""
        return {name: asdict(use) for name, use in self._meters[meter].read().items()}


def _runs(plain: socket.socket, tls: ssl.SSLContext, devices: Mapping[str, Device], hand: ThreadPoolExecutor) -> None:
    """Start the program that a connection asks for, and hand on what is asked of it, until either has ended."""
    # A RuntimeError: the loan has just ended.
    with contextlib.suppress(OSError, EOFError, GarbledError, RuntimeError), ExitStack() as stack:
        channel = _channel(plain, tls)
        stack.callback(channel.close)
        wanted, _ = receive(channel)
        if wanted.get("module") not in PROGRAMS or wanted.get("device") not in devices:
            send(channel, {"error": f"MeasureError: {wanted.get('module')}: is not started for another host"})
            channel.await_end()
            return
        program = hand.submit(devices[wanted["device"]].start, wanted["module"], wanted.get("core")).result()
        stack.callback(program.end)
        handlers = _handlers(program, hand)
        while True:
            ready, _, _ = select([channel.fileno(), *program.ends()], [], [])
            if channel.fileno() in ready:
                if not _answered(channel, handlers):
                    return
            else:
                send(channel, {"error": _last_words(program)})
                channel.await_end()
                return


def _handlers(program: Program, hand: ThreadPoolExecutor) -> Mapping[str, Any]:
    def request(wanted: str, timeout_s: float, fields: dict[str, Any], **arrays: Any) -> tuple[Any, Arrays]:
        return program.request(wanted, timeout_s=timeout_s, arrays=arrays, **fields)

    def confine(wants: float | None) -> None:
        hand.submit(program.confine, wants).result()

    return {"request": request, "confine": confine, "pause": program.pause}


def _last_words(program: Program) -> str:
    try:
        program.request("ready", timeout_s=WAIT_S)
    except (MeasureError, DeviceError) as error:
        return f"{type(error).__name__}: {error}"
    return f"MeasureError: {program.module}: what it depends on has ended"
