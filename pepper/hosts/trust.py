"""Whom a process of the fleet lets in: who shows a certificate of its authority that was not withdrawn (RFC 5280)."""

import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pepper.hosts.bundles import Bundle
from pepper.hosts.certificates import serials_on


class Trust:
    """What a process shows to others, and whom it lets in.

    Args:
        bundle: The process's own.

    Attributes:
        withdrawn: The list of withdrawn certificates that it keeps to (PEM); empty before it was told one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.withdrawn = ""
        self._bundle, self._refused = bundle, frozenset[int]()
        self._listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._listening.minimum_version = ssl.TLSVersion.TLSv1_3
        self._listening.num_tickets = 0  # who comes again shows the certificate again
        self._listening.verify_mode = ssl.CERT_REQUIRED
        self._listening.load_verify_locations(cadata=bundle.authority)
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_text(bundle.certificate)
            key.write_text(bundle.key)
            self._listening.load_cert_chain(certificate, key)

    def refuse(self, withdrawn: str) -> None:
        """Let nobody in any more whose certificate is on a list, which the authority has signed."""
        if withdrawn == self.withdrawn:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(withdrawn)
            file.flush()
            self._listening.load_verify_locations(cafile=file.name)
        self._listening.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        self._refused = serials_on(withdrawn)
        self.withdrawn = withdrawn

    def end_refused(self, connections: Iterable[Any]) -> None:
        """End those of the engine's connections at whose other end a certificate is that was withdrawn meanwhile."""
        for each in list(connections):
            shown = each.extra_info.get("peercert") or {}
            if int(shown.get("serialNumber", "0"), 16) in self._refused:
                each.abort()

    def security(self) -> Any:
        """Return all this as the engine takes it."""
        from distributed.security import Security

        listening = {"ssl_context": self._listening, "require_encryption": True}

        class Listening(Security):  # type: ignore[misc]
            """With one context for all who listen, which learns of what is withdrawn."""

            def get_listen_args(self, role: str) -> dict[str, Any]:
                """Return what `role` listens with."""
                return listening

        shown = {
            f"tls_{role}_{what}": value
            for role in ("client", "scheduler", "worker")
            for what, value in (("cert", self._bundle.certificate), ("key", self._bundle.key))
        }
        return Listening(require_encryption=True, tls_ca_file=self._bundle.authority, **shown)
