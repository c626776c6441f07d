"""Who may join a head: certificates of its own authority, one bundle a host.

A bundle is a JSON file of mode 0600: the head's address, the authority's certificate, and a certificate with its key.
Both ends of every connection show a certificate that the authority has signed, or are refused.
"""

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from json import dumps
from pathlib import Path

from pepper.config.hosting import AUTHORITY, HEAD, HostsConfig
from pepper.documents import read_json
from pepper.errors import ConfigError, refusal

_CLOCKS_DIFFER = timedelta(hours=1)
_AUTHORITY_DAYS = 3650


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


def issue(config: HostsConfig) -> list[Path]:
    """Write the bundles that are absent, too old or of another address, the head's first; return all of them.

    Raises:
        ConfigError: The folder cannot be written, or holds something else.
    """
    if config.address is None:
        raise ConfigError(
            "hosts.address: has no value; give this machine's as hosts reach it, such as hosts.address=192.168.1.2:8786"
        )
    folder = Path(config.folder)
    files = [folder / f"{name}.json" for name in (HEAD, *config.names)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        authority = _authority(folder / f"{AUTHORITY}.json")
        for file in files:
            if not _good(file, config.address, authority):
                _write(file, Bundle(file.stem, config.address, *_signed(file.stem, authority, config.valid_days)))
    except OSError as error:
        raise ConfigError(f"hosts.folder={folder}: {refusal(error)}; give hosts.folder=... another one") from error
    return files


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
        ends = _ends(bundle)
    except OSError as error:
        raise ConfigError(f"hosts.bundle={file}: {refusal(error)}; {again}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"hosts.bundle={file}: is no bundle; {again}") from error
    if ends < datetime.now(UTC):
        raise ConfigError(f"hosts.bundle={file}: expired on {ends:%Y-%m-%d}; {again}")
    return bundle


def _good(file: Path, address: str, authority: Bundle) -> bool:
    try:
        found = read_bundle(file)
    except ConfigError:
        return False
    return found.address == address and found.authority == authority.certificate


def _authority(file: Path) -> Bundle:
    """Return the folder's authority, made where there is none."""
    if file.exists():
        return read_bundle(file)
    authority = Bundle(AUTHORITY, "", *_signed(AUTHORITY, None, _AUTHORITY_DAYS))
    _write(file, authority)
    return authority


def _write(file: Path, bundle: Bundle) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(dumps(asdict(bundle), indent=2))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _ends(bundle: Bundle) -> datetime:
    """Return until when a bundle is valid.

    Raises:
        ValueError: A certificate or the key is none, or they do not belong together.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        x509.load_pem_x509_certificate(bundle.authority.encode())
        certificate = x509.load_pem_x509_certificate(bundle.certificate.encode())
        key = serialization.load_pem_private_key(bundle.key.encode(), None)
        if key.public_key() != certificate.public_key():
            raise ValueError("the key is another certificate's")
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    return certificate.not_valid_after_utc


def _signed(name: str, authority: Bundle | None, days: int) -> tuple[str, str, str]:
    """Return the authority's certificate, a new one, and its key; without an authority the new one signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signer = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
        loaded = serialization.load_pem_private_key(authority.key.encode(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ConfigError("hosts.folder: its authority has a key of another kind; give another hosts.folder")
        signer = loaded
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    written = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return (written if authority is None else authority.certificate), written, secret
