"""Machines that join a head: who may, what they say, and what is said where it goes wrong."""

import socket
import ssl
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness import composed, wait_until
from machines import Machines, client

from pepper.config import HostsConfig
from pepper.errors import ConfigError, DeviceError
from pepper.hosts.bundles import Bundle, issue, read_bundle, withdraw
from pepper.hosts.reach import bundle_of
from pepper.hosts.remote import Joined
from pepper.hosts.roll import HostThere, hosts_there

pytest.importorskip("cryptography")


def settings(folder: Path, address: str = "127.0.0.1:9", **others: object) -> HostsConfig:
    return HostsConfig(**{"folder": str(folder), "address": address, "names": ["edge"], **others})  # type: ignore[arg-type]


def test_bundles_are_their_owners_alone_and_kept_while_they_are_good(tmp_path: Path) -> None:
    files = issue(settings(tmp_path))
    assert [file.name for file in files] == ["head.json", "edge.json"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    before = [file.read_text() for file in files]
    assert [file.read_text() for file in issue(settings(tmp_path))] == before
    assert read_bundle(issue(settings(tmp_path, "127.0.0.1:10"))[1]).address == "127.0.0.1:10"


@pytest.mark.parametrize(
    ("text", "said"), [(None, "No such file"), ("no JSON", "is no bundle"), ('{"name": "edge"}', "is no bundle")]
)
def test_what_is_no_bundle_is_refused_in_a_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "edge.json").write_text(text)
    with pytest.raises(ConfigError, match=f"{said}.*make one with task=head"):
        read_bundle(tmp_path / "edge.json")


def test_one_that_has_expired_is_refused_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    from pepper.hosts import certificates

    class LongAgo(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(days=30)

    issue(settings(tmp_path))
    (tmp_path / "edge.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", LongAgo)
        issue(settings(tmp_path, valid_days=1))
    with pytest.raises(ConfigError, match=r"edge\.json: expired on"):
        read_bundle(tmp_path / "edge.json")
    read_bundle(issue(settings(tmp_path))[1])


@pytest.mark.parametrize(
    "override", ["hosts.names=[../x]", "hosts.names=[here]", "hosts.names=[authority]", "hosts.address=no-port"]
)
def test_names_and_addresses_that_cannot_be_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        composed(override)


@pytest.mark.slow
def test_a_host_that_joined_says_what_it_is(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    config = composed(f"hosts.folder={machines.folder}/fleet").hosts
    with Joined(bundle_of(config), config.patience_seconds) as hosts:
        assert {*hosts.present()} == {"edge", "twin", "other"}
        found = hosts.ask("edge", "describe")
    assert found["cores"]
    assert found["facts"]["cpu_model"]


@pytest.mark.slow
def test_prometheus_is_told_of_them_also_once_the_head_is_away(machines: Machines) -> None:
    from pepper.service.fleet_metrics import FleetMetrics

    away = False

    def ask() -> list[HostThere]:
        if away:
            raise DeviceError("the head does not answer")
        with Joined(bundle_of(config), config.patience_seconds) as hosts:
            return hosts_there(hosts)

    def shown() -> dict[str, dict[str, float]]:
        return {
            family.name: {sample.labels["host"]: sample.value for sample in family.samples} for family in told.collect()
        }

    config = composed(f"hosts.folder={machines.folder}/fleet").hosts
    told = FleetMetrics(ask, age_s=0)
    wait_until(lambda: shown()["pepper_host_up"] == {"edge": 1, "twin": 1, "other": 1})
    seen = shown()["pepper_host_last_seen_timestamp_seconds"]
    assert all(abs(time.time() - at_s) < 60 for at_s in seen.values())
    away = True
    wait_until(lambda: shown()["pepper_host_up"] == {"edge": 0, "twin": 0, "other": 0})
    assert shown()["pepper_host_last_seen_timestamp_seconds"].keys() == seen.keys()
    assert not shown()["pepper_host_pace"]


@pytest.mark.slow
def test_without_a_certificate_of_the_head_nothing_is_said(machines: Machines, tmp_path: Path) -> None:
    """In seconds, and in a line."""
    foreign = settings(tmp_path, machines.address)
    with pytest.raises(DeviceError, match="takes this bundle"), Joined(read_bundle(issue(foreign)[0]), 1):
        pass


@pytest.mark.slow
def test_a_host_that_is_not_there_is_named_at_once(machines: Machines) -> None:
    config = composed(f"hosts.folder={machines.folder}/fleet").hosts
    with (
        Joined(bundle_of(config), 60) as hosts,
        pytest.raises(DeviceError, match=r"device.host=edg: has not joined; did you mean 'edge'"),
    ):
        hosts.require("edg")


def is_refused(hosts: Joined, bundle: Bundle, name: str) -> bool:
    """Whether a host lets nobody in who shows this bundle, and comes to it straight."""
    port = hosts.ask(name, "receive", model="0" * 64, name="model.onnx", size=1)
    try:
        with (
            socket.create_connection((hosts.address_of(name), port), timeout=10) as plain,
            client(bundle).wrap_socket(plain) as peer,
        ):
            peer.sendall(b"x")  # all that is awaited
            return bool(peer.recv(1) != b"\0")
    except ssl.SSLError:
        return True


@pytest.mark.slow
def test_a_host_whose_certificate_is_withdrawn_is_out_and_stays_out(machines: Machines, tmp_path: Path) -> None:
    """It is joined: the head lets it go, other hosts refuse it, and so does the head that is started again."""
    reached = composed(f"hosts.folder={machines.folder}/fleet").hosts
    stolen = read_bundle(machines.folder / "fleet" / "other.json")
    with Joined(bundle_of(reached), 20) as hosts, Joined(stolen, 1) as thief:
        assert not is_refused(hosts, stolen, "edge")
        withdraw(replace(reached, withdraw=["other"]))
        issue(replace(reached, names=["other"]))
        wait_until(lambda: "other" not in hosts.present())
        wait_until(lambda: not thief.present())
        wait_until(lambda: is_refused(hosts, stolen, "edge"))
    machines.gone("head")
    machines.head()
    machines.await_joined("edge", "twin")
    with pytest.raises(DeviceError, match="takes this bundle"), Joined(stolen, 1):
        pass
    machines.gone("other")
    machines.join("other")
