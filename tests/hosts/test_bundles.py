"""Bundles are checked whole where they are read, and are worthless once they were withdrawn."""

import socket
import ssl
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path

import pytest
from machines import client

from pepper.config.hosting import HostsConfig
from pepper.errors import ConfigError
from pepper.hosts.bundles import issue, read_bundle, withdraw, withdrawn
from pepper.hosts.certificates import serial_of, serials_on
from pepper.hosts.trust import Trust

pytest.importorskip("cryptography")
ADDRESS = "127.0.0.1:8786"


def fleet(folder: Path, *names: str, **others: object) -> HostsConfig:
    return HostsConfig(folder=str(folder), address=ADDRESS, names=[*names], **others)  # type: ignore[arg-type]


def shown(
    trust: Trust, ours: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bytes, ssl.SSLSession | None]:
    """Show a certificate to who listens; return what comes back, and the session."""
    near, far = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            with suppress(ssl.SSLError), trust.listening.wrap_socket(far, server_side=True) as peer:
                peer.sendall(b"in")

        answered = pool.submit(answer)
        try:
            with ours.wrap_socket(near, session=session) as peer:
                said = peer.recv(2), peer.session
        except ssl.SSLError:
            said = b"", None
        answered.result()
    return said


@pytest.mark.parametrize("key", ["damaged", "another's"])
def test_a_bundle_whose_key_does_not_fit_is_refused_in_a_line(tmp_path: Path, key: str) -> None:
    head, camera = issue(HostsConfig(address="127.0.0.1:8786", folder=str(tmp_path), names=["camera"]))
    bundle = read_bundle(camera)
    wrong = bundle.key[:-40] if key == "damaged" else read_bundle(head).key
    camera.write_text(dumps(asdict(replace(bundle, key=wrong))))
    with pytest.raises(ConfigError, match=r"^hosts.bundle=.*camera.json: is no bundle; make one with") as refused:
        read_bundle(camera)
    assert "\n" not in str(refused.value)


def test_a_withdrawn_certificate_is_refused_from_then_on_and_others_are_not(tmp_path: Path) -> None:
    head, *hosts = map(read_bundle, issue(fleet(tmp_path, "camera", "edge")))
    camera, edge = map(client, hosts)
    trust = Trust(head)
    trust.refuse(withdrawn(tmp_path))
    said, session = shown(trust, camera)
    assert said == b"in"
    withdraw(fleet(tmp_path, withdraw=["camera"]))
    assert shown(trust, camera)[0] == b"in"
    trust.refuse(withdrawn(tmp_path))
    assert shown(trust, camera)[0] == b""
    assert shown(trust, camera, session)[0] == b""  # nor by what was agreed on before
    assert shown(trust, edge)[0] == b"in"
    again = Trust(head)
    again.refuse(withdrawn(tmp_path))
    assert shown(again, camera)[0] == b""
    _, anew = map(read_bundle, issue(fleet(tmp_path, "camera")))
    assert shown(again, client(anew))[0] == b"in"


def test_all_that_was_ever_made_for_a_name_is_withdrawn(tmp_path: Path) -> None:
    _, file = issue(fleet(tmp_path, "camera"))
    old = file.read_text()
    first = read_bundle(file)
    file.unlink()
    second = read_bundle(issue(fleet(tmp_path, "camera"))[1])
    withdraw(fleet(tmp_path, withdraw=["camera"]))
    both = {serial_of(first.certificate), serial_of(second.certificate)}
    assert serials_on(withdrawn(tmp_path)) == both
    file.write_text(old)  # from a backup, say
    assert serial_of(read_bundle(issue(fleet(tmp_path, "camera"))[1]).certificate) not in both
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: None, "hosts.withdraw: no bundle of 'camra' was made in .*; did you mean 'camera'"),
        (lambda folder: (folder / "withdrawn.pem").write_text("x"), "withdrawn.pem: is no list .* put back the one"),
        (lambda folder: (folder / "issued.json").write_text('{"camera": 5}'), "issued.json: is no list .* put back"),
        (
            lambda folder: (folder / "withdrawn.pem").unlink(),
            "withdrawn.pem: No such file.*; start the head there first",
        ),
    ],
)
def test_what_cannot_be_withdrawn_is_said_in_a_line(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    issue(fleet(tmp_path, "camera"))
    change(tmp_path)
    with pytest.raises(ConfigError, match=said) as refused:
        withdraw(fleet(tmp_path, withdraw=["camra"]))
    assert "\n" not in str(refused.value)


def test_a_head_that_is_started_again_listens_where_it_did(tmp_path: Path) -> None:
    issue(fleet(tmp_path, "camera"))
    assert read_bundle(issue(HostsConfig(folder=str(tmp_path), names=["edge"]))[1]).address == ADDRESS
    with pytest.raises(ConfigError, match=r"hosts\.address: has no value"):
        issue(HostsConfig(folder=str(tmp_path / "other")))
