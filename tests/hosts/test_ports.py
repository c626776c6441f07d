"""Hosts listen at the ports that they are told, and find one another over IPv6, too."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import composed, free_port
from machines import Machines

from pepper.config import DeviceConfig
from pepper.errors import ConfigError, DeviceError
from pepper.execution.queues import Keys, anywhere, open_sink, open_source
from pepper.hosts import ports
from pepper.hosts.borrowed import Borrowed
from pepper.hosts.link_speeds import link_between
from pepper.hosts.reach import bundle_of
from pepper.hosts.remote import Joined, RemoteHost


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is taken, with a free one after it."""
    while True:
        with ports.listening(1) as server:
            port = server.getsockname()[1]
            try:
                socket.create_server(("", port + 1)).close()
            except (OSError, OverflowError):
                continue
            yield port
            return


@pytest.fixture(autouse=True)
def anything() -> Iterator[None]:
    yield
    ports.use(None)


def test_a_port_that_is_taken_is_skipped_and_none_is_said(taken: int) -> None:
    ports.use([taken, taken + 1])
    with ports.listening(1) as server:
        assert server.getsockname()[1] == taken + 1
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, taken + 1), timeout=5).close()
        with pytest.raises(
            DeviceError, match=rf"hosts\.ports=\[{taken},{taken + 1}\]: none of them is free; give a wider"
        ):
            ports.listening(1)


def test_queues_keep_to_the_ports_too(taken: int) -> None:
    where, keys = anywhere((taken, taken + 1)), Keys.make()
    with closing(open_source(where, 3, keys)) as source:
        assert source.address.endswith(f":{taken + 1}")
        with closing(open_sink(f"tcp://[::1]:{taken + 1}", 3, keys)) as sink:
            while not sink.ready():
                continue
            sink.send([b"over IPv6"])
            while not source.ready():
                continue
            assert bytes(source.receive()[0]) == b"over IPv6"
        with pytest.raises(OSError, match="none of the ports") as caught:
            open_source(where, 3, keys)
    assert caught.value.errno == errno.EADDRINUSE
    with closing(open_source(anywhere(ports.ANY), 3, keys)) as source:
        assert source.address


@pytest.mark.parametrize("given", ["[80,90]", "[9000]", "[9001,9000]", "[9000,70000]"])
def test_what_is_no_range_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"hosts\.ports=.*give \[LOW,HIGH\]"):
        composed(f"hosts.ports={given}")


@pytest.mark.parametrize("given", ["::1:80", "[::1]", "[x]:80", "[::1:80"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"hosts\.address=.*give ADDRESS:PORT"):
        composed(f"hosts.address='{given}'")


@pytest.mark.slow
def test_a_head_may_have_an_address_of_ipv6_and_a_host_without_a_port_says_so(tmp_path: Path, taken: int) -> None:
    pytest.importorskip("distributed")
    machines = Machines(tmp_path, f"[::1]:{free_port()}")
    try:
        machines.head()
        bound = f"hosts.ports=[{taken},{taken}]"
        machines.start("edge", "task=join", "hosts.bundle=fleet/edge.json", bound)
        machines.join("other")
        machines.await_said("edge", f"error: hosts.ports=[{taken},{taken}]: none of them is free")
        config = composed(f"hosts.folder={tmp_path}/fleet").hosts
        with Joined(bundle_of(config), 20) as joined:
            assert joined.address_of("other") == "::1"
            assert link_between(joined, None, "other").bandwidth_mbit_s > 0
            spec = RemoteHost("other", joined).resolve(DeviceConfig(name="a", threads=1))
            with Borrowed(joined, "other", [spec]) as lent:
                assert (lent.address, lent.own_address) == ("::1", "::1")
                assert lent.ahead_ns()[1] > 0
    finally:
        machines.clear()
