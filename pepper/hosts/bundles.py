"""Who may join a head: certificates of its own authority, one bundle a host.

A bundle is a JSON file of mode 0600: the head's address, the authority's certificate, and a certificate with its key.
Both ends of every connection show a certificate that the authority has signed, or are refused; so are those that were
withdrawn since.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pepper.config.hosting import AUTHORITY, HEAD, HostsConfig
from pepper.documents import read_json
from pepper.errors import ConfigError, nearest, refusal
from pepper.hosts.certificates import KeyPair, serial_of, serials_on, signed, valid_until, withdrawal_list

_AUTHORITY_DAYS = 3650
_ISSUED, _WITHDRAWN = "issued.json", "withdrawn.pem"


@dataclass(frozen=True)
class Bundle:
    """What lets a machine in.

    Attributes:
        name: The host's; the head's own is ``head``.
        address: Where the head listens, ``ADDRESS:PORT``.
        authority: The certificate that all others are checked against (PEM).
        certificate: This machine's (PEM).
        key: The key to it (PEM, not encrypted).
    """

    name: str
    address: str
    authority: str
    certificate: str
    key: str

    @property
    def pair(self) -> KeyPair:
        """The certificate with its key."""
        return KeyPair(self.certificate, self.key)


def issue(config: HostsConfig) -> list[Path]:
    """Write the bundles that are absent, too old, withdrawn or of another address, the head's first; return all.

    Raises:
        ConfigError: The folder cannot be written, or holds something else.
    """
    folder = Path(config.folder)
    address = config.address or _address_before(folder)
    files = [folder / f"{name}.json" for name in (HEAD, *config.names)]
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        authority = _authority(folder)
        if not (folder / _WITHDRAWN).exists():
            _write(folder / _WITHDRAWN, withdrawal_list(authority.pair, (), None))
        refused = serials_on(withdrawn(folder))
        for file in files:
            if not _good(file, address, authority, refused):
                pair = signed(file.stem, authority.pair, config.valid_days)
                _note(folder, file.stem, pair)
                _write_bundle(file, Bundle(file.stem, address, authority.certificate, **asdict(pair)))
    return files


def _address_before(folder: Path) -> str:
    """Return where the head listened before.

    Raises:
        ConfigError: There was none.
    """
    with contextlib.suppress(ConfigError):
        return read_bundle(folder / f"{HEAD}.json").address
    raise ConfigError(
        "hosts.address: has no value; give this machine's as hosts reach it, such as hosts.address=192.168.1.2:8786"
    )


def withdraw(config: HostsConfig) -> None:
    """Withdraw all certificates that were made for hosts, and take their bundles away.

    Raises:
        ConfigError: The folder cannot be written, or no bundle of such a name was made.
    """
    folder = Path(config.folder)
    with _writing(folder):
        made, before = _issued(folder), withdrawn(folder)
        made.pop(HEAD, None)
        for name in config.withdraw:
            if name not in made:
                hint = nearest(name, made) or f"; there are: {', '.join(sorted(made)) or 'none'}"
                raise ConfigError(f"hosts.withdraw: no bundle of {name!r} was made in {folder}{hint}")
        refused = serials_on(before).union(*(made[name] for name in config.withdraw))
        _write(folder / _WITHDRAWN, withdrawal_list(_authority(folder).pair, refused, before))
        for name in config.withdraw:
            (folder / f"{name}.json").unlink(missing_ok=True)


def withdrawn(folder: Path) -> str:
    """Return the list of withdrawn certificates of the authority in a folder (PEM).

    Raises:
        ConfigError: There is none.
    """
    file = folder / _WITHDRAWN
    try:
        text = file.read_text()
        serials_on(text)
    except OSError as error:
        raise ConfigError(
            f"{file}: {refusal(error)}; start the head there first: task=head hosts.folder={folder}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file}: is no list of withdrawn certificates; put back the one that was there") from error
    return text


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"hosts.folder={folder}: {refusal(error)}; give hosts.folder=... another one") from error


def _issued(folder: Path) -> dict[str, list[int]]:
    """Return the serial numbers of all certificates that were made, by the host's name."""
    file = folder / _ISSUED
    if not file.exists():
        return {}
    try:
        return {name: [int(each) for each in serials] for name, serials in read_json(file).items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{file}: is no list of certificates that were made; put back the one that was there"
        ) from error


def _note(folder: Path, name: str, pair: KeyPair) -> None:
    """Keep which certificate is made for a host, before it is: what is not known of cannot be withdrawn."""
    made = _issued(folder)
    made.setdefault(name, []).append(serial_of(pair.certificate))
    _write(folder / _ISSUED, json.dumps({each: list(map(str, serials)) for each, serials in made.items()}, indent=2))


def read_bundle(file: Path) -> Bundle:
    """Return what lets this machine in.

    Raises:
        ConfigError: There is no such file, or it is no bundle, or too old.
    """
    again = "make one with task=head hosts.names=[NAME], and copy it here"
    try:
        found = read_json(file)
        bundle = Bundle(**found)
        if not all(isinstance(value, str) for value in found.values()):
            raise TypeError("no text")
        ends = valid_until(bundle.authority, bundle.pair)
    except OSError as error:
        raise ConfigError(f"hosts.bundle={file}: {refusal(error)}; {again}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"hosts.bundle={file}: is no bundle; {again}") from error
    if ends < datetime.now(UTC):
        raise ConfigError(f"hosts.bundle={file}: expired on {ends:%Y-%m-%d}; {again}")
    return bundle


def _good(file: Path, address: str, authority: Bundle, refused: Collection[int]) -> bool:
    try:
        found = read_bundle(file)
    except ConfigError:
        return False
    ours = found.address == address and found.authority == authority.certificate
    return ours and serial_of(found.certificate) not in refused


def _authority(folder: Path) -> Bundle:
    """Return a folder's authority, made where there is none."""
    file = folder / f"{AUTHORITY}.json"
    if file.exists():
        return read_bundle(file)
    pair = signed(AUTHORITY, None, _AUTHORITY_DAYS)
    authority = Bundle(AUTHORITY, "", pair.certificate, **asdict(pair))
    _write_bundle(file, authority)
    return authority


def _write_bundle(file: Path, bundle: Bundle) -> None:
    _write(file, json.dumps(asdict(bundle), indent=2))


def _write(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
