"""Certificates of a fleet's own authority, and its list of withdrawn ones (X.509, RFC 5280), as PEM texts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

CLOCKS_DIFFER = timedelta(hours=1)
"""How far the clocks of hosts may be behind."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate, and the key to it (not encrypted)."""

    certificate: str
    key: str


def signed(name: str, authority: KeyPair | None, days: int) -> KeyPair:
    """Return a new certificate; without an authority it is one, and signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signer = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
        loaded = serialization.load_pem_private_key(authority.key.encode(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), secret.decode())


def valid_until(authority: str, pair: KeyPair) -> datetime:
    """Return until when a certificate is valid.

    Raises:
        ValueError: One of them is none, or they do not belong together.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        x509.load_pem_x509_certificate(authority.encode())
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), None)
        if key.public_key() != certificate.public_key():
            raise ValueError("the key is another certificate's")
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    return certificate.not_valid_after_utc


def serial_of(certificate: str) -> int:
    """Return the number by which a certificate is withdrawn."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.encode()).serial_number


def withdrawal_list(authority: KeyPair, serials: Iterable[int], before: str | None) -> str:
    """Return a list of withdrawn certificates, as good as the authority itself lasts.

    Args:
        authority: Who signs it.
        serials: What is on it.
        before: The list that it takes the place of, than which it is newer; None is the first.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = x509.load_pem_x509_certificate(authority.certificate.encode())
    key = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC) - CLOCKS_DIFFER
    if before is not None:
        now = max(now, x509.load_pem_x509_crl(before.encode()).last_update_utc + timedelta(seconds=1))
    builder = x509.CertificateRevocationListBuilder().issuer_name(signer.subject)
    builder = builder.last_update(now).next_update(signer.not_valid_after_utc)
    for serial in sorted(serials):
        withdrawn = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(withdrawn)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def serials_on(withdrawals: str) -> frozenset[int]:
    """Return the numbers of the certificates on a list of withdrawn ones.

    Raises:
        ValueError: It is no such list.
    """
    from cryptography import x509

    return frozenset(each.serial_number for each in x509.load_pem_x509_crl(withdrawals.encode()))
