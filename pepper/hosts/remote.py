"""Hosts that joined a head, as this process reaches them."""

import contextlib
import json
import math
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

from pydantic import TypeAdapter

import pepper
from pepper.config import DeviceConfig
from pepper.devices.calibration import Calibration
from pepper.devices.device import DeviceSpec
from pepper.errors import DeviceError, HostLostError, PepperError, nearest
from pepper.hosts import engine
from pepper.hosts.bundles import Bundle
from pepper.hosts.host import Host
from pepper.hosts.operations import found_in, perform
from pepper.interrupts import check

_LOOK_S = 0.5
_SPEC, _CALIBRATION = TypeAdapter(DeviceSpec), TypeAdapter(Calibration)


class Joined:
    """The hosts of a head, used as a context.

    Args:
        bundle: What lets this process in.
        patience_s: How long a host that is away is waited for.

    Raises:
        DeviceError: The head does not answer, or does not take this bundle.
    """

    def __init__(self, bundle: Bundle, patience_s: float) -> None:
        self._bundle = bundle
        self._patience_s = patience_s
        self._client = engine.connect(bundle)
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._present: dict[str, dict[str, Any]] = {}
        self._looked_s = -math.inf
        self._known: set[str] = set()
        self._given_up: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the head."""
        engine.disconnect(self._client)

    def present(self) -> dict[str, dict[str, Any]]:
        """Return what the head knew, a moment ago, of the hosts that are there, by name; nothing while it is away."""
        with self._looking:  # for all who wait for hosts: the head says all that it knows of hundreds
            if time.monotonic() - self._looked_s > _LOOK_S:
                self._present, self._looked_s = engine.hosts_of(self._client), time.monotonic()
                self._known |= _names(self._present)
            return self._present

    def members(self, where: str) -> list[str]:
        """Return which hosts are there of a name, or of a kind."""
        return sorted(name for name, host in self.present().items() if where in {name, *engine.kinds_of(host)})

    def require(self, where: str, key: str = "device.host") -> None:
        """Make sure that a host, or one of a kind, is there; one that was there before is waited for.

        Args:
            where: Its name, or a kind.
            key: What names it in the configuration.

        Raises:
            HostLostError: It is away for longer than that.
            DeviceError: There was none; the message names the nearest, or the head does not answer.
        """
        seen_s = time.monotonic()
        while not self.members(where):
            if where in self._known:
                check()
                time.sleep(_LOOK_S)
                seen_s = self._seen(where, seen_s)
                with contextlib.suppress(DeviceError):
                    self.reach_again()
            elif engine.connected(self._client):
                there = _names(self.present())
                hint = nearest(where, there) or f"; there are: {', '.join(sorted(there)) or 'none'}"
                raise DeviceError(f"{key}={where}: has not joined{hint}")
            else:
                self.reach_again()

    @property
    def head(self) -> str:
        """The address of the head."""
        return self._bundle.address

    def address_of(self, host: str) -> str:
        """Return the address that a host joined from.

        Raises:
            DeviceError: As of `require`.
        """
        while (found := self.present().get(host)) is None:
            self.require(host)
        return engine.address_of(found)

    @contextlib.contextmanager
    def stream(self, host: str, port: int) -> Iterator[ssl.SSLSocket]:
        """Connect to a port of a host straight, with certificates on both sides, until the block's end."""
        tls = engine.own_connecting(self._client)
        with (
            socket.create_connection((self.address_of(host), port), timeout=engine.CONNECT_S) as plain,
            tls.wrap_socket(plain) as peer,
        ):
            yield peer

    def ask(self, where: str, operation: str, *, once: str | None = None, **request: Any) -> Any:
        """Return what a host found; see `exchange`."""
        return self.exchange(where, operation, once=once, **request)[0]

    def exchange(
        self,
        where: str,
        operation: str,
        pieces: Sequence[bytes] = (),
        *,
        once: str | None = None,
        still: Callable[[], None] = check,
        **request: Any,
    ) -> tuple[Any, list[bytes]]:
        """Return what a host found, and the pieces that go with it; one that is lost meanwhile is asked again, when it
        is back or in the person of another one of its kind.

        Args:
            where: Its name, or a kind.
            operation: One of `pepper.hosts.operations.OPERATIONS`.
            pieces: Bytes that go with the request.
            once: The key of something that is measured: it waits for what else is measured there.
            still: Called now and then meanwhile; what it raises ends the wait, and the measuring.
            **request: The operation's arguments, JSON-able.

        Raises:
            HostLostError: It is away for longer than it is waited for.
            PepperError: The one that it raised there.
        """
        seen_s = time.monotonic()
        given = operation, json.dumps(request), list(pieces), once
        while True:
            try:
                future = engine.submit(self._client, where, perform, *given, measures=once is not None)
                try:
                    while (answer := engine.answer_within(future, _LOOK_S)) is None:
                        still()
                        seen_s = self._seen(where, seen_s)
                except engine.LostError:
                    raise
                except BaseException:
                    if once is not None:
                        self._stop(where, once)
                    raise
                finally:
                    engine.cancel(future)
                return found_in(answer)
            except engine.LostError:
                still()
                time.sleep(_LOOK_S)
                seen_s = self._seen(where, seen_s)
                with contextlib.suppress(DeviceError):  # where the head is still away, it is looked for again
                    self.reach_again()

    def _stop(self, where: str, once: str) -> None:
        """Tell the hosts that nobody waits for an answer any more, without waiting for theirs."""
        for host in self.members(where):
            with contextlib.suppress(engine.LostError):
                engine.forget(
                    engine.submit(
                        self._client, host, perform, "stop", json.dumps({"once": once}), [], None, measures=False
                    )
                )

    def _seen(self, where: str, before_s: float) -> float:
        """Return when a host was last there; one that was given up is not waited for again."""
        now_s = time.monotonic()
        if self.members(where):
            self._given_up.discard(where)
            return now_s
        if now_s - before_s > self._patience_s or where in self._given_up:
            self._given_up.add(where)
            raise HostLostError(f"host lost: {where} was away for {self._patience_s:g} s (hosts.patience_seconds)")
        return before_s

    def reach_again(self) -> None:
        """Connect to the head again, where the connection was given up.

        Raises:
            DeviceError: It does not answer.
        """
        with self._lock:
            if not engine.connected(self._client):
                self._client, self._looked_s = engine.connect(self._bundle), -math.inf


