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
        bundle: The process's own.
        listening: What it takes connections with, which learns of what is withdrawn.
        withdrawn: The list of withdrawn certificates that it keeps to (PEM); empty before it was told one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.withdrawn = ""
        self.bundle, self._refused = bundle, frozenset[int]()
        self.listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.listening.minimum_version = ssl.TLSVersion.TLSv1_3
        self.listening.num_tickets = 0  # who comes again shows the certificate again
        self.listening.verify_mode = ssl.CERT_REQUIRED
        self.listening.load_verify_locations(cadata=bundle.authority)
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_text(bundle.certificate)
            key.write_text(bundle.key)
            self.listening.load_cert_chain(certificate, key)

    def refuse(self, withdrawn: str) -> None:
        """Let nobody in any more whose certificate is on a list, which the authority has signed."""
        if withdrawn == self.withdrawn:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(withdrawn)
            file.flush()
            self.listening.load_verify_locations(cafile=file.name)
        self.listening.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        self._refused = serials_on(withdrawn)
        self.withdrawn = withdrawn

    def end_refused(self, connections: Iterable[Any]) -> None:
        """End those of the engine's connections at whose other end a certificate is that was withdrawn meanwhile."""
        for each in list(connections):
            shown = each.extra_info.get("peercert") or {}
            if int(shown.get("serialNumber", "0"), 16) in self._refused:
                each.abort()
