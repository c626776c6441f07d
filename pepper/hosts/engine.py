"""The engine between a head and the hosts that join it: Dask distributed, over TLS with certificates on both sides.

It is told to stay out of a measurement's way: no profiler, no dashboard, no spilling, one heartbeat in some seconds.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import logging
import math
import os
import ssl
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pepper.config.hosting import HERE, KIND
from pepper.errors import ConfigError, DeviceError
from pepper.hosts import ports, steady_clock
from pepper.hosts.bundles import Bundle
from pepper.hosts.trust import Trust
from pepper.interrupts import check

CONNECT_S = 10
_LOOK_S = 0.5  # for a signal, and for the head
_WITHDRAWN, _ASK_S = "withdrawn", 2.0  # what hosts ask the head, and how often
_NOW = "now"  # and clients: by which clock it says when it heard of hosts
_QUERIES, _BLOCKS = "asked", "measures"
_CALLS = 4  # at a time: one measures, others wait for that, and one answers meanwhile
_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.worker-ttl": "1s",  # looked for each second; lost is who was silent for ten heartbeats: 5 s
    "distributed.scheduler.allowed-failures": 10,
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.comm.timeouts.tcp": "12s",
    "distributed.comm.retry.count": 0,
    "distributed.logging.distributed": "critical",
}
_NO_HTTP = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # it wants a port, and serves nothing there


def head(bundle: Bundle, withdrawn: Callable[[], str], ready: Callable[[], None]) -> None:
    """Be the head, until a signal comes.

    Args:
        bundle: The head's.
        withdrawn: Tells the list of withdrawn certificates as it is now.
        ready: Called as soon as hosts can join.

    Raises:
        ConfigError: It cannot listen there.
    """
    distributed, trust = _engine(), Trust(bundle)
    trust.refuse(withdrawn())

    def told() -> str:
        return trust.withdrawn

    async def serve() -> None:
        address, _, port = bundle.address.rpartition(":")
        try:
            scheduler = distributed.Scheduler(
                host=address, port=int(port), protocol="tls", security=_security(trust), **_NO_HTTP
            )
            scheduler.handlers |= {_WITHDRAWN: told, _NOW: steady_clock.now_s}
            await scheduler
        except (OSError, ValueError, RuntimeError) as error:  # the engine wraps what the system said
            said = str(error.__cause__ or error)
            raise ConfigError(f"hosts.address={bundle.address}: cannot listen there ({said}); give another") from error
        async with scheduler:
            ready()
            while True:
                check()
                trust.refuse(withdrawn())
                trust.end_refused(scheduler._comms)  # the engine tells of them in no other way
                await asyncio.sleep(_LOOK_S)

    asyncio.run(serve())


def join(bundle: Bundle, kind: str | None, say: Callable[[str], None]) -> None:
    """Measure for a head, until a signal comes; where it goes away, wait for it.

    The engine keeps to the first core, which devices take last.

    Args:
        bundle: What lets this host in.
        kind: What it is one of several of; None is nothing.
        say: Takes what becomes of the connection, in words.

    Raises:
        ConfigError: A host of this name is there already, or no port is free.
    """
    distributed, trust = _engine(), Trust(bundle)
    cores = sorted(os.sched_getaffinity(0))
    low, high = ports.allowed()
    address = bundle.address.rpartition(":")[0].strip("[]")
    names = [bundle.name, *([f"{KIND}{kind}"] if kind else [])]
    hands = _LastingThreadPoolExecutor(_CALLS, "pepper-asked", initializer=os.sched_setaffinity, initargs=(0, cores))

    async def serve() -> None:
        while True:
            check()
            with tempfile.TemporaryDirectory() as folder:
                worker = distributed.Worker(
                    f"tls://{bundle.address}",
                    name=bundle.name,
                    nthreads=_CALLS,
                    executor=hands,
                    resources={_needs(name, each): 1 for name in names for each in (_QUERIES, _BLOCKS)},
                    security=_security(trust),
                    memory_limit=0,
                    local_directory=folder,
                    death_timeout=CONNECT_S,
                    host=f"[{ports.towards(address)}]" if ":" in address else None,  # alone it looks for IPv4
                    port=list(range(low, high + 1)),
                    **_NO_HTTP,
                )
                try:
                    await worker
                except (OSError, TimeoutError, RuntimeError, ValueError) as error:
                    said = str(error.__cause__ or error)
                    if "Could not start Worker" in said or getattr(error.__cause__, "errno", 0) == errno.EADDRINUSE:
                        raise ConfigError(ports.none_free(low, high)) from error
                    if "name taken" in said:
                        raise ConfigError(
                            f"hosts.bundle: a host {bundle.name} is there already; make a bundle of another name"
                        ) from error
                    say(f"no head at {bundle.address} that takes this bundle (or it was withdrawn); trying again")
                    await worker.close(nanny=False)
                    continue
                async with worker:
                    say(f"joined {bundle.address} as {bundle.name}")
                    asked_s = -math.inf
                    while worker.status == distributed.Status.running:
                        check()
                        if time.monotonic() - asked_s > _ASK_S:
                            with contextlib.suppress(OSError):  # the head is away
                                trust.refuse(await getattr(worker.scheduler, _WITHDRAWN)())
                            trust.end_refused(worker._comms)
                            asked_s = time.monotonic()
                        await asyncio.sleep(_LOOK_S)
                say(f"{bundle.address} is away; waiting for it")

    with concurrent.futures.ThreadPoolExecutor(
        1, "pepper-engine", initializer=os.sched_setaffinity, initargs=(0, cores[:1])
    ) as aside:
        serving = aside.submit(lambda: asyncio.run(serve()))
        while True:
            check()
            with contextlib.suppress(TimeoutError):
                return serving.result(_LOOK_S)


class _LastingThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """Threads that outlast the engine's connection: what is measured goes on while the head is away."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Go on; the threads end with the process."""