def _names(present: Mapping[str, dict[str, Any]]) -> set[str]:
    """Return the names of hosts that are there, and their kinds."""
    return {*present, *(kind for host in present.values() for kind in engine.kinds_of(host))}


class RemoteHost(Host):
    """A host that joined, or any one of a kind of equal ones.

    Args:
        name: Its name, or ``kind:KIND``.
        joined: The hosts of its head.
    """

    def __init__(self, name: str, joined: Joined) -> None:
        self.name = name
        self._joined = joined

    def facts(self) -> dict[str, Any]:
        """Return what it is."""
        return dict(self._joined.ask(self.name, "facts"))

    def state(self) -> dict[str, Any]:
        """Return the state that it is in."""
        return dict(self._joined.ask(self.name, "state"))

    def addresses(self) -> set[str]:
        """Return its name, and the address that it joined from."""
        present = self._joined.present()
        joined_from = {engine.address_of(present[name]) for name in self._joined.members(self.name) if name in present}
        return {self.name, *joined_from}

    def cores(self) -> list[int]:
        """Return the cores that programs may use there."""
        return list(self._joined.ask(self.name, "cores"))

    def installed(self, program: str) -> bool:
        """Return whether a program is installed there."""
        return bool(self._joined.ask(self.name, "installed", program=program))

    def resolve(self, config: DeviceConfig) -> DeviceSpec:
        """Fill in a device's cores and threads, as it is there."""
        device = asdict(replace(config, host=None))
        while not (hosts := self._joined.members(self.name)):
            self._joined.require(self.name)
        specs = [_SPEC.validate_python(self._resolved(host, device)) for host in hosts]
        if len({spec.identity for spec in specs}) > 1:
            raise DeviceError(
                f"device.host={self.name}: its hosts differ in processor, cores, memory, provider or onnxruntime; give"
                " them kinds of their own (hosts.kind of task=join)"
            )
        return replace(specs[0], host=self.name, name=f"{config.name}@{self.name}")

    def _resolved(self, host: str, device: dict[str, Any]) -> dict[str, Any]:
        with _speaking(host):
            return dict(self._joined.ask(host, "resolve", device=device, version=pepper.__version__))

    def calibrate(self, spec: DeviceSpec, *, renew: bool = False) -> Calibration:
        """Return a device's characteristics, measured there."""
        given, once = asdict(there(spec)), uuid.uuid4().hex
        with _speaking(self.name):
            found = self._joined.ask(self.name, "calibrate", once=once, spec=given, renew=renew)
        return _CALIBRATION.validate_python(found)

    def busy_percent(self, spec: DeviceSpec, seconds: float = 1.0) -> float:
        """Return how much of the device's cores is used there right now."""
        return float(self._joined.ask(self.name, "busy_percent", spec=asdict(there(spec)), seconds=seconds))


@contextlib.contextmanager
def _speaking(host: str) -> Iterator[None]:
    """Name the host whose error speaks of "this machine", or of what it has installed."""
    try:
        yield
    except HostLostError:
        raise
    except PepperError as error:
        raise type(error)(f"host {host}: {error}") from error


def unresolved(config: DeviceConfig) -> DeviceSpec:
    """Return what is known of a device whose host is lost."""
    return DeviceSpec(
        name=f"{config.name}@{config.host}",
        machine="",
        kind=config.kind,
        cores=tuple(config.cores or ()),
        threads=config.threads or len(config.cores or ()),
        provider=config.provider,
        share=config.share,
        throttle=config.throttle,
        period_ms=config.period_ms or 0.0,
        memory_bytes=config.memory_bytes,
        host=config.host,
    )


def there(spec: DeviceSpec) -> DeviceSpec:
    """Return a device as its own host calls it."""
    return replace(spec, host=None, onnxruntime=None)
