"""Links between hosts, measured: what `tbf` lets through is what is found."""

import socket
import subprocess
from contextlib import suppress

import pytest
from harness import composed
from machines import Machines

from pepper.config.composing import Composition, compose_tree
from pepper.errors import ConfigError
from pepper.hosts import link_speeds, probing
from pepper.hosts.link_speeds import link_between
from pepper.hosts.reach import bundle_of
from pepper.hosts.remote import Joined
from pepper.planning.fleets import assemble

RATE_MBIT_S = 100


def test_a_probe_tells_both_ways() -> None:
    found = probing.probe("127.0.0.1", **probing.listen())
    assert found["round_trip_ms"] > 0
    assert {*found["there"]} == {*found["back"]} == {str(size) for size in probing.SIZES}
    assert all(rate["mbit_s"] > 0 for way in ("there", "back") for rate in found[way].values())


@pytest.mark.parametrize("sent", [b"", b"short", bytes(16), bytes(1000)])
def test_whoever_lacks_the_word_is_told_nothing(sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", probing.listen()["port"]), timeout=5) as peer:
        with suppress(OSError):  # it may hang up before all has been said
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert peer.recv(1) == b""


@pytest.mark.slow
def test_a_link_is_what_it_carries_and_kept(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    if "other" not in machines.spaces:
        pytest.skip("needs network namespaces")
    device = machines.link_of("other")
    shaped = f"tc qdisc add dev {device} root tbf rate {RATE_MBIT_S}mbit burst 32kb latency 100ms"
    subprocess.run(shaped.split(), check=True)
    try:
        reached = f"hosts.folder={machines.folder}/fleet"
        given = (
            "fleet=three_shares",
            "link=measured",
            "+fleet.devices.server.overrides.host=other",
            reached,
        )
        links = assemble(Composition(composed(*given), given, compose_tree)).between
        there, back = links["camera", "server"], links["server", "camera"]
        assert there.bandwidth_mbit_s is not None
        assert back.bandwidth_mbit_s is not None
        assert 0.7 * RATE_MBIT_S < there.bandwidth_mbit_s < 1.05 * RATE_MBIT_S
        assert back.bandwidth_mbit_s > 1.5 * RATE_MBIT_S
        assert links["camera", "edge"].is_free
        with Joined(bundle_of(composed(reached).hosts), 5) as joined:
            kept = link_between(joined, None, "other")
            assert kept.bandwidth_mbit_s == there.bandwidth_mbit_s
            monkeypatch.setattr(link_speeds, "KEPT_S", 0.0)
            assert link_between(joined, None, "other").measured_s > kept.measured_s
            with pytest.raises(ConfigError, match="is any one of several hosts"):
                link_between(joined, None, "kind:board")
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", device, "root"], check=True)
