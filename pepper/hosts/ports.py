"""Where this process, and what it starts, listens for other hosts: any free port, or one that a firewall opens."""

import errno
import socket
from collections.abc import Sequence

from pepper.errors import DeviceError

ANY = (0, 0)
_given = [ANY]


def use(ports: Sequence[int] | None) -> None:
    """Keep to a range from now on; None is any port."""
    _given[0] = ANY if ports is None else (ports[0], ports[1])


def allowed() -> tuple[int, int]:
    """Return the first and the last port of the range; `ANY` is none."""
    return _given[0]


def listening(backlog: int) -> socket.socket:
    """Return a socket that listens at all of this machine's addresses, IPv6 ones too, at a free port.

    Raises:
        DeviceError: None is free.
    """
    low, high = allowed()
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    for port in range(low, high + 1):
        try:
            return socket.create_server(("", port), family=family, backlog=backlog, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise DeviceError(none_free(low, high))


def none_free(low: int, high: int) -> str:
    """Say that no port of a range is free, and what to do."""
    return f"hosts.ports=[{low},{high}]: none of them is free; give a wider range, here and in the firewall"


def towards(address: str) -> str:
    """Return the address of this machine as another one sees it; nothing is sent."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((address, 9))
        return str(way.getsockname()[0])