def connect(bundle: Bundle) -> Any:
    """Return a client of the head, in this process.

    Raises:
        DeviceError: It does not answer, or does not take this bundle.
    """
    distributed = _engine()
    try:
        return distributed.Client(
            f"tls://{bundle.address}",
            security=_security(Trust(bundle)),
            timeout=CONNECT_S,
            set_as_default=False,
            heartbeat_interval="5s",
        )
    except (OSError, TimeoutError) as error:
        raise DeviceError(
            f"no head at {bundle.address} that takes this bundle; start it there: task=head"
            f" hosts.address={bundle.address}"
        ) from error


def connected(client: Any) -> bool:
    """Return whether a client reaches its head, or still tries to."""
    return client.status in ("running", "connecting")


def disconnect(client: Any) -> None:
    """Leave the head, which may be away."""
    with contextlib.suppress(*_away()):
        client.close(timeout=CONNECT_S)


def hosts_of(client: Any) -> dict[str, dict[str, Any]]:
    """Return what the head knows of the hosts that are there, by name, and how long ago it heard of each (``seen_s``);
    nothing where it does not answer."""
    if client.status != "running":  # it looks for the head: asked now, it would wait for that
        return {}
    try:
        workers = client.scheduler_info(n_workers=-1).get("workers", {})  # none where it has given up
        now_s = float(client.sync(getattr(client.scheduler, _NOW))) if workers else 0.0
    except _away():
        return {}
    return {
        str(worker["name"]): {**worker, "address": address, "seen_s": max(0.0, now_s - worker["last_seen"])}
        for address, worker in workers.items()
    }


def kinds_of(host: dict[str, Any]) -> list[str]:
    """Return of which kinds a host is, as `hosts_of` gives it."""
    offered = (resource.partition(":")[2] for resource in host["resources"])
    return sorted(what for what in {*offered} if what.startswith(KIND))


def address_of(host: dict[str, Any]) -> str:
    """Return the address of a host, as `hosts_of` gives it."""
    return str(host["address"]).removeprefix("tls://").rpartition(":")[0].strip("[]")


def submit(client: Any, where: str, function: Callable[..., Any], *given: Any, measures: bool) -> Any:
    """Let a host call a function.

    Args:
        client: Of the head.
        where: The host's name, or a kind: any one of it.
        function: What it calls.
        given: Plain values for it.
        measures: Whether it is one of those of which a host has one at a time.
    """
    pinned = {_needs(where, _BLOCKS if measures else _QUERIES): 1}
    with _losing():
        return client.submit(function, *given, resources=pinned, pure=False, retries=0)


def answer_within(future: Any, seconds: float) -> Any:
    """Return what a call gave; None if it is not there yet.

    Raises:
        LostError: The head has forgotten it, or is away.
        DeviceError: It failed in a way that nobody has foreseen.
    """
    with _losing():
        try:
            failure = future.exception(timeout=seconds)
        except TimeoutError:
            return None
        if future.status == "error":
            raise DeviceError(" ".join(f"the engine failed: {failure}".split()))
        if future.status != "finished":
            raise LostError("forgotten")
        return future.result()


def cancel(future: Any) -> None:
    """Let the head forget a call; one that runs goes on to its end."""
    with contextlib.suppress(*_away()):
        future.cancel()


def forget(future: Any) -> None:
    """Let a call go on whose answer nobody waits for."""
    _engine().fire_and_forget(future)


def own_name() -> str:
    """Return the name under which this process joined."""
    try:
        return str(_engine().get_worker().name)
    except ValueError:  # it did not
        return HERE


def own_listening() -> ssl.SSLContext:
    """Return what this process, which has joined, shows to those who connect to it, and asks of them."""
    context = _engine().get_worker().security.get_listen_args("worker")["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


def own_connecting(client: Any) -> ssl.SSLContext:
    """Return what a client shows to those that it connects to, and asks of them."""
    context = client.security.get_connection_args("client")["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


class LostError(DeviceError):
    """The head has forgotten a call, or is away."""


@contextlib.contextmanager
def _losing() -> Iterator[None]:
    try:
        yield
    except DeviceError:
        raise
    except _away() as error:
        raise LostError(str(error)) from error


def _away() -> tuple[type[BaseException], ...]:
    """Return what the engine raises where the head is away."""
    cancelled = (asyncio.CancelledError, concurrent.futures.CancelledError)
    return (OSError, TimeoutError, RuntimeError, *cancelled, _engine().client.ClosedClientError)


def _needs(where: str, what: str) -> str:
    return f"{what}:{where}"


def _engine() -> Any:
    """Import the engine, set up."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; pip install 'pepper-harness[fleet]'") from error
    dask.config.set(_SETTINGS)
    steady_clock.give(distributed)
    # A board that only measures lacks packages of the head's, and needs none of them.
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)
    for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def _security(trust: Trust) -> Any:
    from distributed.security import Security

    listening = {"ssl_context": trust.listening, "require_encryption": True}

    class Listening(Security):  # type: ignore[misc]
        """With the one context that learns of what is withdrawn."""

        def get_listen_args(self, role: str) -> dict[str, Any]:
            """Return what `role` listens with."""
            return listening

    shown = {
        f"tls_{role}_{what}": value
        for role in ("client", "scheduler", "worker")
        for what, value in (("cert", trust.bundle.certificate), ("key", trust.bundle.key))
    }
    return Listening(require_encryption=True, tls_ca_file=trust.bundle.authority, **shown)
