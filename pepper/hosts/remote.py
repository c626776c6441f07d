"""Hosts that joined a head, as this process reaches them."""

import json
import time
from typing import Any, Self

from pepper.config.hosting import HostsConfig
from pepper.errors import DeviceError, nearest
from pepper.hosts import engine
from pepper.hosts.bundles import Bundle
from pepper.hosts.operations import answer, perform
from pepper.interrupts import check

_LOOK_S = 0.5


class Hosts:
    """The hosts of a head, used as a context.

    Args:
        bundle: What lets this process in.
        config: How long a host is waited for.

    Raises:
        DeviceError: The head does not answer, or does not take this bundle.
    """

    def __init__(self, bundle: Bundle, config: HostsConfig) -> None:
        self._patience_s = config.patience_seconds
        self._client = engine.connect(bundle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def present(self) -> dict[str, dict[str, Any]]:
        """Return what the head knows of the hosts that are there, by name."""
        return engine.hosts_of(self._client)

    def ask(self, host: str, operation: str, *, measures: bool = False, **request: Any) -> Any:
        """Return what a host found; one that is lost meanwhile is asked again when it is back.

        Args:
            host: Its name.
            operation: One of `pepper.hosts.operations.OPERATIONS`.
            measures: Whether it is to wait for, and hold up, what else is measured there.
            **request: The operation's arguments, JSON-able.

        Raises:
            DeviceError: It is away for longer than it is waited for.
            PepperError: The one that it raised there.
        """
        future = self._client.submit(
            perform,
            operation,
            json.dumps(request),
            resources=engine.needs(host, measures=measures),
            pure=False,
        )
        seen_s = time.monotonic()
        try:
            while not future.done():
                check()
                time.sleep(_LOOK_S if measures else 0.02)
                present = self.present()
                if host in present:
                    seen_s = time.monotonic()
                elif time.monotonic() - seen_s > self._patience_s:
                    near = nearest(host, present) or f"; joined: {', '.join(present) or 'none'}"
                    raise DeviceError(f"host {host}: lost, or never joined, for {self._patience_s:g} s{near}")
            if future.status != "finished":
                raise DeviceError(f"host {host}: {future.exception()}")
            return answer(future.result())
        finally:
            future.cancel()
