"""The engine between a head and the hosts that join it: Dask distributed, over TLS with certificates on both sides.

It is told to stay out of a measurement's way: no profiler, no dashboard, no spilling, one heartbeat in some seconds.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable
from typing import Any

from pepper.errors import ConfigError, DeviceError
from pepper.hosts.bundles import Bundle
from pepper.interrupts import check

CONNECT_S = 10
_LOOK_S = 0.5  # for a signal, and for the head
_QUERIES, _BLOCKS = "asked", "measures"
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
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.allowed-failures": 10,
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.retry.count": 0,
    "distributed.logging.distributed": "critical",
}
_NO_HTTP = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # it wants a port, and serves nothing there


def head(bundle: Bundle, ready: Callable[[], None]) -> None:
    """Be the head, until a signal comes.

    Args:
        bundle: The head's.
        ready: Called as soon as hosts can join.

    Raises:
        ConfigError: It cannot listen there.
    """
    distributed = _engine()

    async def serve() -> None:
        address, _, port = bundle.address.rpartition(":")
        try:
            scheduler = distributed.Scheduler(
                host=address, port=int(port), protocol="tls", security=_security(bundle), **_NO_HTTP
            )
            await scheduler
        except (OSError, ValueError, RuntimeError) as error:  # the engine wraps what the system said
            said = str(error.__cause__ or error)
            raise ConfigError(f"hosts.address={bundle.address}: cannot listen there ({said}); give another") from error
        async with scheduler:
            ready()
            while True:
                check()
                await asyncio.sleep(_LOOK_S)

    asyncio.run(serve())


def join(bundle: Bundle, say: Callable[[str], None]) -> None:
    """Measure for a head, until a signal comes; where it goes away, wait for it.

    Args:
        bundle: What lets this host in.
        say: Takes what becomes of the connection, in words.

    Raises:
        ConfigError: A host of this name is there already.
    """
    distributed = _engine()

    async def serve() -> None:
        while True:
            check()
            with tempfile.TemporaryDirectory() as folder:
                worker = distributed.Worker(
                    f"tls://{bundle.address}",
                    name=bundle.name,
                    nthreads=2,  # one measures, one answers meanwhile
                    resources={_needs(bundle.name, each): 1 for each in (_QUERIES, _BLOCKS)},
                    security=_security(bundle),
                    memory_limit=0,
                    local_directory=folder,
                    death_timeout=CONNECT_S,
                    **_NO_HTTP,
                )
                try:
                    await worker
                except (OSError, TimeoutError, RuntimeError, ValueError) as error:
                    said = str(error.__cause__ or error)
                    if "name taken" in said:
                        raise ConfigError(
                            f"hosts.bundle: a host {bundle.name} is there already; make a bundle of another name"
                        ) from error
                    say(f"no head at {bundle.address} that takes this bundle; trying again")
                    await worker.close(nanny=False)
                    continue
                async with worker:
                    say(f"joined {bundle.address} as {bundle.name}")
                    while worker.status == distributed.Status.running:
                        check()
                        await asyncio.sleep(_LOOK_S)
                say(f"{bundle.address} is away; waiting for it")

    asyncio.run(serve())


def connect(bundle: Bundle) -> Any:
    """Return a client of the head, in this process.

    Raises:
        DeviceError: It does not answer, or does not take this bundle.
    """
    distributed = _engine()
    try:
        return distributed.Client(
            f"tls://{bundle.address}",
            security=_security(bundle),
            timeout=CONNECT_S,
            set_as_default=False,
            heartbeat_interval="5s",
        )
    except (OSError, TimeoutError) as error:
        raise DeviceError(
            f"no head at {bundle.address} that takes this bundle; start it there: task=head"
            f" hosts.address={bundle.address}"
        ) from error


def hosts_of(client: Any) -> dict[str, dict[str, Any]]:
    """Return what the head knows of the hosts that are there, by name."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {str(worker["name"]): {**worker, "address": address} for address, worker in workers.items()}


def needs(host: str, *, measures: bool = False) -> dict[str, int]:
    """Return what pins a task to a host: one that measures, or one that only asks, at a time."""
    return {_needs(host, _BLOCKS if measures else _QUERIES): 1}


def _needs(host: str, what: str) -> str:
    return f"{what}:{host}"


def _engine() -> Any:
    """Import the engine, set up."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; pip install 'pepper-harness[hosts]'") from error
    dask.config.set(_SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return distributed


def _security(bundle: Bundle) -> Any:
    from distributed.security import Security

    shown = {
        f"tls_{role}_{what}": value
        for role in ("client", "scheduler", "worker")
        for what, value in (
            ("cert", bundle.certificate),
            ("key", bundle.key),
        )
    }
    return Security(require_encryption=True, tls_ca_file=bundle.authority, **shown)
